package ctr

import (
	"errors"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/testpod"
)

func TestADirectoryOfTheShareStaysMountedUntilItsLastContainerGoes(t *testing.T) {
	dir := testpod.PrivateMounts(t)
	volume, file := dir+"/share/v", dir+"/share/f"
	err := errors.Join(os.MkdirAll(volume, 0o755), os.WriteFile(file, nil, 0o600), unix.Mount("tmpfs", volume, "tmpfs", 0, ""))
	if err != nil {
		t.Fatal(err)
	}
	mounted := func() bool {
		var here, above unix.Stat_t
		if err := errors.Join(unix.Stat(volume, &here), unix.Stat(dir, &above)); err != nil {
			t.Fatal(err)
		}
		return here.Dev != above.Dev
	}
	s := newShares(dir + "/share")
	spec := &specs.Spec{Mounts: []specs.Mount{{Source: "proc"}, {Source: volume}, {Source: file}, {Source: volume}, {Source: "/"}}}
	a, errA := s.hold(spec)
	b, errB := s.hold(spec)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		release func() error
		mounted bool
	}{{a, true}, {a, true}, {b, false}, {b, false}} {
		if err := step.release(); err != nil || mounted() != step.mounted {
			t.Errorf("step %d: mounted %v, %v", i, mounted(), err)
		}
	}
	if len(s.users) != 0 {
		t.Errorf("users are left: %v", s.users)
	}
	gone := &specs.Spec{Mounts: []specs.Mount{{Source: dir + "/share/none"}}}
	release, err := s.hold(gone)
	if err == nil {
		t.Error("a volume that is not there is held")
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}
