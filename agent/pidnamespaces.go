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

// share makes the shared namespace.
func (n *pidNamespaces) share() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of[""] != nil {
		return nil
	}
	ns, err := pidns.New(n.reaper)
	if err != nil {
		return err
	}
	n.of[""] = ns
	return nil
}

// path is good until the next call with the same id.
func (n *pidNamespaces) path(id string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == "" {
		if n.of[id] == nil {
			return "", fmt.Errorf("the pod's PID namespace is not shared: %w", errdefs.ErrFailedPrecondition)
		}
		return n.of[id].Path(), nil
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
