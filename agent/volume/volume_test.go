package volume_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/volume"
	"krun.dev/krunpod/sandbox/mirror"
	"krun.dev/krunpod/test/testpod"
)

// tree is what a directory holds, with owners, permissions and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := ""
		switch full := filepath.Join(dir, path); info.Mode().Type() {
		case 0:
			data, err := os.ReadFile(full)
			if err != nil {
				return err
			}
			text = string(data)
		case fs.ModeSymlink:
			if text, err = os.Readlink(full); err != nil {
				return err
			}
		}
		all[path] = fmt.Sprintf("%v %d:%d %q", info.Mode(), st.Uid, st.Gid, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copyVolume puts the present version of the volume at host into guest.
func copyVolume(t *testing.T, host, guest string) {
	t.Helper()
	v, err := mirror.Read(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := volume.Put(guest, v.Entries, v.Keep); err != nil {
		t.Fatal(err)
	}
	want, got := tree(t, host), tree(t, guest)
	if fmt.Sprint(want) != fmt.Sprint(got) {
		t.Errorf("the copy differs\n host  %v\n guest %v", want, got)
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := testpod.WriteVolume(dir, files); err != nil {
		t.Fatal(err)
	}
}

func TestACopyIsTheVolumeWithOwnersAndPermissions(t *testing.T) {
	host, guest := t.TempDir(), filepath.Join(t.TempDir(), "volume")
	if err := os.Chmod(host, 0o2770|fs.ModeSetgid|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	write(t, host, map[string]string{"a": "1", "deep/er/b": "2", "empty": ""})
	if err := os.Chmod(host+"/a", 0o440); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		for _, path := range []string{"/a", "/..data/deep", ""} {
			if err := os.Lchown(host+path, 7, 1000); err != nil {
				t.Fatal(err)
			}
		}
	}
	copyVolume(t, host, guest)
	write(t, host, map[string]string{"a": "1", "c": "3"})
	copyVolume(t, host, guest)
	write(t, host, map[string]string{})
	copyVolume(t, host, guest)
}

func watch(t *testing.T, dir string) *testpod.Watch {
	t.Helper()
	w, err := testpod.NewWatch(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// until collects events up to one that begins with last.
func until(t *testing.T, w *testpod.Watch, last string) (all []string) {
	t.Helper()
	for {
		list, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if all = append(all, e); strings.HasPrefix(e, last) {
				return all
			}
		}
	}
}

func TestWatchersOfACopySeeWhatThoseOfTheVolumeSee(t *testing.T) {
	host, guest := t.TempDir(), filepath.Join(t.TempDir(), "volume")
	write(t, host, map[string]string{"a": "1", "gone": "1"})
	copyVolume(t, host, guest)
	onHost, inGuest := watch(t, host), watch(t, guest)
	write(t, host, map[string]string{"a": "2", "new": "2"})
	copyVolume(t, host, guest)
	copyVolume(t, host, guest) // one that has not changed has no events
	for _, dir := range []string{host, guest} {
		if err := os.WriteFile(dir+"/end", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, got := until(t, onHost, "create end"), until(t, inGuest, "create end")
	if len(want) < 7 || !slices.Equal(want, got) {
		t.Errorf("events\n host  %v\n guest %v", want, got)
	}
}

// A version may be read after it has become the present one, and before its names are linked.
func TestTheVersionBeforeGoesWhenItGoesFromTheHost(t *testing.T) {
	host, guest := t.TempDir(), filepath.Join(t.TempDir(), "volume")
	write(t, host, map[string]string{"a": "1"})
	before, err := os.Readlink(host + "/..data")
	if err != nil {
		t.Fatal(err)
	}
	copyVolume(t, host, guest)
	onHost, inGuest := watch(t, host), watch(t, guest)
	for _, step := range []func() error{
		func() error { return os.CopyFS(host+"/..next", os.DirFS(filepath.Join(host, before))) },
		func() error {
			return errors.Join(os.Symlink("..next", host+"/..data_tmp"), os.Rename(host+"/..data_tmp", host+"/..data"))
		},
		func() error { return os.Symlink("..data/a", host+"/new") },
		func() error { return os.RemoveAll(filepath.Join(host, before)) },
		func() error { return os.WriteFile(guest+"/end", nil, 0o600) },
		func() error { return os.WriteFile(host+"/end", nil, 0o600) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(guest + "/end"); err != nil {
			v, err := mirror.Read(host)
			if err != nil || volume.Put(guest, v.Entries, v.Keep) != nil {
				t.Fatal(err)
			}
		}
	}
	if want, got := until(t, onHost, "create end"), until(t, inGuest, "create end"); !slices.Equal(want, got) {
		t.Errorf("events\n host  %v\n guest %v", want, got)
	}
}

func TestAReaderOfACopyNeverSeesHalfAVersion(t *testing.T) {
	host, guest := t.TempDir(), filepath.Join(t.TempDir(), "volume")
	text := func(i int) string { return strings.Repeat(fmt.Sprint(i%10), 100_000) }
	write(t, host, map[string]string{"a": text(0)})
	copyVolume(t, host, guest)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			if testpod.WriteVolume(host, map[string]string{"a": text(i)}) != nil {
				return
			}
			if v, err := mirror.Read(host); err != nil || volume.Put(guest, v.Entries, v.Keep) != nil {
				return
			}
		}
	}()
	for reads := 0; ; reads++ {
		data, err := os.ReadFile(guest + "/a")
		// The version may go between the link and the file, as on a host.
		if err == nil && (len(data) != 100_000 || strings.Count(string(data), string(data[:1])) != len(data)) {
			t.Fatalf("read %d bytes that are no version", len(data))
		}
		select {
		case <-done:
			if copyVolume(t, host, guest); reads == 0 {
				t.Error("nothing was read")
			}
			return
		default:
		}
	}
}

func TestAPathOutOfTheVolumeIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, e := range []*api.VolumeEntry{
		{Path: "../x", Mode: unix.S_IFREG | 0o600},
		{Path: "/tmp/x", Mode: unix.S_IFREG | 0o600},
		{Path: "link/x", Mode: unix.S_IFREG | 0o600},
		{Path: "fifo", Mode: unix.S_IFIFO | 0o600},
	} {
		link := &api.VolumeEntry{Path: "link", Mode: unix.S_IFLNK, Content: []byte(t.TempDir())}
		if err := volume.Put(filepath.Join(dir, "v"), []*api.VolumeEntry{link, e}, nil); err == nil {
			t.Errorf("%v was put", e)
		}
	}
}
