package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	api3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/stdio"
)

// Service holds the containers of the guest. Serve it over ttrpc by way of TTRPC.
type Service struct {
	runtime Runtime
	dial    stdio.Dial
	oom     func(containerID string)
	log     *slog.Logger

	mu         sync.Mutex
	containers map[string]*container // nil value: being created
	built      sync.Cond             // of mu: what was being created is, or is not
}

// New makes a Service. It calls oom for each container in which the kernel killed for want of memory, before the exit
// of the killed process is reported.
func New(rt Runtime, dial stdio.Dial, oom func(containerID string), log *slog.Logger) *Service {
	s := &Service{runtime: rt, dial: dial, oom: oom, log: log, containers: map[string]*container{}}
	s.built.L = &s.mu
	return s
}

// InitPID is the PID of a container's first process, as long as it runs.
func (s *Service) InitPID(id string) (int, error) {
	c, err := s.container(id)
	if err != nil {
		return 0, err
	}
	snap := c.init.snapshot()
	if snap.state == stopped {
		return 0, fmt.Errorf("container %s has stopped: %w", id, errdefs.ErrFailedPrecondition)
	}
	return int(snap.pid), nil
}

func (s *Service) container(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s not created: %w", id, errdefs.ErrNotFound)
}

func (s *Service) find(id, execID string) (*container, *process, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.process(execID)
	return c, p, err
}

// reserve takes the id until set says what it is, nil to free it.
func (s *Service) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return fmt.Errorf("container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.containers[id] = nil
	return nil
}

func (s *Service) set(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		delete(s.containers, id)
	} else {
		s.containers[id] = c
	}
	s.built.Broadcast()
}

// awaitBuilt waits while container id is being created.
func (s *Service) awaitBuilt(ctx context.Context, id string) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.built.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil {
		if c, ok := s.containers[id]; !ok || c != nil {
			return
		}
		s.built.Wait()
	}
}

// createInTime is create, but takes back what was made when ctx has ended meanwhile: then the host has given it up.
func (s *Service) createInTime(ctx context.Context, r *api3.CreateTaskRequest) (*container, error) {
	c, err := s.create(r)
	if err != nil || ctx.Err() == nil {
		return c, err
	}
	return nil, errors.Join(ctx.Err(), s.deleteContainer(context.Background(), c))
}

func (s *Service) create(r *api3.CreateTaskRequest) (*container, error) {
	if r.Checkpoint != "" {
		return nil, fmt.Errorf("restore from a checkpoint: %w: a microVM has none", errdefs.ErrNotImplemented)
	}
	spec, err := specOf(r.Options)
	if err != nil {
		return nil, err
	}
	if err := s.reserve(r.ID); err != nil {
		return nil, err
	}
	cfg := stdio.Config{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}
	c := &container{id: r.ID, bundle: r.Bundle, init: newProcess("", cfg), execs: map[string]*process{}}
	if err := s.build(c, spec); err != nil {
		s.set(r.ID, nil)
		return nil, fmt.Errorf("OCI runtime create failed: %w", err)
	}
	s.set(r.ID, c)
	go c.init.watch(func() { s.initEnded(c) })
	if err := c.rt.MemoryEvents(func() { s.checkOOM(c) }); err != nil {
		s.log.Warn("no OOM events", "container", c.id, "error", err)
	}
	return c, nil
}

func (s *Service) build(c *container, spec *specs.Spec) (err error) {
	if c.init.io, err = stdio.Open(c.init.cfg, s.dial); err != nil {
		return err
	}
	if c.rt, c.init.proc, err = s.runtime.Create(c.id, spec, c.init.io); err != nil {
		c.init.io.Close()
	}
	return err
}

func specOf(options *anypb.Any) (*specs.Spec, error) {
	var msg api.Container
	if options == nil || !options.MessageIs(&msg) {
		return nil, fmt.Errorf("options of type %q, want %s: %w",
			options.GetTypeUrl(), proto.MessageName(&msg), errdefs.ErrInvalidArgument)
	}
	if err := proto.Unmarshal(options.Value, &msg); err != nil {
		return nil, fmt.Errorf("options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var spec specs.Spec
	if err := json.Unmarshal(msg.Spec, &spec); err != nil {
		return nil, fmt.Errorf("runtime specification: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if spec.Process == nil || spec.Root == nil || spec.Linux == nil {
		return nil, fmt.Errorf("runtime specification without process, root or linux: %w", errdefs.ErrInvalidArgument)
	}
	return &spec, nil
}

// initEnded runs when a container's first process has ended, before that is reported.
func (s *Service) initEnded(c *container) {
	s.checkOOM(c)
	if err := c.rt.KillRest(); err != nil {
		s.log.Warn("processes may be left", "container", c.id, "error", err)
	}
}

func (s *Service) checkOOM(c *container) {
	if c.newOOMKills() > 0 {
		s.oom(c.id)
	}
}

func (s *Service) exec(r *api3.ExecProcessRequest) error {
	c, err := s.container(r.ID)
	if err != nil {
		return err
	}
	if r.ExecID == "" {
		return fmt.Errorf("exec without an id: %w", errdefs.ErrInvalidArgument)
	}
	var spec specs.Process
	if err := json.Unmarshal(r.Spec.GetValue(), &spec); err != nil {
		return fmt.Errorf("process specification: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	spec.Terminal = r.Terminal
	cfg := stdio.Config{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}
	p := newProcess(r.ExecID, cfg)
	p.spec = &spec
	return c.addExec(p)
}

func (s *Service) start(r *api3.StartRequest) (*process, error) {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		return p, c.startExec(p, s.dial)
	}
	return p, c.startInit()
}

func (s *Service) kill(r *api3.KillRequest) error {
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	sig := unix.Signal(r.Signal)
	if r.All && r.ExecID == "" {
		return c.signalAll(sig)
	}
	return p.signal(sig)
}

func (s *Service) wait(ctx context.Context, r *api3.WaitRequest) (*api3.WaitResponse, error) {
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	snap := p.snapshot()
	return &api3.WaitResponse{ExitStatus: snap.status, ExitedAt: stamp(snap.exitedAt)}, nil
}

func (s *Service) delete(ctx context.Context, r *api3.DeleteRequest) (*api3.DeleteResponse, error) {
	s.awaitBuilt(ctx, r.ID) // a host that does not wait for the creation deletes what comes of it
	c, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if snap := p.snapshot(); snap.state == running {
		return nil, fmt.Errorf("cannot delete a running process: %w", errdefs.ErrFailedPrecondition)
	}
	if p.execID == "" {
		err = s.deleteContainer(ctx, c)
	} else {
		c.mu.Lock()
		delete(c.execs, p.execID)
		c.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	p.release()
	snap := p.snapshot()
	return &api3.DeleteResponse{Pid: snap.pid, ExitStatus: snap.status, ExitedAt: stamp(snap.exitedAt)}, nil
}

// deleteContainer removes a container that has stopped or was never started.
func (s *Service) deleteContainer(ctx context.Context, c *container) error {
	if c.init.snapshot().state == created {
		if err := c.init.signal(unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		select {
		case <-c.init.exited:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := c.rt.Destroy(); err != nil {
		return fmt.Errorf("OCI runtime delete failed: %w", err)
	}
	for _, p := range c.processes() {
		p.release()
	}
	s.set(c.id, nil)
	return nil
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// agentPID is what Connect tells.
func agentPID() uint32 { return uint32(os.Getpid()) }
