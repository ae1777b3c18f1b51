package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"

	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
)

// pod is the sandbox of a shim from the moment it was asked for: its start goes on while containerd does other
// things, and can be given up at any time.
type pod struct {
	spec      sandbox.Spec
	createdAt time.Time
	cancel    context.CancelFunc
	// owned says that the sandbox was made by CreateSandbox and ends with ShutdownSandbox, not with its last task.
	owned bool
	// annotations are the pod's, of a sandbox that CreateSandbox made.
	annotations map[string]string
	// ready is closed when the start has ended; sb and err are valid from then on.
	ready chan struct{}
	sb    *sandbox.Sandbox
	err   error
	// ended is closed when there is no VM any more, or there never was one.
	ended chan struct{}

	gauge gauge
}

func startPod(cfg *config.Config, spec sandbox.Spec, tl *sandbox.Timeline) *pod {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &pod{
		spec: spec, createdAt: time.Now(), ready: make(chan struct{}), ended: make(chan struct{}),
		cancel: func() { cancel(errors.New("the sandbox was stopped while it started")) },
	}
	go func() {
		defer close(p.ended)
		p.sb, p.err = sandbox.Start(ctx, cfg, spec, tl)
		close(p.ready)
		if p.err == nil {
			<-p.sb.Done()
			if cause := p.sb.Cause(); cause != nil {
				log.L.WithField("sandbox", spec.ID).Error(cause)
			}
		}
	}()
	return p
}

// started returns the sandbox once its guest answers, or the error of its start.
func (p *pod) started(ctx context.Context) (*sandbox.Sandbox, error) {
	select {
	case <-p.ready:
		return p.sb, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for sandbox %s to start: %w", p.spec.ID, ctx.Err())
	}
}

// running is the sandbox whose guest answers, nil before it does and when it has ended.
func (p *pod) running() *sandbox.Sandbox {
	select {
	case <-p.ready:
		if p.err == nil && p.alive() {
			return p.sb
		}
	default:
	}
	return nil
}

// pid is the runner's, 0 while there is none.
func (p *pod) pid() uint32 {
	select {
	case <-p.ready:
		if p.err == nil {
			return uint32(p.sb.PID())
		}
	default:
	}
	return 0
}

// alive reports whether the guest answers or still may.
func (p *pod) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// stop ends the VM in order. A start that is under way is given up.
func (p *pod) stop(ctx context.Context) error {
	p.cancel()
	<-p.ready
	if p.err != nil {
		return nil
	}
	return p.sb.Stop(ctx)
}

// exit says how the sandbox ended; valid once ended is closed.
func (p *pod) exit() (status uint32, at time.Time) {
	if p.err != nil {
		return exitKilled, time.Now()
	}
	return 0, p.sb.ExitedAt()
}

// delete ends the VM and removes all that it left on the host.
func (p *pod) delete(ctx context.Context) error {
	p.cancel()
	<-p.ready
	if p.err != nil {
		return nil
	}
	return p.sb.Delete(ctx)
}
