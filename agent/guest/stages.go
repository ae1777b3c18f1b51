package guest

import (
	"sync"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// Stages records when each stage of the boot was reached, on CLOCK_BOOTTIME: in a VM, the time since its kernel began.
type Stages struct {
	mu   sync.Mutex
	list []*api.BootStage
}

// Mark records that stage name has been reached.
func (s *Stages) Mark(name string) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return // a kernel without this clock (before 2.6.39) runs no agent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, &api.BootStage{Name: name, Microseconds: uint64(t.Nano() / 1000)})
}

// List returns the stages so far, in order.
func (s *Stages) List() []*api.BootStage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*api.BootStage(nil), s.list...)
}
