package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	eventsAPI "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"krun.dev/krunpod/sandbox"
)

// isSandbox reports whether a process is the pause container that stands for the VM: it has no stdio of its own.
func (p *process) isSandbox() bool { return p.io == nil }

// Start runs what Create or Exec prepared.
func (s *service) Start(ctx context.Context, r *taskAPI.StartRequest) (*taskAPI.StartResponse, error) {
	_, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	sb, err := s.running(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if p.isSandbox() {
		p.setStatus(task.Status_RUNNING)
		s.events.send(&eventsAPI.TaskStart{ContainerID: r.ID, Pid: p.pid})
		go func() {
			<-sb.Done()
			s.exited(p, exitKilled, sb.ExitedAt())
		}()
		return &taskAPI.StartResponse{Pid: p.pid}, nil
	}
	done, err := s.turn(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, s.startLimit())
	defer cancel()
	p.starting.Lock()
	defer p.starting.Unlock()
	if _, err := sb.Task.Start(ctx, &taskAPI.StartRequest{ID: r.ID, ExecID: r.ExecID}); err != nil {
		return nil, guestError(err)
	}
	p.setStatus(task.Status_RUNNING)
	if p.exec != "" {
		s.events.send(&eventsAPI.TaskExecStarted{ContainerID: r.ID, ExecID: r.ExecID, Pid: p.pid})
		go s.watch(sb, p)
	} else {
		sb.MarkContainer(r.ID, "started")
		s.events.send(&eventsAPI.TaskStart{ContainerID: r.ID, Pid: p.pid})
	}
	return &taskAPI.StartResponse{Pid: p.pid}, nil
}

// Exec prepares a further process in a container.
func (s *service) Exec(ctx context.Context, r *taskAPI.ExecProcessRequest) (*emptypb.Empty, error) {
	if err := s.exec(ctx, r); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.events.send(&eventsAPI.TaskExecAdded{ContainerID: r.ID, ExecID: r.ExecID})
	return &emptypb.Empty{}, nil
}

func (s *service) exec(ctx context.Context, r *taskAPI.ExecProcessRequest) (retErr error) {
	c, init, err := s.get(r.ID, "")
	if err != nil {
		return err
	}
	if err := sandbox.ValidateID("exec id", r.ExecID); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if init.isSandbox() {
		return fmt.Errorf("the sandbox %s is a microVM without a container of its own: nothing can run in it: %w",
			r.ID, errdefs.ErrNotImplemented)
	}
	sb, err := s.running(ctx)
	if err != nil {
		return err
	}
	u := uris{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal}
	io, err := openStdio(sb, s.namespace, r.ID, u)
	if err != nil {
		return err
	}
	p := newProcess(r.ID, r.ExecID, s.pids.add(r.ID+"/"+r.ExecID), u, io)
	defer func() {
		if retErr != nil {
			s.pids.remove(p.pid)
			io.close()
		}
	}()
	if !c.addExec(p) {
		return fmt.Errorf("exec %s of container %s: %w", r.ExecID, r.ID, errdefs.ErrAlreadyExists)
	}
	defer func() {
		if retErr != nil {
			c.removeExec(r.ExecID)
		}
	}()
	req := &taskAPI.ExecProcessRequest{ID: r.ID, ExecID: r.ExecID, Terminal: r.Terminal, Spec: r.Spec}
	req.Stdin, req.Stdout, req.Stderr = io.guest()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := sb.Task.Exec(ctx, req); err != nil {
		return errgrpc.ToNative(guestError(err))
	}
	io.run()
	return nil
}

// State answers from what the shim knows: it must not hang with the guest.
func (s *service) State(_ context.Context, r *taskAPI.StateRequest) (*taskAPI.StateResponse, error) {
	c, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	exit, at := p.result()
	return &taskAPI.StateResponse{
		ID: r.ID, ExecID: r.ExecID, Bundle: c.bundle, Pid: p.pid, Status: p.currentStatus(),
		Stdin: p.uris.stdin, Stdout: p.uris.stdout, Stderr: p.uris.stderr, Terminal: p.uris.terminal,
		ExitStatus: exit, ExitedAt: at,
	}, nil
}

// Wait returns when the process has ended and its output was handed over.
func (s *service) Wait(ctx context.Context, r *taskAPI.WaitRequest) (*taskAPI.WaitResponse, error) {
	_, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	}
	status, at := p.result()
	return &taskAPI.WaitResponse{ExitStatus: status, ExitedAt: at}, nil
}

