package shim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	sandboxAPI "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	shimlib "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
)

// callTimeout bounds a call into the guest that starts nothing there. It allows for a machine that is ten times slower than a good one.
const callTimeout = 30 * time.Second

// maxStarts bounds the processes that the guest sets up at a time: each takes memory there until it runs, and more at
// once are not done sooner. Those that wait for their turn are not on startLimit's clock.
const maxStarts = 8

// startLimit bounds a call that starts a process in the guest: where a boot needs long, so does that.
func (s *service) startLimit() time.Duration { return time.Duration(s.cfg.BootTimeout) }

// service is one shim: one sandbox and its containers.
type service struct {
	namespace string
	cfg       *config.Config
	events    *events
	shutdown  shutdown.Service
	timeline  *sandbox.Timeline
	pids      *pids
	starts    chan struct{} // holds one of maxStarts for each process that is being set up
	gauges    gauges
	pinning   sync.Mutex // held while the VM is pinned

	mu         sync.Mutex
	pod        *pod
	containers map[string]*container
	names      map[string]bool // of the pod's containers that are or were there
}

// newService makes the services of a shim for a containerd namespace.
func newService(ctx context.Context, namespace string, cfg *config.Config, publisher shimlib.Publisher,
	sd shutdown.Service, started time.Time) *service {
	s := &service{
		namespace: namespace, cfg: cfg, shutdown: sd, pids: newPIDs(),
		timeline:   sandbox.NewTimeline(started),
		events:     newEvents(ctx, publisher),
		starts:     make(chan struct{}, maxStarts),
		gauges:     gauges{wait: statsWait},
		containers: map[string]*container{},
		names:      map[string]bool{},
	}
	sd.RegisterCallback(func(ctx context.Context) error {
		err := s.deletePod(ctx)
		s.events.close()
		return err
	})
	go s.endWhenAbandoned(ctx, abandonedAfter)
	s.timeline.Mark("shim ready")
	return s
}

// turn waits until the guest may set up another process. The caller calls done when that is over.
func (s *service) turn(ctx context.Context) (done func(), err error) {
	select {
	case s.starts <- struct{}{}:
		return func() { <-s.starts }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait while other processes start: %w", ctx.Err())
	}
}

// RegisterTTRPC implements containerd's shim.TTRPCService.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	taskAPI.RegisterTTRPCTaskService(server, s)
	sandboxAPI.RegisterTTRPCSandboxService(server, s)
	return nil
}

// named notes that a container of that name is there, and reports whether there was one before.
func (s *service) named(name string) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again = s.names[name]
	s.names[name] = true
	return again && name != ""
}

// startPod begins the sandbox's start. The pod's own context lives on after the request that began it.
func (s *service) startPod(spec sandbox.Spec, owned bool, annotations map[string]string) (*pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pod != nil {
		return nil, fmt.Errorf("sandbox %s already exists: %w", spec.ID, errdefs.ErrAlreadyExists)
	}
	p := startPod(s.cfg, spec, s.timeline)
	p.owned, p.annotations = owned, annotations
	s.pod = p
	go func() {
		if sb, err := p.started(context.Background()); err == nil {
			s.watchEvents(sb)
		}
	}()
	return p, nil
}

// getPod returns the sandbox of id; an empty id is that of the shim.
func (s *service) getPod(id string) (*pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pod == nil || (id != "" && s.pod.spec.ID != id) {
		return nil, fmt.Errorf("sandbox %s: %w", id, errdefs.ErrNotFound)
	}
	return s.pod, nil
}

// running returns the sandbox once its guest answers.
func (s *service) running(ctx context.Context) (*sandbox.Sandbox, error) {
	p, err := s.getPod("")
	if err != nil {
		return nil, err
	}
	return p.started(ctx)
}

func (s *service) deletePod(ctx context.Context) error {
	s.mu.Lock()
	p := s.pod
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.delete(ctx)
}

// get returns a container and, with an exec id, its exec; else its init.
func (s *service) get(id, exec string) (*container, *process, error) {
	s.mu.Lock()
	c, ok := s.containers[id]
	s.mu.Unlock()
	if !ok {
		return nil, nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	if exec == "" {
		return c, c.init, nil
	}
	p, ok := c.exec(exec)
	if !ok {
		return nil, nil, fmt.Errorf("exec %s of container %s: %w", exec, id, errdefs.ErrNotFound)
	}
	return c, p, nil
}

// add reports whether the id was free.
func (s *service) add(c *container) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[c.id]; ok {
		return false
	}
	s.containers[c.id] = c
	return true
}

func (s *service) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
}

func (s *service) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers) == 0
}

// guestError makes an error of a call into the guest one for containerd: a guest that is gone is unavailable, one that
// does not answer has timed out; other errors keep the code that the agent gave.
func guestError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ttrpc.ErrClosed):
		return errgrpc.ToGRPC(fmt.Errorf("the microVM has ended: %w", errdefs.ErrUnavailable))
	case errors.Is(err, context.DeadlineExceeded):
		return errgrpc.ToGRPC(fmt.Errorf("the guest did not answer in time: %w", context.DeadlineExceeded))
	}
	return errgrpc.ToGRPC(errgrpc.ToNative(err))
}
