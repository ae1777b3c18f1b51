package shim

import (
	"context"
	"fmt"

	eventsAPI "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

// forward makes one bounded call to the agent for a container or exec that the shim knows. The pause container, which
// is the VM itself, has nothing in the guest: for it the answer is empty.
func forward[Req, Resp any](ctx context.Context, s *service, id, exec string,
	call func(taskAPI.TTRPCTaskService, context.Context, *Req) (*Resp, error), req *Req) (*Resp, error) {
	_, p, err := s.get(id, exec)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if p.isSandbox() {
		return new(Resp), nil
	}
	sb, err := s.running(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := call(sb.Task, ctx, req)
	if err != nil {
		return nil, guestError(err)
	}
	return resp, nil
}

// Pids lists the processes of a container that the shim knows, by the ids that it gave them: its init and the execs that
// run. What else runs in the guest has no id that means anything to the host.
func (s *service) Pids(_ context.Context, r *taskAPI.PidsRequest) (*taskAPI.PidsResponse, error) {
	c, _, err := s.get(r.ID, "")
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp := &taskAPI.PidsResponse{}
	for _, p := range c.processes() {
		info := &task.ProcessInfo{Pid: p.pid}
		if st := p.currentStatus(); st == task.Status_STOPPED || p.exec != "" && st == task.Status_CREATED {
			continue
		}
		if p.exec != "" {
			if info.Info, err = typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: p.exec}); err != nil {
				return nil, errgrpc.ToGRPC(fmt.Errorf("encode the details of exec %s: %w", p.exec, err))
			}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

// Pause freezes a container.
func (s *service) Pause(ctx context.Context, r *taskAPI.PauseRequest) (*emptypb.Empty, error) {
	resp, err := forward(ctx, s, r.ID, "", taskAPI.TTRPCTaskService.Pause, r)
	if err == nil {
		s.setStatus(r.ID, task.Status_PAUSED)
		s.events.send(&eventsAPI.TaskPaused{ContainerID: r.ID})
	}
	return resp, err
}

// Resume thaws a container.
func (s *service) Resume(ctx context.Context, r *taskAPI.ResumeRequest) (*emptypb.Empty, error) {
	resp, err := forward(ctx, s, r.ID, "", taskAPI.TTRPCTaskService.Resume, r)
	if err == nil {
		s.setStatus(r.ID, task.Status_RUNNING)
		s.events.send(&eventsAPI.TaskResumed{ContainerID: r.ID})
	}
	return resp, err
}

func (s *service) setStatus(id string, status task.Status) {
	if _, p, err := s.get(id, ""); err == nil {
		p.setStatus(status)
	}
}

// ResizePty sets the size of a terminal.
func (s *service) ResizePty(ctx context.Context, r *taskAPI.ResizePtyRequest) (*emptypb.Empty, error) {
	return forward(ctx, s, r.ID, r.ExecID, taskAPI.TTRPCTaskService.ResizePty, r)
}

// CloseIO ends a process's input after what was written before.
func (s *service) CloseIO(_ context.Context, r *taskAPI.CloseIORequest) (*emptypb.Empty, error) {
	_, p, err := s.get(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if r.Stdin && p.io != nil {
		p.io.closeStdin()
	}
	return &emptypb.Empty{}, nil
}
