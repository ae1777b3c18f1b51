package shim

import (
	"context"
	"time"

	eventsAPI "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/timestamppb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/sandbox"
)

// watch waits for a process's end in the guest, then for its output, then tells containerd: so the exit event comes
// after the last byte. A container is watched from its creation on: its init may end, or be killed, before its start.
func (s *service) watch(sb *sandbox.Sandbox, p *process) {
	resp, err := sb.Task.Wait(context.Background(), &taskAPI.WaitRequest{ID: p.container, ExecID: p.exec})
	if err != nil {
		// The guest cannot answer any more, or refuses to: either way this process is lost to the host. A VM
		// that still runs may only be slow to end; one that does not end is killed with the process (Kill).
		<-sb.Done()
		if sb.OOMKilled() && p.exec == "" {
			s.events.send(&eventsAPI.TaskOOM{ContainerID: p.container})
		}
		s.exited(p, exitKilled, sb.ExitedAt())
		return
	}
	// The time is the host's: the guest's clock may say anything.
	s.exited(p, resp.ExitStatus, time.Now())
}

// exited records and publishes the end of a process, once.
func (s *service) exited(p *process, status uint32, at time.Time) {
	p.goneOnce.Do(func() { close(p.gone) })
	if p.io != nil {
		p.io.wait()
	}
	p.starting.Lock()
	defer p.starting.Unlock()
	if !p.end(status, at) {
		return
	}
	if p.io != nil {
		p.io.close()
	}
	s.events.send(&eventsAPI.TaskExit{
		ContainerID: p.container, ID: p.eventID(), Pid: p.pid, ExitStatus: status, ExitedAt: timestamppb.New(at),
	})
	close(p.exited)
}

// eventRate is how many events of its own a guest may cause a second in the long run, eventBurst how many at once.
const (
	eventRate  = 1
	eventBurst = 100
)

// watchEvents publishes what the agent reports by itself until the VM ends.
func (s *service) watchEvents(sb *sandbox.Sandbox) {
	stream, err := sb.Agent.Events(context.Background(), &api.EventsRequest{})
	if err != nil {
		return
	}
	// A guest that makes events up costs containerd no more than this.
	allowed := rate.NewLimiter(eventRate, eventBurst)
	for {
		ev, err := stream.Recv()
		if err != nil {
			return
		}
		// An id of the guest: only that of a container that the shim knows goes on.
		c, _, err := s.get(ev.GetOom().GetContainerId(), "")
		if err == nil && mayTell(c, allowed) {
			s.events.send(&eventsAPI.TaskOOM{ContainerID: c.id})
		}
	}
}

// mayTell lets the first event of a container through in any case: it makes OOMKilled of its end.
func mayTell(c *container, allowed *rate.Limiter) bool {
	first := !c.oomTold
	c.oomTold = true
	return first || allowed.Allow()
}
