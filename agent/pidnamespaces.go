package agent

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"krun.dev/krunpod/agent/pidns"
	"krun.dev/krunpod/agent/reap"
)

// pidNamespaces are those that containers may join, by container; "" is the shared one.
type pidNamespaces struct {
	reaper  *reap.Reaper
	initPID func(container string) (int, error)

	mu sync.Mutex
	of map[string]*pidns.Namespace
}

// shared makes the shared namespace when the first container asks for it: most pods have none.
func (n *pidNamespaces) shared() (string, error) {
	if n.of[""] == nil {
		ns, err := pidns.New(n.reaper)
		if err != nil {
			return "", err
		}
		n.of[""] = ns
	}
	return n.of[""].Path(), nil
}

// path is good until the next call with the same id.
func (n *pidNamespaces) path(id string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == "" {
		return n.shared()
	}
	pid, err := n.initPID(id)
	if err != nil {
		return "", err
	}
	ns, err := pidns.Of(pid)
	if err != nil {
		return "", err
	}
	if again, err := n.initPID(id); err != nil || again != pid { // else the PID may have been another's already
		_ = ns.Close()
		return "", fmt.Errorf("container %s has just stopped: %w", id, errdefs.ErrFailedPrecondition)
	}
	if old := n.of[id]; old != nil {
		_ = old.Close()
	}
	n.of[id] = ns
	return ns.Path(), nil
}
