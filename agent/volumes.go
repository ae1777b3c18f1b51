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
	if err := putVolume(r); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("volume %q: %w", r.GetName(), err))
	}
	return &api.PutVolumeResponse{}, nil
}

func putVolume(r *api.PutVolumeRequest) error {
	dir, err := element(api.VolumeDir, r.GetName())
	if err != nil {
		return err
	}
	scratch := r.GetScratch()
	if scratch == nil {
		return volume.Put(dir, r.GetEntries(), r.GetKeep())
	}
	if err := volume.MakeScratch(dir, scratch.GetBytes(), r.GetEntries()); err != nil || scratch.GetPartName() == "" {
		return err
	}
	target, err := element(api.SubPathDir, scratch.GetPartName())
	if err != nil {
		return err
	}
	return volume.ShowPart(dir, scratch.GetPart(), target)
}

// element is what name stands for in dir.
func element(dir, name string) (string, error) {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return "", fmt.Errorf("%q is no element of a path: %w", name, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(dir, name), nil
}
