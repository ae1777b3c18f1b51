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
		name, ok := cri.WrittenVolume(spec.Annotations, m)
		if !ok {
			continue
		}
		switch err := sb.Mirror(ctx, name, m.Source); {
		case errors.Is(err, mirror.ErrUnfit):
		case err != nil:
			return nil, fmt.Errorf("mount %s: %w", m.Destination, err)
		default:
			paths[i] = filepath.Join(api.VolumeDir, name)
		}
	}
	return paths, nil
}
