package agent

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/volume"
)

// PutVolume implements the Agent API.
func (s *sandbox) PutVolume(_ context.Context, r *api.PutVolumeRequest) (*api.PutVolumeResponse, error) {
	s.volumes.Lock()
	defer s.volumes.Unlock()
	if name := r.GetName(); name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return nil, errgrpc.ToGRPC(fmt.Errorf("volume name %q is no element of a path: %w", name, errdefs.ErrInvalidArgument))
	}
	if err := volume.Put(filepath.Join(api.VolumeDir, r.GetName()), r.GetEntries()); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api.PutVolumeResponse{}, nil
}
