package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
}

// containerd asks again for what has failed: then it must be possible, if its reason is gone.
func TestDeleteCanBeTriedAgain(t *testing.T) {
	ns, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	d := dir(filepath.Join(t.TempDir(), "sandbox"))
	if err := os.Mkdir(string(d), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Sandbox{dir: d, share: &share{ns: ns}}
	if err := os.WriteFile(d.state(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context()); err == nil || !strings.Contains(err.Error(), "state of sandbox") {
		t.Fatalf("with a state that cannot be read: %v", err)
	}
	// Containers are removed after it too: with a sandbox of a pause container their ends are told together.
	if err := s.Detach("container"); err != nil {
		t.Error(err)
	}
	if err := s.state.save(d); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(d)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	// Another sandbox of the same id.
	if err := errors.Join(os.Mkdir(string(d), 0o700), s.state.save(d)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.state()); err != nil {
		t.Errorf("another sandbox was removed: %v", err)
	}
}

func testShare(t *testing.T) *share {
	t.Helper()
	needRoot(t)
	s, err := newShare(dir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// in runs f where the share's mounts are seen. It must not end the test.
func (s *share) in(t *testing.T, f func(root string)) {
	t.Helper()
	err := s.inside(func(root string) error {
		f(root)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestShareShowsFilesAndDirectoriesWithTheirAttributes(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	mounts := map[string]Attach{
		"c/rootfs":   {Source: src, Recursive: true},
		"c/mounts/0": {Source: src + "/f", ReadOnly: true},
		"c/mounts/1": {Source: src, ReadOnly: true},
	}
	for name, a := range mounts {
		if err := s.attach(name, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.attach("d/rootfs", Attach{Source: src}); err != nil {
		t.Fatal(err)
	}
	if below, err := HasMountsBelow(filepath.Dir(s.root)); err != nil || below {
		t.Errorf("the host sees the share's mounts: %v, %v", below, err)
	}
	s.in(t, func(root string) {
		for name, a := range mounts {
			var st unix.Statfs_t
			if err := unix.Statfs(filepath.Join(root, name), &st); err != nil {
				t.Error(err)
			}
			if st.Flags&unix.ST_NODEV == 0 || st.Flags&unix.ST_NOSUID == 0 || (st.Flags&unix.ST_RDONLY != 0) != a.ReadOnly {
				t.Errorf("%s has flags %x", name, st.Flags)
			}
		}
		if err := os.WriteFile(root+"/c/rootfs/g", nil, 0o644); err != nil {
			t.Errorf("a writable mount: %v", err)
		}
		if err := os.WriteFile(root+"/c/mounts/0", nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("a read-only file: %v", err)
		}
		if err := os.Mkdir(root+"/c/evil", 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("the share's own directory: %v", err)
		}
	})
	for range 2 {
		if err := s.detach("c"); err != nil {
			t.Fatal(err)
		}
	}
	s.in(t, func(root string) {
		left, err := os.ReadDir(root)
		if err != nil || len(left) != 1 || left[0].Name() != "d" {
			t.Errorf("after detach the share holds %v, %v", left, err)
		}
		if _, err := os.Stat(root + "/d/rootfs/f"); err != nil {
			t.Errorf("detach touched another container: %v", err)
		}
	})
	if _, err := os.Stat(src + "/f"); err != nil {
		t.Errorf("detach touched the source: %v", err)
	}
}

func TestSealLeavesNothingOfTheHostInTheShare(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.attach("before/rootfs", Attach{Source: src}); err != nil {
		t.Fatal(err)
	}
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	if err := s.attach("after/rootfs", Attach{Source: src}); err != nil {
		t.Fatal(err)
	}
	s.in(t, func(root string) {
		for _, name := range []string{"before", "after"} {
			if _, err := os.Stat(filepath.Join(root, name, "rootfs/f")); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat("/proc"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the host's root is still there: %v", err)
		}
	})
	if err := s.detach("before"); err != nil {
		t.Error(err)
	}
}

func TestASourceCanBeRemovedWhileItsMountIsInTheShare(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.Mkdir(src+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("kp", src+"/below", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(src+"/below", unix.MNT_DETACH) })
	if err := s.attach("c/mounts/0", Attach{Source: src, Recursive: true}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(src+"/below", 0); err != nil {
		t.Errorf("unmount on the host: %v", err)
	}
	if err := os.Remove(src + "/below"); err != nil {
		t.Errorf("remove on the host: %v", err)
	}
}

func TestReadOnlyLeavesMountsBelowAsTheyAreUnlessTheTreeIs(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.Mkdir(src+"/below", 0o755); err != nil {
		t.Fatal(err)
	}
	if below, err := HasMountsBelow(src); err != nil || below {
		t.Errorf("before the mount: %v, %v", below, err)
	}
	if err := unix.Mount("kp", src+"/below", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(src+"/below", unix.MNT_DETACH) })
	if below, err := HasMountsBelow(src); err != nil || !below {
		t.Errorf("after the mount: %v, %v", below, err)
	}
	for name, tree := range map[string]bool{"c/ro": false, "c/rro": true} {
		if err := s.attach(name, Attach{Source: src, ReadOnly: true, ReadOnlyTree: tree, Recursive: true}); err != nil {
			t.Fatal(err)
		}
		s.in(t, func(root string) {
			if err := os.WriteFile(root+"/"+name+"/f", nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: the top is writable: %v", name, err)
			}
			if err := os.WriteFile(root+"/"+name+"/below/f", nil, 0o644); errors.Is(err, unix.EROFS) != tree {
				t.Errorf("%s: below: %v", name, err)
			}
		})
	}
}

func TestShareNeverFollowsALink(t *testing.T) {
	s := testShare(t)
	outside := t.TempDir()
	if err := os.Symlink(outside, s.skeleton+"/c"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(outside+"/rootfs", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.attach("c/rootfs", Attach{Source: t.TempDir()}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("attach through a symbolic link: %v", err)
	}
}

func TestRemoveIsIdempotentAndNeedsOnlyTheDisk(t *testing.T) {
	needRoot(t)
	d := filepath.Join(t.TempDir(), "ns", "id")
	if err := os.MkdirAll(d, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := newShare(dir(d))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	st := State{ID: "id", Namespace: "ns", Runner: &Process{PID: 1, Start: 1}} // not init's start time: never killed
	if err := st.save(dir(d)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(context.Background(), d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
}

func TestExpandSlice(t *testing.T) {
	for slice, want := range map[string]string{
		"kubepods.slice":                 "/kubepods.slice",
		"kubepods-besteffort-podx.slice": "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podx.slice",
		"-.slice":                        "/",
	} {
		if got := expandSlice(slice); got != want {
			t.Errorf("%s is at %s, want %s", slice, got, want)
		}
	}
}

func TestCgroupParentCannotLeaveTheHierarchy(t *testing.T) {
	path, err := cgroupPath(Cgroup{Parent: "../../etc"}, "id")
	if err == nil && !strings.HasPrefix(path, "/etc/krun-id") {
		t.Errorf("path %s", path)
	}
}

func TestIDsThatAreNoFileNamesAreRefused(t *testing.T) {
	for _, id := range []string{"", "..", "a/b", "-a", strings.Repeat("a", 77)} {
		if ValidateID("id", id) == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}

func dialStream(t *testing.T, addr net.Addr, id uint32) net.Conn {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := binary.Write(c, binary.BigEndian, id); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStreamsOfTheGuest(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := serveStreams(l)
	defer s.close()
	p, err := s.expect()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stranger := dialStream(t, l.Addr(), p.ID+1)
	dialStream(t, l.Addr(), p.ID)
	st, err := p.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := stranger.Read(make([]byte, 1)); err == nil {
		t.Error("a stream that nobody expects was kept")
	}
	again := dialStream(t, l.Addr(), p.ID)
	if _, err := again.Read(make([]byte, 1)); err == nil {
		t.Error("a stream was opened twice")
	}
	pending, err := s.expect()
	if err != nil {
		t.Fatal(err)
	}
	go s.close()
	if _, err := pending.Wait(ctx); err == nil {
		t.Error("a stream was handed out after the end")
	}
}

// A process in a container dials as the agent does: it must not get at what is meant for another one.
func TestIDsOfStreamsCannotBeGuessed(t *testing.T) {
	s := &streams{waiting: map[uint32]chan *stream.Stream{}}
	var ids []uint32
	for range 100 {
		p, err := s.expect()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	near := 0
	for i, id := range ids[1:] {
		if d := id - ids[i]; id == 0 || d < 1<<16 || -d < 1<<16 {
			near++ // one of 32768 is so by chance
		}
	}
	if near > 2 || len(s.waiting) != len(ids) {
		t.Errorf("%d of %d ids follow from the one before: %v", near, len(ids), ids)
	}
}

func TestStreamsOpenedAllAtOnceAllArrive(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := serveStreams(l)
	defer s.close()
	const many = 4 * maxHellos
	// Connections that have not said yet which stream they are.
	var silent []net.Conn
	for range many {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, c := range silent {
		p, err := s.expect()
		if err != nil {
			t.Fatal(err)
		}
		if err := binary.Write(c, binary.BigEndian, p.ID); err != nil {
			t.Fatal(err)
		}
		st, err := p.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		st.Close()
	}
}

func TestConsoleIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	c, err := newConsole(path)
	if err != nil {
		t.Fatal(err)
	}
	c.close() // no rate: the test is of the size
	for range 5 * consoleSize / 1024 {
		if _, err := c.Write(bytes.Repeat([]byte("x"), 1024)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + ".1"} {
		if st, err := os.Stat(p); err != nil || st.Size() > consoleSize {
			t.Errorf("%s: %v, %v", p, st, err)
		}
	}
	if len(c.last.String()) > tailSize {
		t.Errorf("the tail has %d bytes", len(c.last.String()))
	}
}

func TestProcessIsKnownByItsStartTime(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !(Process{os.Getpid(), start}).Alive() || (Process{os.Getpid(), start + 1}).Alive() {
		t.Error("a process is not told from another with its id")
	}
}

func TestStagesOfTheGuestAreBoundedAndInOrder(t *testing.T) {
	boot := []*api.BootStage{
		{Name: "kernel", Microseconds: 5}, {Name: "back", Microseconds: 1}, nil,
		{Name: "far", Microseconds: 1 << 63}, {Name: "agent\x1b", Microseconds: 9},
	}
	got := guestStages(boot)
	if len(got) != 2 || got[0] != (Stage{"kernel", 5}) || got[1] != (Stage{"agent?", 9}) {
		t.Errorf("stages are %v", got)
	}
	if n := len(guestStages(make([]*api.BootStage, 1000))); n > maxBootStages {
		t.Errorf("%d stages", n)
	}
	var out bytes.Buffer
	Record{Stages: got, Guest: got}.Print(&out)
	if !strings.Contains(out.String(), "kernel") {
		t.Errorf("printed: %s", out.String())
	}
}

func TestTextOfTheGuestIsMadePrintable(t *testing.T) {
	if got := clip("a\x1b[31m\nb\u202e", 6); got != "a?[31m" {
		t.Errorf("%q", got)
	}
}
