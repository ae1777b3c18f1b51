package agent

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/podns"
	"krun.dev/krunpod/agent/reap"
)

// namespaces are those that containers may join. They implement ctr.Namespaces.
type namespaces struct {
	reaper  *reap.Reaper
	initPID func(container string) (int, error)

	mu sync.Mutex
	// user holds all namespaces of a pod that has a user namespace, the shared PID namespace too.
	user *podns.Holder
	// shared holds the shared PID namespace, once a container has asked for it: most pods have none.
	shared *podns.Holder
	// of are the PID namespaces of containers that others have joined.
	of map[string]*podns.Namespace
}

func newNamespaces(reaper *reap.Reaper) *namespaces {
	return &namespaces{reaper: reaper, of: map[string]*podns.Namespace{}}
}

// makeUser gives the pod a user namespace, and all others that belong to it.
func (n *namespaces) makeUser(user *api.UserNamespace) error {
	holder, err := podns.NewUser(n.reaper, user)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.user, n.shared = holder, holder
	return nil
}

func (n *namespaces) userHolder() *podns.Holder {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.user
}

// Pod is the path of the pod's namespace of a kind; empty when that is the guest's own.
func (n *namespaces) Pod(kind string) (string, error) {
	if user := n.userHolder(); user != nil {
		return user.Path(kind)
	}
	return "", nil
}

// Inside runs f on a thread in the pod's network, IPC and UTS namespaces.
func (n *namespaces) Inside(f func() error) error {
	if user := n.userHolder(); user != nil {
		return user.Inside(f)
	}
	return f()
}

// SharedPID is the path of the PID namespace that all containers may share.
func (n *namespaces) SharedPID() (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.shared == nil {
		holder, err := podns.NewPID(n.reaper)
		if err != nil {
			return "", err
		}
		n.shared = holder
	}
	return n.shared.Path(podns.PID)
}

// PIDOf is the path of a container's PID namespace. It is good until the next call with the same id.
func (n *namespaces) PIDOf(id string) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	pid, err := n.initPID(id)
	if err != nil {
		return "", err
	}
	ns, err := podns.Of(pid)
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
