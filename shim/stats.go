package shim

import (
	"context"
	"fmt"
	"sync"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/anypb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/sandbox"
)

// statsWait is how long one guest may hold up the statistics of the node: containerd asks the containers of all pods one
// after the other.
const statsWait = 2 * time.Second

// gauge keeps the last statistics of a container, or of the sandbox.
type gauge struct{ last *anypb.Any }

// gauges reads the statistics of one guest. While the guest owes an answer it is not asked again, for whichever container:
// what it said last is the answer then.
type gauges struct {
	wait time.Duration // statsWait, but in tests

	mu   sync.Mutex // guards the gauges and readings, too
	late int        // readings that have taken longer than wait
}

// reading is one call to the guest.
type reading struct {
	late  bool
	done  chan struct{}
	stats *anypb.Any
	err   error
}

// read asks the guest for what g shows.
func (s *gauges) read(ctx context.Context, g *gauge, ask func(context.Context) (*anypb.Any, error)) (*anypb.Any, error) {
	if s.owed() {
		return s.lastly(g)
	}
	r := &reading{done: make(chan struct{})}
	go s.ask(context.WithoutCancel(ctx), g, r, ask)
	select {
	case <-r.done:
	case <-time.After(s.wait):
		if s.tooLate(r) {
			return s.lastly(g)
		}
	}
	return r.stats, errgrpc.ToGRPC(r.err)
}

func (s *gauges) ask(ctx context.Context, g *gauge, r *reading, ask func(context.Context) (*anypb.Any, error)) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	said, err := ask(ctx)
	if err = errgrpc.ToNative(guestError(err)); err == nil {
		said, err = cgroupMetrics(said)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.stats, r.err = said, err; err == nil {
		g.last = said
	}
	if r.late {
		s.late--
	}
	close(r.done)
}

func (s *gauges) owed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late > 0
}

// tooLate reports whether there is no answer yet; then the guest owes it.
func (s *gauges) tooLate(r *reading) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-r.done:
		return false
	default:
		r.late = true
		s.late++
		return true
	}
}

func (s *gauges) lastly(g *gauge) (*anypb.Any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.last == nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("the guest has not answered for its statistics within %v: %w", s.wait, errdefs.ErrUnavailable))
	}
	return g.last, nil
}

// podStats are the guest's of itself, if there is one that tells them, or else what it takes of the host. They are never missing: the kubelet asks for
// those of all pods of the node in one go and has none of them when there is one error (ListPodSandboxStats of containerd), so a
// guest that says nothing, or nonsense, would cost the others theirs, and the node its evictions.
func (s *service) podStats(ctx context.Context, p *pod) (*anypb.Any, error) {
	sb := p.running()
	if sb == nil {
		return usageMetrics(sandbox.Usage{})
	}
	said, err := s.gauges.read(ctx, &p.gauge, func(ctx context.Context) (*anypb.Any, error) {
		resp, err := sb.Agent.SandboxStats(ctx, &api.SandboxStatsRequest{})
		return resp.GetMetrics(), err
	})
	if err == nil {
		return said, nil
	}
	taken, err := sb.Usage()
	if err != nil {
		taken = sandbox.Usage{} // it ends just now
	}
	return usageMetrics(taken)
}

// Stats reports a container's cgroup in the guest.
func (s *service) Stats(ctx context.Context, r *taskAPI.StatsRequest) (*taskAPI.StatsResponse, error) {
	c, p, err := s.get(r.ID, "")
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if p.isSandbox() {
		return &taskAPI.StatsResponse{}, nil // there is nothing of it in the guest
	}
	sb, err := s.running(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	stats, err := s.gauges.read(ctx, &c.gauge, func(ctx context.Context) (*anypb.Any, error) {
		resp, err := sb.Task.Stats(ctx, &taskAPI.StatsRequest{ID: r.ID})
		return resp.GetStats(), err
	})
	if err != nil {
		return nil, err
	}
	return &taskAPI.StatsResponse{Stats: stats}, nil
}
