package sandbox

import (
	"os"
	"testing"
)

// take attaches a for a container as the shim does, and returns the name; "" is one that it has alone.
func take(t *testing.T, s *share, id string, a Attach, owners string) string {
	t.Helper()
	name, err := s.volumes.name(id, a, owners)
	if err != nil {
		t.Fatal(err)
	}
	if name != "" {
		if err := s.attach(name, a); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestContainersHaveAVolumeTogetherThatTheySeeInTheSameWay(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.Mkdir(src+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := Attach{Source: src + "/dir", Recursive: true}
	shared := take(t, s, "a", dir, "")
	if got := take(t, s, "b", dir, ""); got != shared || shared == "" {
		t.Errorf("two containers have %q and %q", shared, got)
	}
	readOnly := dir
	readOnly.ReadOnly = true
	names := map[string]bool{shared: true}
	for what, name := range map[string]string{
		"read-only":    take(t, s, "b", readOnly, ""),
		"other owners": take(t, s, "b", dir, "0:1000:1"),
	} {
		if name == "" || names[name] {
			t.Errorf("%s: it has the name %q", what, name)
		}
		names[name] = true
	}
	follow := dir
	follow.Follow = true
	if got := take(t, s, "b", follow, ""); got != "" {
		t.Errorf("what follows the host's mounts has the name %q", got)
	}
	if got := take(t, s, "b", Attach{Source: "/", Recursive: true}, ""); got != "" {
		t.Errorf("what has mounts below it has the name %q", got)
	}

	// Another directory of that name is another volume.
	if err := os.Rename(src+"/dir", src+"/old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(src+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := take(t, s, "c", dir, ""); got == "" || names[got] {
		t.Errorf("a directory that took the place of another has the name %q", got)
	}
}

func TestAVolumeStaysUntilItsLastContainerGoes(t *testing.T) {
	s := testShare(t)
	src := t.TempDir()
	if err := os.WriteFile(src+"/f", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	volume := Attach{Source: src}
	name := take(t, s, "a", volume, "")
	take(t, s, "b", volume, "")
	seen := func() (found bool) {
		s.in(t, func(root string) {
			_, err := os.Stat(root + "/" + name + "/f")
			found = err == nil
		})
		return found
	}
	for _, step := range []struct {
		leaves string
		seen   bool
	}{{"", true}, {"a", true}, {"a", true}, {"b", false}, {"b", false}} {
		if step.leaves != "" {
			if err := s.detach(step.leaves); err != nil {
				t.Fatal(err)
			}
		}
		if got := seen(); got != step.seen {
			t.Errorf("after %q has left, the volume is seen: %v", step.leaves, got)
		}
	}
	if again := take(t, s, "a", volume, ""); again == name {
		t.Errorf("the name %s is used again", name)
	}
}
