package sandbox

import (
	"context"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/test/testpod"
)

// hostEmptyDir makes an emptyDir with a medium as the kubelet does.
func hostEmptyDir(t *testing.T, top, name string, memory bool) EmptyDir {
	t.Helper()
	e := EmptyDir{Name: name, Dir: top + "/" + name}
	err := os.Mkdir(e.Dir, 0o777)
	if err == nil && memory {
		err = unix.Mount("tmpfs", e.Dir, "tmpfs", 0, "size=1m")
	}
	if err = errors.Join(err, os.Chmod(e.Dir, 0o777), os.Chown(e.Dir, 0, 2000)); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAnEmptyDirInMemoryIsTheGuests(t *testing.T) {
	top := testpod.PrivateMounts(t)
	agent := &volumeAgent{dir: t.TempDir()}
	s := &Sandbox{Agent: agent}
	volume := func(e EmptyDir, want string) {
		t.Helper()
		if got, err := s.Scratch(context.Background(), e); err != nil || got != want {
			t.Errorf("%s is at %q, error %v, want %q", e.Name, got, err, want)
		}
	}
	volume(hostEmptyDir(t, top, "disk", false), "")
	volume(EmptyDir{Name: "configmap", Dir: top + "/none", Part: "configmap:main:0"}, "")
	used := hostEmptyDir(t, top, "used", true)
	if err := os.WriteFile(used.Dir+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	volume(used, "")
	if err := os.Remove(used.Dir + "/f"); err != nil {
		t.Fatal(err)
	}
	volume(used, "") // as its first container has it

	memory := hostEmptyDir(t, top, "memory", true)
	volume(memory, api.VolumeDir+"/memory")
	r := agent.last
	if r.Name != "memory" || r.Scratch.Bytes != 1<<20 || len(r.Entries) != 1 ||
		r.Entries[0].Mode&0o7777 != 0o777 || r.Entries[0].Gid != 2000 {
		t.Errorf("the agent was asked for %v", r)
	}
	// A part, of which the kubelet makes the directories.
	part := memory
	part.Part, part.PartSource = "memory:main:0", top+"/part"
	err := errors.Join(os.MkdirAll(memory.Dir+"/a/b", 0o750), os.Mkdir(part.PartSource, 0o755),
		unix.Mount(memory.Dir+"/a/b", part.PartSource, "", unix.MS_BIND, ""))
	if err != nil {
		t.Fatal(err)
	}
	volume(part, api.SubPathDir+"/memory:main:0")
	r = agent.last
	if r.Scratch.Part != "a/b" || r.Scratch.PartName != part.Part || len(r.Entries) != 3 || r.Entries[2].Path != "a/b" {
		t.Errorf("the agent was asked for %v", r)
	}
	volume(memory, api.VolumeDir+"/memory")
	part.PartSource = top
	if path, err := s.Scratch(context.Background(), part); err == nil {
		t.Errorf("what is no part of the volume is at %s", path)
	}
}
