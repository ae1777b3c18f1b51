package sandbox

import (
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// HasMountsBelow reports whether anything is mounted below the directory path.
func HasMountsBelow(path string) (bool, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		below := strings.HasPrefix(m.Mountpoint, strings.TrimSuffix(path, "/")+"/")
		return !below, below
	})
	if err != nil {
		return false, fmt.Errorf("list mounts below %s: %w", path, err)
	}
	return len(mounts) > 0, nil
}
