package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"krun.dev/krunpod/config"
)

func TestLedgerCountsWhatManyShimsDo(t *testing.T) {
	state := t.TempDir()
	var shims sync.WaitGroup
	for range 20 {
		shims.Go(func() {
			if err := changeLedger(state, func(l *Ledger) { l.addBoot(2 * time.Second); l.Ends[EndStopped]++ }); err != nil {
				t.Error(err)
			}
		})
	}
	shims.Wait()
	if err := changeLedger(state, func(l *Ledger) { l.addBoot(time.Hour); l.addBoot(0) }); err != nil {
		t.Fatal(err)
	}
	l, err := LoadLedger(state)
	if err != nil {
		t.Fatal(err)
	}
	last := len(BootBounds)
	if l.Boots[0] != 1 || l.Boots[7] != 20 || l.Boots[last] != 1 || l.BootTime != 40*time.Second+time.Hour || l.Ends[EndStopped] != 20 {
		t.Errorf("counted %+v", l)
	}
}

func TestLedgerOfAnotherVersionIsNamed(t *testing.T) {
	state := t.TempDir()
	for _, text := range []string{`{"boots":[1],"ends":{}}`, "{", `null`} {
		if err := os.WriteFile(ledgerPath(state), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadLedger(state); (err == nil) != (text == "null") || err != nil && !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// containerd and krunctl may look at a sandbox as soon as they are told that it has ended.
func TestEndIsInTheStateWhenItIsTold(t *testing.T) {
	for range 50 {
		s := &Sandbox{dir: dir(t.TempDir()), cfg: &config.Config{State: t.TempDir()}, timeline: NewTimeline(time.Now()), runner: &runner{done: make(chan struct{})}}
		if err := s.countBoot(); err != nil {
			t.Fatal(err)
		}
		s.runner.end = EndNetwork
		close(s.runner.done)
		<-s.Done()
		if st, err := LoadState(string(s.dir)); err != nil || st.End != EndNetwork {
			t.Fatalf("the state says %+v, %v", st, err)
		}
		<-s.counted
	}
}

// A sandbox whose shim died has no end in its state.
func TestRemoveCountsASandboxWhoseShimDied(t *testing.T) {
	state := t.TempDir()
	for id, st := range map[string]State{
		"lost":    {Booted: time.Now()},
		"counted": {Booted: time.Now(), End: EndGuest},
		"never":   {},
	} {
		path := Dir(state, "k8s.io", id)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := st.save(dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := Remove(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	l, err := LoadLedger(state)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Ends) != 1 || l.Ends[EndLost] != 1 {
		t.Errorf("ends: %v", l.Ends)
	}
	if found, err := List(state); err != nil || len(found) != 0 {
		t.Errorf("%v, %v: the ledger is not a sandbox", found, err)
	}
	if _, err := os.Stat(filepath.Join(state, ".ledger.json")); err != nil {
		t.Error(err)
	}
}