// Kill sends a signal to a process, or to every process of a container. To the pause container it is the end of the
// VM. SIGKILL ends a container whether its guest wants to or not.
func (s *service) Kill(ctx context.Context, r *taskAPI.KillRequest) (*emptypb.Empty, error) {
	_, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if pod, err := s.getPod(""); err != nil || !pod.alive() || (p.currentStatus() == task.Status_STOPPED && !r.All) {
		return nil, errgrpc.ToGRPC(fmt.Errorf("process already finished: %w", errdefs.ErrNotFound))
	}
	sb, err := s.running(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	call := func(ctx context.Context) error {
		_, err := sb.Task.Kill(ctx, &taskAPI.KillRequest{ID: r.ID, ExecID: r.ExecID, Signal: r.Signal, All: r.All})
		return err
	}
	if !p.isSandbox() && r.Signal == uint32(unix.SIGKILL) {
		p.io.killed()
		if p.exec == "" {
			err := insist(ctx, sb, owed{what: "kill container " + r.ID, call: call, done: p.gone, limit: obeyLimit})
			return &emptypb.Empty{}, errgrpc.ToGRPC(err)
		}
		// An exec is not worth the VM. One whose end the guest does not tell is given up, or what the host keeps for it would pile up.
		time.AfterFunc(obeyLimit, func() { s.exited(p, exitKilled, time.Now()) })
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if p.isSandbox() {
		return &emptypb.Empty{}, errgrpc.ToGRPC(sb.Stop(ctx))
	}
	err = call(ctx)
	if errors.Is(err, ttrpc.ErrClosed) {
		// A VM that ends takes every process with it: a pod that is being stopped then goes on to be.
		select {
		case <-sb.Done():
			return nil, errgrpc.ToGRPC(fmt.Errorf("process already finished, with the microVM: %w", errdefs.ErrNotFound))
		case <-ctx.Done():
		}
	}
	return &emptypb.Empty{}, guestError(err)
}

// Delete removes a process that has ended, and with a container all that the share holds of it.
func (s *service) Delete(ctx context.Context, r *taskAPI.DeleteRequest) (*taskAPI.DeleteResponse, error) {
	c, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if st := p.currentStatus(); st != task.Status_CREATED && st != task.Status_STOPPED {
		return nil, errgrpc.ToGRPC(fmt.Errorf("process %s is running: kill it first: %w", p.eventID(), errdefs.ErrFailedPrecondition))
	}
	if err := s.deleteInGuest(ctx, p); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if p.exec == "" && !p.isSandbox() {
		s.exited(p, exitKilled, time.Now()) // one that was never started has ended with this
	}
	if p.exec != "" {
		c.removeExec(r.ExecID)
		p.giveUp() // who waits for one that was never started
	} else if err := s.deleteContainer(ctx, c); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.pids.remove(p.pid)
	status, at := p.result()
	if at == nil {
		at = timestamppb.Now()
	}
	if p.exec == "" {
		s.events.send(&eventsAPI.TaskDelete{ContainerID: r.ID, Pid: p.pid, ExitStatus: status, ExitedAt: at})
	}
	return &taskAPI.DeleteResponse{Pid: p.pid, ExitStatus: status, ExitedAt: at}, nil
}

// deleteInGuest tells the agent, if there still is one. What it answers changes nothing for the host, but that it
// did: the files of a container go only when the guest has let go of them or its VM is gone.
func (s *service) deleteInGuest(ctx context.Context, p *process) error {
	if p.io != nil {
		p.io.close()
	}
	pod, err := s.getPod("")
	if err != nil || p.isSandbox() || !pod.alive() {
		return nil
	}
	sb, err := pod.started(ctx)
	if err != nil {
		return nil
	}
	call := func(ctx context.Context) error {
		_, err := sb.Task.Delete(ctx, &taskAPI.DeleteRequest{ID: p.container, ExecID: p.exec})
		return err
	}
	if p.exec == "" && p.currentStatus() == task.Status_STOPPED {
		// The guest itself has said that the container has ended.
		err = insist(ctx, sb, owed{what: "delete container " + p.container, call: call, limit: obeyLimit})
	} else {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err = errgrpc.ToNative(guestError(call(ctx)))
	}
	if err != nil && !errdefs.IsNotFound(err) && pod.alive() {
		return fmt.Errorf("delete %s in the guest: %w", p.eventID(), err)
	}
	return nil
}

func (s *service) deleteContainer(ctx context.Context, c *container) error {
	pod, err := s.getPod("")
	if err != nil {
		return err
	}
	var sb *sandbox.Sandbox // in which other containers may go on
	switch {
	case c.id == pod.spec.ID:
		// The pause container, or a container alone: the sandbox goes with it.
		err = pod.delete(ctx)
	default:
		if sb, err = pod.started(ctx); err == nil {
			err = sb.Detach(c.id)
		}
	}
	if err != nil {
		return err
	}
	s.remove(c.id)
	// The guest has none of its processes any more, whatever it said of them.
	for _, p := range c.processes()[1:] {
		p.io.close()
		s.pids.remove(p.pid)
		go s.exited(p, exitKilled, time.Now())
	}
	if sb != nil && pod.alive() {
		s.unpin(sb)
	}
	return nil
}

// Connect tells containerd whose shim this is.
func (s *service) Connect(_ context.Context, r *taskAPI.ConnectRequest) (*taskAPI.ConnectResponse, error) {
	resp := &taskAPI.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if _, p, err := s.get(r.ID, ""); err == nil {
		resp.TaskPid = p.pid
	}
	return resp, nil
}

// Shutdown ends the shim when nothing is left in it; a sandbox ends with ShutdownSandbox.
func (s *service) Shutdown(context.Context, *taskAPI.ShutdownRequest) (*emptypb.Empty, error) {
	if pod, err := s.getPod(""); s.empty() && (err != nil || !pod.owned) {
		s.shutdown.Shutdown()
	}
	return &emptypb.Empty{}, nil
}

// Checkpoint is refused.
func (s *service) Checkpoint(context.Context, *taskAPI.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return nil, errgrpc.ToGRPC(fmt.Errorf("a container in a microVM cannot be checkpointed: %w", errdefs.ErrNotImplemented))
}
