package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	api3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"krun.dev/krunpod/agent/stdio"
)

// TTRPC is s as the service that ttrpc knows; every error carries a gRPC code.
func (s *Service) TTRPC() api3.TTRPCTaskService { return server{s} }

type server struct{ s *Service }

var empty = &emptypb.Empty{}

// done answers a call that has nothing to tell.
func done(err error) (*emptypb.Empty, error) { return answer(empty, err) }

func answer[T any](resp *T, err error) (*T, error) {
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return resp, nil
}

func (t server) Create(ctx context.Context, r *api3.CreateTaskRequest) (*api3.CreateTaskResponse, error) {
	c, err := t.s.createInTime(ctx, r)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api3.CreateTaskResponse{Pid: c.init.snapshot().pid}, nil
}

func (t server) Start(_ context.Context, r *api3.StartRequest) (*api3.StartResponse, error) {
	p, err := t.s.start(r)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api3.StartResponse{Pid: p.snapshot().pid}, nil
}

func (t server) State(_ context.Context, r *api3.StateRequest) (*api3.StateResponse, error) {
	c, p, err := t.s.find(r.ID, r.ExecID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	snap := p.snapshot()
	status := snap.state.status()
	if snap.state == running && p.execID == "" && c.isPaused() {
		status = task.Status_PAUSED
	}
	return &api3.StateResponse{
		ID: c.id, ExecID: p.execID, Bundle: c.bundle, Pid: snap.pid, Status: status,
		Stdin: p.cfg.Stdin, Stdout: p.cfg.Stdout, Stderr: p.cfg.Stderr, Terminal: p.cfg.Terminal,
		ExitStatus: snap.status, ExitedAt: stamp(snap.exitedAt),
	}, nil
}

func (t server) Wait(ctx context.Context, r *api3.WaitRequest) (*api3.WaitResponse, error) {
	return answer(t.s.wait(ctx, r))
}

func (t server) Delete(ctx context.Context, r *api3.DeleteRequest) (*api3.DeleteResponse, error) {
	return answer(t.s.delete(ctx, r))
}

func (t server) Exec(_ context.Context, r *api3.ExecProcessRequest) (*emptypb.Empty, error) {
	return done(t.s.exec(r))
}

func (t server) Kill(_ context.Context, r *api3.KillRequest) (*emptypb.Empty, error) {
	return done(t.s.kill(r))
}

// Pids is not implemented: what runs here has no id that means anything to the host.
func (t server) Pids(context.Context, *api3.PidsRequest) (*api3.PidsResponse, error) {
	return answer[api3.PidsResponse](nil, fmt.Errorf("process ids of the guest: %w", errdefs.ErrNotImplemented))
}

func (t server) Pause(_ context.Context, r *api3.PauseRequest) (*emptypb.Empty, error) {
	c, err := t.s.container(r.ID)
	if err == nil {
		err = c.pause()
	}
	return done(err)
}

func (t server) Resume(_ context.Context, r *api3.ResumeRequest) (*emptypb.Empty, error) {
	c, err := t.s.container(r.ID)
	if err == nil {
		err = c.resume()
	}
	return done(err)
}

func (t server) ResizePty(_ context.Context, r *api3.ResizePtyRequest) (*emptypb.Empty, error) {
	return done(t.s.resize(r))
}

func (s *Service) resize(r *api3.ResizePtyRequest) error {
	if r.Width > math.MaxUint16 || r.Height > math.MaxUint16 {
		return fmt.Errorf("terminal of %dx%d: %w", r.Width, r.Height, errdefs.ErrInvalidArgument)
	}
	_, p, err := s.find(r.ID, r.ExecID)
	if err != nil {
		return err
	}
	io, err := p.openIO()
	if err != nil {
		return err
	}
	err = io.Resize(uint16(r.Width), uint16(r.Height))
	if errors.Is(err, stdio.ErrNoTerminal) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

func (t server) CloseIO(_ context.Context, r *api3.CloseIORequest) (*emptypb.Empty, error) {
	_, p, err := t.s.find(r.ID, r.ExecID)
	if err != nil || !r.Stdin {
		return done(err)
	}
	io, err := p.openIO()
	if err == nil {
		io.CloseStdin()
	}
	return done(err)
}

func (t server) Update(_ context.Context, r *api3.UpdateTaskRequest) (*emptypb.Empty, error) {
	return done(t.s.update(r))
}

func (s *Service) update(r *api3.UpdateTaskRequest) error {
	c, err := s.container(r.ID)
	if err != nil {
		return err
	}
	if c.init.snapshot().state == stopped {
		return fmt.Errorf("cannot update a stopped container: %w", errdefs.ErrFailedPrecondition)
	}
	var res specs.LinuxResources
	if err := json.Unmarshal(r.Resources.GetValue(), &res); err != nil {
		return fmt.Errorf("resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return c.rt.Update(&res)
}

func (t server) Stats(_ context.Context, r *api3.StatsRequest) (*api3.StatsResponse, error) {
	return answer(t.s.stats(r.ID))
}

func (s *Service) stats(id string) (*api3.StatsResponse, error) {
	c, err := s.container(id)
	if err != nil {
		return nil, err
	}
	metrics, err := c.rt.Stats()
	if err != nil {
		return nil, err
	}
	any, err := typeurl.MarshalAnyToProto(metrics)
	return &api3.StatsResponse{Stats: any}, err
}

func (t server) Connect(_ context.Context, r *api3.ConnectRequest) (*api3.ConnectResponse, error) {
	c, err := t.s.container(r.ID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api3.ConnectResponse{ShimPid: agentPID(), TaskPid: c.init.snapshot().pid}, nil
}

// Checkpoint is not implemented: CRIU would have to dump processes of a guest whose files are the host's.
func (t server) Checkpoint(context.Context, *api3.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return done(fmt.Errorf("checkpoint of a container in a microVM: %w: run it with runc to checkpoint it",
		errdefs.ErrNotImplemented))
}

// Shutdown does nothing: the Agent API's Shutdown ends the guest.
func (t server) Shutdown(context.Context, *api3.ShutdownRequest) (*emptypb.Empty, error) {
	return empty, nil
}
