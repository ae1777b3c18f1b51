package task

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/stdio"
)

// state is where a process is in its life; it only moves down this list.
type state int

const (
	created state = iota
	running
	stopped
)

func (s state) String() string { return [...]string{"created", "running", "stopped"}[s] }

func (s state) status() task.Status {
	return [...]task.Status{task.Status_CREATED, task.Status_RUNNING, task.Status_STOPPED}[s]
}

// process is a container's first process (execID empty) or an exec.
type process struct {
	execID string
	cfg    stdio.Config
	spec   *specs.Process // of an exec, until it starts

	mu       sync.Mutex // held through a start, so that a kill finds either no process or the whole one
	state    state
	proc     Process // nil before the start of an exec
	io       *stdio.Set
	status   uint32
	exitedAt time.Time
	exited   chan struct{} // closed when stopped
}

func newProcess(execID string, cfg stdio.Config) *process {
	return &process{execID: execID, cfg: cfg, exited: make(chan struct{})}
}

// watch waits for the process to end and sends what it wrote; then, after the call of ended, it is stopped.
func (p *process) watch(ended func()) {
	status := p.proc.Wait()
	at := time.Now()
	ended()
	p.io.Drain()
	p.stop(status, at)
}

func (p *process) stop(status uint32, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == stopped {
		return
	}
	p.state, p.status, p.exitedAt = stopped, status, at
	close(p.exited)
}

// snapshot is what the Task API tells of a process.
type snapshot struct {
	state    state
	pid      uint32
	status   uint32
	exitedAt time.Time
}

func (p *process) snapshot() snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := snapshot{state: p.state, status: p.status, exitedAt: p.exitedAt}
	if p.proc != nil {
		s.pid = uint32(p.proc.Pid())
	}
	return s
}

func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil && p.state != stopped {
		return fmt.Errorf("process not created: %w", errdefs.ErrFailedPrecondition)
	}
	err := os.ErrProcessDone
	if p.state != stopped {
		err = p.proc.Signal(sig)
	}
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	return err
}

// openIO is what the process reads and writes; stdio.Set's methods do nothing harmful when it has ended.
func (p *process) openIO() (*stdio.Set, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.io == nil {
		return nil, fmt.Errorf("process %q has not been started: %w", p.execID, errdefs.ErrFailedPrecondition)
	}
	return p.io, nil
}

// release gives up its streams.
func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.io != nil {
		p.io.Close()
	}
}
