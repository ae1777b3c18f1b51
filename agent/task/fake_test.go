package task

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"

	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/stdio"
)

// host is a Runtime whose containers are plain processes.
type host struct {
	oomKills atomic.Uint64
	// building is read before a container is there, if it is not nil.
	building chan struct{}
}

type plain struct {
	host    *host
	spec    *specs.Process
	io      *stdio.Set
	started *childProcess
}

// childProcess is either a child, or one yet to come: a first process before Start.
type childProcess struct {
	mu    sync.Mutex
	cmd   *exec.Cmd
	begun chan struct{}
	ended bool
}

func (p *childProcess) start(spec *specs.Process, set *stdio.Set) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	path, err := exec.LookPath(spec.Args[0])
	if err != nil {
		return err
	}
	p.cmd = exec.Command(path, spec.Args[1:]...)
	in, out, errs := set.Files()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = in, out, errs
	if err := p.cmd.Start(); err != nil {
		return err
	}
	close(p.begun)
	set.Start(nil)
	return nil
}

func (p *childProcess) Pid() int { return 4711 }

func (p *childProcess) Wait() uint32 {
	<-p.begun
	if p.cmd == nil {
		return 137
	}
	_ = p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	ws := p.cmd.ProcessState.Sys().(interface {
		Signaled() bool
		ExitStatus() int
	})
	if ws.Signaled() {
		return 137
	}
	return uint32(ws.ExitStatus())
}

func (p *childProcess) Signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil { // created: it can only be killed
		close(p.begun)
		return nil
	}
	if p.ended {
		return os.ErrProcessDone
	}
	return p.cmd.Process.Signal(sig)
}

func (h *host) Create(_ string, spec *specs.Spec, set *stdio.Set) (Container, Process, error) {
	if h.building != nil {
		<-h.building
	}
	if _, err := exec.LookPath(spec.Process.Args[0]); err != nil {
		return nil, nil, err
	}
	c := &plain{host: h, spec: spec.Process, io: set, started: &childProcess{begun: make(chan struct{})}}
	return c, c.started, nil
}

func (c *plain) Start() error { return c.started.start(c.spec, c.io) }

func (c *plain) Exec(spec *specs.Process, set *stdio.Set) (Process, error) {
	p := &childProcess{begun: make(chan struct{})}
	if err := p.start(spec, set); err != nil {
		return nil, err
	}
	return p, nil
}

func (c *plain) Pids() ([]int, error)               { return []int{4711, 1}, nil }
func (c *plain) KillRest() error                    { return nil }
func (c *plain) Pause() error                       { return nil }
func (c *plain) Resume() error                      { return nil }
func (c *plain) Update(*specs.LinuxResources) error { return nil }
func (c *plain) Stats() (*stats.Metrics, error) {
	return &stats.Metrics{Pids: &stats.PidsStat{Current: 7}}, nil
}
func (c *plain) OOMKills() (uint64, error) { return c.host.oomKills.Load(), nil }
func (c *plain) MemoryEvents(func()) error { return errors.New("none here") }
func (c *plain) Destroy() error            { return nil }

func socketPair() (here, there net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			return nil, nil, err
		}
		_ = f.Close()
	}
	return conns[0], conns[1], nil
}
