package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestVacateLeavesWhatIsInUse(t *testing.T) {
	gone := Process{PID: 1 << 30}
	for name, tc := range map[string]struct {
		state State
		left  []string
	}{
		"starts":    {State{Shim: os.Getpid()}, []string{".boot-0", ".ledger.json", "k8s.io"}},
		"was dying": {State{Shim: 1 << 30}, []string{"k8s.io"}},
		"has ended": {State{Shim: os.Getpid(), Runner: &gone, End: EndStopped}, []string{"k8s.io"}},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			d := dir(filepath.Join(state, "k8s.io", "a"))
			if err := os.MkdirAll(string(d), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tc.state.save(d); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{".boot-0", ".ledger.json"} {
				if err := os.WriteFile(filepath.Join(state, f), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Vacate(state); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(state)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, e := range entries {
				left = append(left, e.Name())
			}
			if !slices.Equal(left, tc.left) {
				t.Errorf("left %q, want %q", left, tc.left)
			}
		})
	}
}
