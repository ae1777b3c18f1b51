package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/test/testpod"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if err := testpod.WriteVolume(dir, files); err != nil {
		t.Fatal(err)
	}
}

func TestAVersionIsReadInTheOrderInWhichItIsWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"b": "bee", "sub/a": "ay"})
	// What the kubelet is about to make the next version is none of this one.
	if err := os.MkdirAll(dir+"/..unfinished/x", 0o755); err != nil {
		t.Fatal(err)
	}
	v, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.Readlink(dir + "/..data")
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		path, content string
		kind          uint32
	}{
		{".", "", unix.S_IFDIR}, {now, "", unix.S_IFDIR}, {now + "/b", "bee", unix.S_IFREG},
		{now + "/sub", "", unix.S_IFDIR}, {now + "/sub/a", "ay", unix.S_IFREG},
		{"..data", now, unix.S_IFLNK}, {"b", "..data/b", unix.S_IFLNK}, {"sub", "..data/sub", unix.S_IFLNK},
	}
	if len(v.Entries) != len(want) {
		t.Fatalf("entries are %v", v.Entries)
	}
	for i, w := range want {
		if e := v.Entries[i]; e.Path != w.path || string(e.Content) != w.content || e.Mode&unix.S_IFMT != w.kind {
			t.Errorf("entry %d is %v, want %v", i, e, w)
		}
	}
	if e := v.Entries[2]; e.Mode&0o7777 != 0o644 || e.Uid != uint32(os.Getuid()) {
		t.Errorf("the file is %v", e)
	}
}

func TestAMarkChangesWithEachVersionAndEachName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	seen := map[string]bool{}
	look := func(what string) {
		t.Helper()
		m, err := Mark(dir)
		if err != nil || seen[m] {
			t.Errorf("%s: mark %q is not new, error %v", what, m, err)
		}
		seen[m] = true
	}
	look("first")
	write(t, dir, map[string]string{"a": "2"})
	look("another content")
	// The kubelet links a new name after the rename that makes its version the present one.
	if err := os.Symlink("..data/b", dir+"/b"); err != nil {
		t.Fatal(err)
	}
	look("a name that was linked later")
	if v, err := Read(dir); err != nil || !seen[v.Mark] {
		t.Errorf("a version that is read has mark %q, error %v", v.Mark, err)
	}
}

func TestWhatIsNoSuchVolumeIsUnfit(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no ..data":               func(dir string) error { return os.Remove(dir + "/..data") },
		"..data leads out":        func(dir string) error { return relink("../..", dir+"/..data") },
		"..data leads to the top": func(dir string) error { return relink("..", dir+"/..data") },
		"..data is absolute":      func(dir string) error { return relink("/etc", dir+"/..data") },
		"a file beside":           func(dir string) error { return os.WriteFile(dir+"/file", nil, 0o600) },
		"a FIFO":                  func(dir string) error { return unix.Mkfifo(dir+"/..data/fifo", 0o600) },
		"more than the bound": func(dir string) error {
			return os.WriteFile(dir+"/..data/big", make([]byte, MaxBytes), 0o600)
		},
		"more names than the bound": func(dir string) error {
			const long = 250
			for i := range MaxBytes / long {
				if err := os.Symlink("x", fmt.Sprintf("%s/..data/%0*d", dir, long, i)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a": "1"})
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func relink(to, path string) error { return errors.Join(os.Remove(path), os.Symlink(to, path)) }

func TestAVersionThatIsReadWhileTheVolumeChangesIsWhole(t *testing.T) {
	dir := t.TempDir()
	version := func(text string) map[string]string {
		return map[string]string{"a": text, "b": text, "c": text, "d": text}
	}
	write(t, dir, version("0"))
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if err := testpod.WriteVolume(dir, version(strings.Repeat("x", i%9))); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	whole := 0
	for range 300 {
		v, err := Read(dir)
		if err != nil {
			continue // too fast for it; the sandbox looks again
		}
		whole++
		checkWhole(t, v.Entries)
	}
	close(stop)
	writer.Wait()
	if whole == 0 {
		t.Error("no version was read")
	}
}

// checkWhole checks that all files are of one version, the one that ..data leads to.
func checkWhole(t *testing.T, entries []*api.VolumeEntry) {
	t.Helper()
	contents, files, now := map[string]bool{}, 0, ""
	for _, e := range entries {
		if e.Path == "..data" {
			now = string(e.Content)
		}
	}
	for _, e := range entries {
		if e.Mode&unix.S_IFMT == unix.S_IFREG && filepath.Dir(e.Path) == now {
			contents[string(e.Content)] = true
			files++
		}
	}
	if files != 4 || len(contents) != 1 {
		t.Errorf("%d files of %d versions in %s: %v", files, len(contents), now, entries)
	}
}
