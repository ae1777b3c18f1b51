package shim

import (
	"context"
	"fmt"
	goruntime "runtime"
	"time"

	sandboxAPI "github.com/containerd/containerd/api/runtime/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
)

// CreateSandbox checks what the pod asks for and begins to start its VM; StartSandbox waits for it.
func (s *service) CreateSandbox(_ context.Context, r *sandboxAPI.CreateSandboxRequest) (*sandboxAPI.CreateSandboxResponse, error) {
	s.timeline.Mark("sandbox requested")
	spec, annotations, err := s.sandboxSpec(r)
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument))
	}
	if _, err := s.startPod(spec, true, annotations); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &sandboxAPI.CreateSandboxResponse{}, nil
}

func (s *service) sandboxSpec(r *sandboxAPI.CreateSandboxRequest) (spec sandbox.Spec, annotations map[string]string, err error) {
	var pod runtime.PodSandboxConfig
	if r.Options != nil {
		if err := unmarshalPod(r, &pod); err != nil {
			return spec, nil, err
		}
	}
	spec, err = cri.FromPod(s.namespace, r.SandboxID, r.NetnsPath, &pod, s.cfg)
	return spec, pod.Annotations, err
}

func unmarshalPod(r *sandboxAPI.CreateSandboxRequest, pod *runtime.PodSandboxConfig) error {
	if err := proto.Unmarshal(r.Options.Value, pod); err != nil {
		return fmt.Errorf("sandbox options %s are not a PodSandboxConfig of CRI v1: %w", r.Options.TypeUrl, err)
	}
	return nil
}

// StartSandbox returns when the guest's agent answers.
func (s *service) StartSandbox(ctx context.Context, r *sandboxAPI.StartSandboxRequest) (*sandboxAPI.StartSandboxResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	sb, err := p.started(ctx)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &sandboxAPI.StartSandboxResponse{Pid: uint32(sb.PID()), CreatedAt: timestamppb.New(p.createdAt)}, nil
}

// Platform is the guest's.
func (s *service) Platform(context.Context, *sandboxAPI.PlatformRequest) (*sandboxAPI.PlatformResponse, error) {
	return &sandboxAPI.PlatformResponse{Platform: &types.Platform{OS: "linux", Architecture: goruntime.GOARCH}}, nil
}

// StopSandbox ends every container and the VM.
func (s *service) StopSandbox(ctx context.Context, r *sandboxAPI.StopSandboxRequest) (*sandboxAPI.StopSandboxResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if r.TimeoutSecs > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutSecs)*time.Second)
		defer cancel()
	}
	if err := p.stop(ctx); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &sandboxAPI.StopSandboxResponse{}, nil
}

// WaitSandbox returns when the VM has ended.
func (s *service) WaitSandbox(ctx context.Context, r *sandboxAPI.WaitSandboxRequest) (*sandboxAPI.WaitSandboxResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	}
	status, at := p.exit()
	return &sandboxAPI.WaitSandboxResponse{ExitStatus: status, ExitedAt: timestamppb.New(at)}, nil
}

// States of a sandbox as CRI names them (PodSandboxState).
var (
	stateReady    = runtime.PodSandboxState_SANDBOX_READY.String()
	stateNotReady = runtime.PodSandboxState_SANDBOX_NOTREADY.String()
)

// SandboxStatus answers from what the shim knows: it must not hang with the guest.
func (s *service) SandboxStatus(_ context.Context, r *sandboxAPI.SandboxStatusRequest) (*sandboxAPI.SandboxStatusResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp := &sandboxAPI.SandboxStatusResponse{
		SandboxID: r.SandboxID, Pid: p.pid(), State: stateNotReady, CreatedAt: timestamppb.New(p.createdAt),
	}
	if p.alive() {
		resp.State = stateReady
	} else {
		_, at := p.exit()
		resp.ExitedAt = timestamppb.New(at)
	}
	if r.Verbose && resp.Pid != 0 {
		resp.Info = map[string]string{"guestKernel": p.sb.KernelRelease()}
	}
	return resp, nil
}

// PingSandbox says that the shim is there.
func (s *service) PingSandbox(_ context.Context, r *sandboxAPI.PingRequest) (*sandboxAPI.PingResponse, error) {
	if _, err := s.getPod(r.SandboxID); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &sandboxAPI.PingResponse{}, nil
}

// ShutdownSandbox removes the sandbox and ends the shim. A sandbox that could not be created is gone already.
func (s *service) ShutdownSandbox(ctx context.Context, r *sandboxAPI.ShutdownSandboxRequest) (*sandboxAPI.ShutdownSandboxResponse, error) {
	// Also for a caller that has no time left: there may be no further call.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := s.deletePod(end); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	// The answer has to leave before the server does: containerd takes a connection that ends first for an error.
	context.AfterFunc(ctx, func() { time.AfterFunc(answerGrace, s.shutdown.Shutdown) })
	return &sandboxAPI.ShutdownSandboxResponse{}, nil
}

// answerGrace is how long the shim outlives the last request, whose context ends when its answer is queued.
const answerGrace = 200 * time.Millisecond

// SandboxMetrics reports the whole guest's cgroup.
func (s *service) SandboxMetrics(ctx context.Context, r *sandboxAPI.SandboxMetricsRequest) (*sandboxAPI.SandboxMetricsResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	stats, err := s.podStats(ctx, p)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &sandboxAPI.SandboxMetricsResponse{Metrics: &types.Metric{
		ID: r.SandboxID, Timestamp: timestamppb.Now(), Data: stats,
	}}, nil
}

// UpdateSandbox is asked before the pod's limits are changed (in-place resize), and refuses those that the VM, whose size is
// fixed, has no room for. The kubelet then changes the pod's cgroup, and Update those of containers in the guest.
func (s *service) UpdateSandbox(_ context.Context, r *sandboxAPI.UpdateSandboxRequest) (*sandboxAPI.UpdateSandboxResponse, error) {
	p, err := s.getPod(r.SandboxID)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	extension := r.GetSandbox().GetExtensions()[cri.UpdatedResourcesKey]
	if extension == nil {
		return &sandboxAPI.UpdateSandboxResponse{}, nil
	}
	resources, err := cri.ParseUpdatedResources(extension.Value)
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument))
	}
	if err := cri.ResizePod(p.spec, p.annotations, resources, s.cfg); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition))
	}
	return &sandboxAPI.UpdateSandboxResponse{}, nil
}
