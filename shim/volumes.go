package shim

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/sandbox/mirror"
)

// guestVolumes finds the mounts whose volumes are in the guest's memory instead of in the share, by their index in the
// container's spec, and the paths they have there. It puts into the guest what is not there yet.
func guestVolumes(ctx context.Context, sb *sandbox.Sandbox, spec *specs.Spec) (map[int]string, error) {
	paths := map[int]string{}
	for i, m := range spec.Mounts {
		path, err := guestVolume(ctx, sb, spec.Annotations, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		}
		if path != "" {
			paths[i] = path
		}
	}
	return paths, nil
}

// guestVolume returns an empty path for what is to be shared.
func guestVolume(ctx context.Context, sb *sandbox.Sandbox, annotations map[string]string, m specs.Mount) (string, error) {
	if e, ok := cri.EmptyDir(annotations, m); ok {
		return sb.Scratch(ctx, e)
	}
	name, ok := cri.WrittenVolume(annotations, m)
	if !ok {
		return "", nil
	}
	switch err := sb.Mirror(ctx, name, m.Source); {
	case errors.Is(err, mirror.ErrUnfit):
		return "", nil
	case err != nil:
		return "", err
	}
	return filepath.Join(api.VolumeDir, name), nil
}
