package shim

import (
	"context"
	"fmt"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/emptypb"

	"krun.dev/krunpod/cri"
)

// Update changes a container's limits within the VM's size.
func (s *service) Update(ctx context.Context, r *taskAPI.UpdateTaskRequest) (*emptypb.Empty, error) {
	c, p, err := s.get(r.ID, "")
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if p.isSandbox() {
		return &emptypb.Empty{}, nil
	}
	var want specs.LinuxResources
	if err := typeurl.UnmarshalTo(r.Resources, &want); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("resources of container %s: %w: %w", r.ID, err, errdefs.ErrInvalidArgument))
	}
	pod, err := s.getPod("")
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	c.updating.Lock()
	defer c.updating.Unlock()
	if err := cri.ResizeContainer(c.limits(), &want, pod.spec.VCPUs, pod.spec.MemoryMiB); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("container %s: %w: %w", r.ID, err, errdefs.ErrInvalidArgument))
	}
	resp, err := forward(ctx, s, r.ID, "", taskAPI.TTRPCTaskService.Update, r)
	if err != nil {
		return nil, err
	}
	keepPin(c.limits(), &want)
	c.setLimits(&want)
	sb, err := s.running(ctx)
	if err == nil {
		err = s.pin(sb)
	}
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("container %s: %w", r.ID, err))
	}
	return resp, nil
}
