package pidns

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/reap"
)

// InitArg is the name under which the agent's binary is the init of a shared PID namespace: cmd/krun-agent looks at it
// before anything else.
const InitArg = "krun-pidns"

// Namespace is a PID namespace with its init.
type Namespace struct {
	file *os.File
}

// New starts the init of a new namespace.
func New(reaper *reap.Reaper) (*Namespace, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{InitArg}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Setsid: true}
	pid, err := reaper.Spawn(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		return nil, fmt.Errorf("start the init of the shared PID namespace: %w", err)
	}
	go func() { // ends with the guest
		_ = cmd.Wait()
		reaper.Release(pid)
	}()
	return Of(pid)
}

// Of opens the namespace that process pid is in.
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
