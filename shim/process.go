package shim

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// exitKilled is the status of a process that ended with its VM: as if by SIGKILL (128 + 9).
const exitKilled = 137

// process is a container's init or an exec, as containerd knows it.
type process struct {
	container string
	// exec is the exec's id, empty for the init.
	exec string
	pid  uint32
	uris uris
	io   *stdio

	// starting is held through a start: the end of what starts is told after it.
	starting sync.Mutex

	// gone is closed when the guest has said that the process has ended, or cannot any more.
	gone     chan struct{}
	goneOnce sync.Once

	mu     sync.Mutex
	status task.Status
	// exit is set before exited is closed.
	exit     uint32
	exitedAt time.Time
	exited   chan struct{}
}

func newProcess(container, exec string, pid uint32, u uris, io *stdio) *process {
	return &process{
		container: container, exec: exec, pid: pid, uris: u, io: io,
		status: task.Status_CREATED, exited: make(chan struct{}), gone: make(chan struct{}),
	}
}

// eventID is the id of a process in containerd's events: the exec's, or the container's for its init.
func (p *process) eventID() string {
	if p.exec != "" {
		return p.exec
	}
	return p.container
}

func (p *process) setStatus(s task.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status != task.Status_STOPPED {
		p.status = s
	}
}

func (p *process) currentStatus() task.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// end records the exit; only the first call counts. It reports whether this was the first.
func (p *process) end(status uint32, at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status == task.Status_STOPPED {
		return false
	}
	p.status, p.exit, p.exitedAt = task.Status_STOPPED, status, at
	return true
}

// giveUp ends the wait for a process that never ran: there is no event of its end.
func (p *process) giveUp() {
	if p.end(0, time.Now()) {
		close(p.exited)
	}
}

// result is the recorded exit, zero while the process lives.
func (p *process) result() (status uint32, at *timestamppb.Timestamp) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exitedAt.IsZero() {
		return 0, nil
	}
	return p.exit, timestamppb.New(p.exitedAt)
}

// container is one container of the sandbox.
type container struct {
	id     string
	bundle string
	init   *process

	mu    sync.Mutex
	execs map[string]*process

	gauge   gauge
	oomTold bool // belongs to watchEvents

	// resources are the limits that the container has, also guarded by mu; updating is held through an update.
	resources *specs.LinuxResources
	updating  sync.Mutex
}

func (c *container) limits() *specs.LinuxResources {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resources
}

func (c *container) setLimits(r *specs.LinuxResources) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources = r
}

func (c *container) exec(id string) (*process, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.execs[id]
	return p, ok
}

// processes are the init and, in the order of their process ids, the execs.
func (c *container) processes() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append([]*process{c.init}, slices.Collect(maps.Values(c.execs))...)
	slices.SortFunc(all[1:], func(a, b *process) int { return cmp.Compare(a.pid, b.pid) })
	return all
}

// addExec reports whether the id was free.
func (c *container) addExec(p *process) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[p.exec]; ok {
		return false
	}
	c.execs[p.exec] = p
	return true
}

func (c *container) removeExec(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, id)
}
