package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// MakeScratch makes dir a tmpfs that holds up to bytes, unless it is one, and in it the directories of entries that do
// not exist. bytes is no more than the guest's memory, which 0 stands for.
func MakeScratch(dir string, bytes uint64, entries []*api.VolumeEntry) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := mountScratch(dir, bytes)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, e := range entries {
		if e.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%q is no directory: mode %o", e.Path, e.Mode)
		}
		err := root.Mkdir(e.Path, 0o700)
		if errors.Is(err, fs.ErrExist) && !(fresh && e.Path == ".") {
			continue // the containers' matter by now
		}
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = own(root, e.Path, e)
		}
		if err != nil {
			return fmt.Errorf("make %q in volume %s: %w", e.Path, dir, err)
		}
	}
	return nil
}

// mountScratch reports whether it had to mount.
func mountScratch(dir string, bytes uint64) (fresh bool, err error) {
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
		return false, err
	}
	if here.Dev != above.Dev {
		return false, nil
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return false, fmt.Errorf("sysinfo: %w", err)
	}
	all := info.Totalram * uint64(info.Unit)
	if bytes == 0 || bytes > all {
		bytes = all
	}
	// The flags are the kubelet's: none.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		return false, fmt.Errorf("mount a tmpfs of %d bytes on %s: %w", bytes, dir, err)
	}
	return true, nil
}

// ShowPart shows what part leads to in the volume dir at target, instead of what was there. Containers write the volume:
// a link there may lead about in it, but not out of it.
func ShowPart(dir, part, target string) error {
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open volume %s: %w", dir, err)
	}
	defer unix.Close(top)
	fd, err := unix.Openat2(top, part, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("open %q in volume %s: %w", part, dir, err)
	}
	defer unix.Close(fd)
	if err := clearTarget(target); err != nil {
		return err
	}
	if err := makeTarget(target, fd); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %q of volume %s at %s: %w", part, dir, target, err)
	}
	return nil
}

// clearTarget removes a target that was mounted on for an earlier container, which has a mount of its own.
func clearTarget(target string) error {
	err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.MkdirAll(filepath.Dir(target), 0o755)
}

// makeTarget makes the mount point for fd: a directory, or an empty file for anything else.
func makeTarget(target string, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.Mkdir(target, 0o755)
	}
	return os.WriteFile(target, nil, 0o600)
}
