package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// End is how a sandbox ended.
type End string

// The ends of sandboxes. A guest that ends its VM is a kernel that panicked or was told to power off from inside.
const (
	EndStopped     End = "stopped"       // as it was asked to
	EndKilled      End = "killed"        // by its shim: it did not stop in time, or was removed while it ran
	EndOutOfMemory End = "out-of-memory" // by the host's kernel
	EndGuest       End = "guest"         // by the guest, unasked
	EndRunner      End = "runner"        // the runner failed, or somebody killed it
	EndNetwork     End = "network"       // krun-vnet, which carries the pod's frames, ended
	EndNotStarted  End = "not-started"   // it never answered, or something on the host was missing
	EndLost        End = "lost"          // its shim died
)

// Ends are all there are.
var Ends = []End{EndStopped, EndKilled, EndOutOfMemory, EndGuest, EndRunner, EndNetwork, EndNotStarted, EndLost}

// BootBounds are the upper bounds of the classes of Ledger.Boots but the last, which has none.
var BootBounds = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond,
	time.Second, 1500 * time.Millisecond, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second,
	20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute,
}

// Ledger counts what the sandboxes of a node did since it was booted, those that are gone among them.
type Ledger struct {
	// Boots has how many starts, from the shim's to the agent's answer, took as long as each class of BootBounds.
	Boots []uint64 `json:"boots"`
	// BootTime is their sum.
	BootTime time.Duration  `json:"bootNanoseconds"`
	Ends     map[End]uint64 `json:"ends"`
	// Restarts counts containers that took the place of an earlier one of the same name in the same sandbox.
	Restarts uint64 `json:"restarts"`
}

func (l *Ledger) addBoot(took time.Duration) {
	i, _ := slices.BinarySearch(BootBounds, took)
	l.Boots[i]++
	l.BootTime += took
}

func ledgerPath(state string) string { return filepath.Join(state, ".ledger.json") }

// LoadLedger reads that of a state directory; one with nothing counted where there is none.
func LoadLedger(state string) (*Ledger, error) {
	l := &Ledger{Boots: make([]uint64, len(BootBounds)+1), Ends: map[End]uint64{}}
	data, err := os.ReadFile(ledgerPath(state))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(data, l)
	if err == nil && (len(l.Boots) != len(BootBounds)+1 || l.Ends == nil) {
		err = errors.New("it has other counters")
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not of this version, or damaged: remove it, counting begins anew (%w)", ledgerPath(state), err)
	}
	return l, nil
}

// count changes the ledger. One that cannot be written is no reason to fail a pod.
func count(state string, change func(*Ledger)) {
	if err := changeLedger(state, change); err != nil {
		log.L.WithError(err).Warn("what this sandbox does is missing in the node's metrics")
	}
}

// CountRestart adds a container that took the place of an earlier one.
func (s *Sandbox) CountRestart() { count(s.cfg.State, func(l *Ledger) { l.Restarts++ }) }

// countBoot adds the start that is complete, and its end when that comes. Who is told of the end finds it in the state.
func (s *Sandbox) countBoot() error {
	s.state.Booted = time.Now()
	if err := s.state.save(s.dir); err != nil {
		return err
	}
	took := s.timeline.elapsed(s.state.Booted)
	count(s.cfg.State, func(l *Ledger) { l.addBoot(took) })
	s.ended, s.counted = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.counted)
		<-s.runner.done
		s.state.End = s.runner.end
		if err := s.state.save(s.dir); err != nil {
			log.L.WithError(err).Warn("the end of this sandbox is not in its state")
		}
		close(s.ended)
		count(s.cfg.State, func(l *Ledger) { l.Ends[s.runner.end]++ })
	}()
	return nil
}

// changeLedger changes the ledger, which all shims of the node share.
func changeLedger(state string, change func(*Ledger)) error {
	lock, err := openLock(filepath.Join(state, ".ledger.lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	l, err := LoadLedger(state)
	if err != nil {
		return err
	}
	change(l)
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return writeFile(ledgerPath(state), data)
}
