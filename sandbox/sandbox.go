package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/netbridge"
)

// Sandbox is a running microVM.
type Sandbox struct {
	// Task and Agent reach the guest. Their answers are the guest's word.
	Task  taskAPI.TTRPCTaskService
	Agent api.AgentClient

	cfg      *config.Config
	spec     Spec
	dir      dir
	timeline *Timeline
	share    *share
	control  *net.UnixListener
	streams  *streams
	loopback *netbridge.Loopback
	console  *console
	runner   *runner
	vnet     *vnetProcess
	client   *ttrpc.Client
	mirrors  mirrors
	scratch  scratch
	cpuset   cpuset

	// ended is closed when the end of the VM is in the state, counted when it is in the ledger.
	ended, counted chan struct{}

	kernelRelease string

	state State

	// deleting is held through a deletion, deleted says that one left nothing.
	deleting sync.Mutex
	deleted  bool
}

// PID is the runner's process id on the host.
func (s *Sandbox) PID() int { return s.runner.PID }

// Done is closed when the VM has ended, for whatever reason, and that is in the sandbox's state.
func (s *Sandbox) Done() <-chan struct{} { return s.ended }

// ExitedAt is when the VM ended; valid once Done is closed.
func (s *Sandbox) ExitedAt() time.Time { return s.runner.exitedAt }

// ErrOutOfMemory is the end of a VM that took more memory than its pod's cgroup may have.
var ErrOutOfMemory = errors.New("the kernel killed the microVM for want of memory: what it takes beside its containers must be " +
	"in the pod's overhead (overhead.podFixed.memory of the RuntimeClass)")

// OOMKilled reports whether the VM ended for want of memory on the host; valid once Done is closed.
func (s *Sandbox) OOMKilled() bool { return s.runner.end == EndOutOfMemory }

// Cause is why the VM ended, nil if it was meant to; valid once Done is closed. It may hold the guest's last words.
func (s *Sandbox) Cause() error {
	switch s.runner.end {
	case EndOutOfMemory:
		return ErrOutOfMemory
	case EndNetwork:
		return s.vnet.cause()
	case EndGuest, EndRunner:
		return s.withLastWords(fmt.Errorf("the microVM ended by itself: %s, %v", s.runner.end, s.runner.exitErr))
	}
	return nil
}

// Usage is what it takes of the host.
func (s *Sandbox) Usage() (Usage, error) { return s.state.Usage() }

// KernelRelease is the guest's, as uname(2) has it.
func (s *Sandbox) KernelRelease() string { return s.kernelRelease }

// OwnNetwork reports whether the guest is at a gateway of its own, without CNI.
func (s *Sandbox) OwnNetwork() bool { return s.spec.VNet != nil && s.spec.VNet.Gateway != nil }

// UserNamespace is that of the pod's containers, or nil.
func (s *Sandbox) UserNamespace() *api.UserNamespace { return s.spec.Guest.GetUserNamespace() }

// MarkContainer adds a container's stage to the timeline and writes it.
func (s *Sandbox) MarkContainer(id, stage string) {
	s.timeline.Mark(fmt.Sprintf("container %.12s %s", id, stage))
	// A timeline that cannot be written is no reason to fail a pod; krunctl says when there is none.
	_ = s.timeline.save(s.dir)
}

// Attach shows a path of the host at name, a path below the share: what VolumeName gave, or one with the container's id as
// its first element.
// When it returns, the guest can be told.
func (s *Sandbox) Attach(name string, a Attach) error { return s.share.attach(name, a) }

// VolumeName is the name at which container id is to Attach a, whose owners are mapped as owners says, so that it
// has it together with other containers; empty if it must have it alone. Detach gives it back.
func (s *Sandbox) VolumeName(id string, a Attach, owners string) (string, error) {
	s.share.mu.Lock()
	defer s.share.mu.Unlock()
	return s.share.volumes.name(id, a, owners)
}

// Detach removes everything of container id from the share. It is idempotent.
func (s *Sandbox) Detach(id string) error { return s.share.detach(id) }

// ExpectStream makes the id of a stdio stream for the guest to open.
func (s *Sandbox) ExpectStream() (*Pending, error) { return s.streams.expect() }

// Stop powers the guest off in order: its processes end, its file systems are synced. When the configured timeout
// has passed, or ctx ends, the runner is killed. It is idempotent.
func (s *Sandbox) Stop(ctx context.Context) error {
	if s.runner == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.cfg.StopTimeout))
	defer cancel()
	s.runner.stopping.Store(true)
	// Whatever becomes of the call: it is the guest that lets it end.
	overdue := context.AfterFunc(ctx, func() { _ = s.runner.kill(EndKilled) })
	defer overdue()
	if s.Agent != nil {
		// The connection may end before the answer: the VM's end is what counts.
		if _, err := s.Agent.Shutdown(ctx, &api.ShutdownRequest{}); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
			if err := s.runner.kill(EndKilled); err != nil {
				return err
			}
		}
	} else if err := s.runner.kill(EndKilled); err != nil {
		return err
	}
	return s.runner.stop(ctx)
}

// Kill ends the VM at once.
func (s *Sandbox) Kill() error {
	if s.runner == nil {
		return nil
	}
	if err := s.runner.kill(EndKilled); err != nil {
		return err
	}
	<-s.runner.done
	return nil
}

// Delete ends the VM, if it still runs, and removes everything that the sandbox made on the host. One that failed can be tried
// again; after one that did not, what is there is another sandbox's, which may have the same id.
func (s *Sandbox) Delete(ctx context.Context) error {
	s.deleting.Lock()
	defer s.deleting.Unlock()
	if s.deleted {
		return nil
	}
	err := s.delete(ctx)
	s.deleted = err == nil
	return err
}

func (s *Sandbox) delete(ctx context.Context) error {
	err := s.Kill()
	if s.client != nil {
		s.client.Close()
	}
	if s.counted != nil {
		<-s.counted
	}
	s.mirrors.wait()
	if s.control != nil {
		s.control.Close()
	}
	if s.streams != nil {
		s.streams.close()
	}
	if s.loopback != nil {
		err = errors.Join(err, s.loopback.Close())
		s.loopback.Wait()
	}
	if s.vnet != nil {
		s.vnet.close()
	}
	if s.console != nil {
		s.console.Close()
	}
	if s.share != nil {
		err = errors.Join(err, s.share.close())
	}
	if rerr := Remove(ctx, string(s.dir)); rerr != nil {
		return errors.Join(err, fmt.Errorf("remove sandbox %s: %w", s.spec.ID, rerr))
	}
	return err
}
