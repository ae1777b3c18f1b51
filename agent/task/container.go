package task

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/stdio"
)

// container is one of the service's, from the start of its creation to its deletion.
type container struct {
	id, bundle string
	rt         Container
	init       *process

	mu     sync.Mutex
	execs  map[string]*process
	paused bool

	oomMu sync.Mutex
	ooms  uint64
}

// failedStart is the exit status of a process that could not be started.
const failedStart = 255

// process finds the first process (empty) or an exec.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.execs[execID]
	if !ok {
		return nil, fmt.Errorf("process does not exist %s: %w", execID, errdefs.ErrNotFound)
	}
	return p, nil
}

// processes are the first one and the execs.
func (c *container) processes() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []*process{c.init}
	for _, p := range c.execs {
		all = append(all, p)
	}
	return all
}

func (c *container) addExec(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[p.execID]; ok {
		return fmt.Errorf("id %s: %w", p.execID, errdefs.ErrAlreadyExists)
	}
	c.execs[p.execID] = p
	return nil
}

// startInit lets the first process execute its program.
func (c *container) startInit() error {
	p := c.init
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != created {
		return fmt.Errorf("cannot start a %s process: %w", p.state, errdefs.ErrFailedPrecondition)
	}
	if err := c.rt.Start(); err != nil {
		return fmt.Errorf("OCI runtime start failed: %w", err)
	}
	p.state = running
	return nil
}

// startExec starts an exec. If it fails the exec counts as stopped, so that nobody waits for it for ever.
func (c *container) startExec(p *process, dial stdio.Dial) error {
	if s := c.init.snapshot(); s.state == stopped {
		return fmt.Errorf("container %s init process is not running: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if c.isPaused() {
		return fmt.Errorf("cannot exec in a paused container: %w", errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	if p.state != created || p.proc != nil {
		defer p.mu.Unlock()
		return fmt.Errorf("cannot start a %s process: %w", p.state, errdefs.ErrFailedPrecondition)
	}
	err := c.execLocked(p, dial)
	p.mu.Unlock()
	if err != nil {
		p.release()
		p.stop(failedStart, time.Now())
		return fmt.Errorf("OCI runtime exec failed: exec failed: %w", err)
	}
	go p.watch(func() {})
	return nil
}

func (c *container) execLocked(p *process, dial stdio.Dial) (err error) {
	if p.io, err = stdio.Open(p.cfg, dial); err != nil {
		return err
	}
	if p.proc, err = c.rt.Exec(p.spec, p.io); err != nil {
		return err
	}
	p.spec = nil
	p.state = running
	return nil
}

func (c *container) isPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

// pause and resume move a running container to paused and back.
func (c *container) pause() error {
	if s := c.init.snapshot(); s.state != running {
		return fmt.Errorf("cannot pause a %s container: %w", s.state, errdefs.ErrFailedPrecondition)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		return fmt.Errorf("cannot pause a paused container: %w", errdefs.ErrFailedPrecondition)
	}
	if err := c.rt.Pause(); err != nil {
		return fmt.Errorf("OCI runtime pause failed: %w", err)
	}
	c.paused = true
	return nil
}

func (c *container) resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.paused {
		return fmt.Errorf("cannot resume a container that is not paused: %w", errdefs.ErrFailedPrecondition)
	}
	if err := c.rt.Resume(); err != nil {
		return fmt.Errorf("OCI runtime resume failed: %w", err)
	}
	c.paused = false
	return nil
}

// signalAll sends sig to every process of the container.
func (c *container) signalAll(sig unix.Signal) error {
	pids, err := c.rt.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}

// newOOMKills is how many more processes were killed for want of memory since the last call.
func (c *container) newOOMKills() uint64 {
	c.oomMu.Lock()
	defer c.oomMu.Unlock()
	n, err := c.rt.OOMKills()
	if err != nil || n <= c.ooms { // the cgroup may be gone
		return 0
	}
	more := n - c.ooms
	c.ooms = n
	return more
}
