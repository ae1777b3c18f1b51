package volume_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/volume"
	"krun.dev/krunpod/test/testpod"
)

func directory(path string, mode, gid uint32) *api.VolumeEntry {
	return &api.VolumeEntry{Path: path, Mode: unix.S_IFDIR | mode, Gid: gid}
}

func TestScratchIsATmpfsOfTheVolumesSizeAndOwners(t *testing.T) {
	dir := testpod.PrivateMounts(t) + "/v"
	const size = 1 << 20
	put := func(entries ...*api.VolumeEntry) {
		t.Helper()
		if err := volume.MakeScratch(dir, size, entries); err != nil {
			t.Fatal(err)
		}
	}
	put(directory(".", 0o2777, 2000))
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &fs), unix.Stat(dir, &st)); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.TMPFS_MAGIC || fs.Blocks*uint64(fs.Bsize) != size || st.Mode&0o7777 != 0o2777 || st.Gid != 2000 {
		t.Errorf("type %x, %d bytes, mode %o, group %d", fs.Type, fs.Blocks*uint64(fs.Bsize), st.Mode, st.Gid)
	}
	if err := os.WriteFile(dir+"/big", make([]byte, size+1), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("more than its size fits: %v", err)
	}

	// The next container finds what is there, as it is, and a directory that it needs.
	if err := errors.Join(os.WriteFile(dir+"/kept", nil, 0o600), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	put(directory(".", 0o2777, 2000), directory("sub", 0o750, 7), directory("sub/part", 0o750, 7))
	if err := unix.Stat(dir, &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("a container's change of the volume's mode is lost: %o, %v", st.Mode, err)
	}
	if err := unix.Stat(dir+"/sub/part", &st); err != nil || st.Mode&0o7777 != 0o750 || st.Gid != 7 {
		t.Errorf("sub/part has mode %o, group %d, %v", st.Mode, st.Gid, err)
	}
	if _, err := os.Stat(dir + "/kept"); err != nil {
		t.Error(err)
	}
}

func TestScratchIsNoLargerThanTheGuest(t *testing.T) {
	top := testpod.PrivateMounts(t)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	for _, bytes := range []uint64{0, 1 << 60} {
		dir := fmt.Sprint(top, "/", bytes)
		if err := volume.MakeScratch(dir, bytes, []*api.VolumeEntry{directory(".", 0o777, 0)}); err != nil {
			t.Fatal(err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil || fs.Blocks == 0 || fs.Blocks*uint64(fs.Bsize) > info.Totalram*uint64(info.Unit) {
			t.Errorf("%d bytes: a tmpfs of %d blocks, %v", bytes, fs.Blocks, err)
		}
	}
}

func TestAPartIsNeverOutOfItsVolume(t *testing.T) {
	top := testpod.PrivateMounts(t)
	dir, target := top+"/v", top+"/parts/p"
	if err := volume.MakeScratch(dir, 1<<20, []*api.VolumeEntry{directory(".", 0o777, 0), directory("a", 0o755, 0)}); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(os.WriteFile(top+"/secret", nil, 0o600), os.WriteFile(dir+"/a/file", []byte("x"), 0o600),
		os.Symlink("a", dir+"/inside"), os.Symlink("..", dir+"/up"), os.Symlink(top, dir+"/absolute"),
		os.Symlink("/proc/self/root", dir+"/magic"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"a", "inside", ".", "a/file", "a"} { // one after the other, as containers come
		if err := volume.ShowPart(dir, part, target); err != nil {
			t.Errorf("%s: %v", part, err)
		}
	}
	if _, err := os.Stat(target + "/file"); err != nil {
		t.Error(err)
	}
	for _, part := range []string{"up", "..", "absolute", "magic", "up/secret", "/", "none"} {
		if err := volume.ShowPart(dir, part, target); err == nil {
			t.Errorf("%s was shown", part)
		}
	}
}
