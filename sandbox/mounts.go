package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// unmountBelow detaches every mount at or below path, the newest first. A path without mounts, or that does not
// exist, is no error. It follows no symbolic link: the paths come from the kernel's own list of mounts.
func unmountBelow(path string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return fmt.Errorf("list mounts below %s: %w", path, err)
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		point := strings.TrimSuffix(mounts[i].Mountpoint, "//deleted")
		err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}

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
