package podns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/reap"
)

// InitArg is the name under which the agent's binary is the process that holds namespaces: cmd/krun-agent looks at it
// before anything else.
const InitArg = "krun-podns"

// Kinds of namespaces, as files of /proc/PID/ns.
const (
	User = "user"
	Net  = "net"
	IPC  = "ipc"
	UTS  = "uts"
	PID  = "pid"
)

// Holder is the process that holds namespaces.
type Holder struct {
	pid   int
	ended chan struct{}
}

// NewPID makes a PID namespace.
func NewPID(reaper *reap.Reaper) (*Holder, error) {
	return start(reaper, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, PID)
}

// NewUser makes a user namespace, and one of each other kind that belongs to it: a container's root has a say only over
// what belongs to its own user namespace (user_namespaces(7)): ports, interfaces and routes, sysfs and mqueue.
func NewUser(reaper *reap.Reaper, user *api.UserNamespace) (*Holder, error) {
	return start(reaper, &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
		UidMappings: idMap(user.GetUids()),
		GidMappings: idMap(user.GetGids()),
		// Whoever joins sets groups of its own.
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	}, User, Net, IPC, UTS, PID)
}

func idMap(list []*api.IDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range list {
		out = append(out, syscall.SysProcIDMap{
			ContainerID: int(m.GetContainerId()), HostID: int(m.GetHostId()), Size: int(m.GetSize())})
	}
	return out
}

func start(reaper *reap.Reaper, attr *syscall.SysProcAttr, kinds ...string) (*Holder, error) {
	attr.Setsid = true
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{InitArg}
	cmd.Dir = "/"
	cmd.SysProcAttr = attr
	pid, err := reaper.Spawn(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		return nil, fmt.Errorf("start the process that holds the pod's %v namespaces: %w", kinds, err)
	}
	h := &Holder{pid: pid, ended: make(chan struct{})}
	go func() { // ends with the guest
		_ = cmd.Wait()
		close(h.ended)
		reaper.Release(pid)
	}()
	return h, nil
}

// Path is the namespace of one of its kinds for setns(2).
func (h *Holder) Path(kind string) (string, error) {
	select {
	case <-h.ended: // its PID may be another's
		return "", errors.New("the process that held the pod's namespaces has ended")
	default:
		return fmt.Sprintf("/proc/%d/ns/%s", h.pid, kind), nil
	}
}

// Inside runs f on a thread in the network, IPC and UTS namespaces. The thread ends with it.
func (h *Holder) Inside(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the runtime ends the thread with the goroutine
		for _, kind := range []string{Net, IPC, UTS} {
			if err := h.enter(kind); err != nil {
				result <- err
				return
			}
		}
		result <- f()
	}()
	return <-result
}

func (h *Holder) enter(kind string) error {
	f, err := h.Open(kind)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), 0); err != nil {
		return fmt.Errorf("enter the pod's %s namespace: %w", kind, err)
	}
	return nil
}

// Open opens the namespace of one of its kinds.
func (h *Holder) Open(kind string) (*os.File, error) {
	path, err := h.Path(kind)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the pod's %s namespace: %w", kind, err)
	}
	return f, nil
}

// Namespace is a PID namespace that somebody else holds.
type Namespace struct {
	file *os.File
}

// Of opens the PID namespace that process pid is in.
func Of(pid int) (*Namespace, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, fmt.Errorf("PID namespace of process %d: %w", pid, err)
	}
	return &Namespace{file: f}, nil
}

// Path is the namespace for setns(2), good until Close: it goes by way of our descriptor, because PIDs are given out
// again.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Close gives up the path.
func (n *Namespace) Close() error { return n.file.Close() }
