package reap

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reaper knows which children have an owner. The zero value is ready for Spawn and Release; Run does the collecting.
type Reaper struct {
	mu       sync.Mutex
	spawning int
	// owned counts owners by PID. A count, not a set: between an owner's wait and its Release the kernel may give the
	// same PID to the next child.
	owned map[int]int
	once  sync.Once
	kick  chan struct{}
}

func (r *Reaper) kicks() chan struct{} {
	r.once.Do(func() { r.kick = make(chan struct{}, 1) })
	return r.kick
}

// Spawn calls start, which may start any number of children as long as it waits for all but the one whose PID it
// returns. That one is the caller's: it waits for it, then calls Release. If start fails, what it left behind is
// collected as orphans.
func (r *Reaper) Spawn(start func() (pid int, err error)) (int, error) {
	r.mu.Lock()
	r.spawning++
	r.mu.Unlock()

	pid, err := start()

	r.mu.Lock()
	r.spawning--
	if err == nil {
		if r.owned == nil {
			r.owned = map[int]int{}
		}
		r.owned[pid]++
	}
	r.mu.Unlock()
	r.wake()
	return pid, err
}

// Release gives up pid after it was waited for.
func (r *Reaper) Release(pid int) {
	r.mu.Lock()
	if r.owned[pid]--; r.owned[pid] <= 0 {
		delete(r.owned, pid)
	}
	r.mu.Unlock()
	r.wake() // its zombie may have hidden an orphan's from waitid
}

func (r *Reaper) wake() {
	select {
	case r.kicks() <- struct{}{}:
	default: // one is pending, it will look at everything
	}
}

// Run collects orphans until ctx is done.
func (r *Reaper) Run(ctx context.Context) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		if err := r.collect(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-died:
		case <-r.kicks():
		}
	}
}

// collect reaps orphans until there is none, or until the zombie in front has an owner: waitid shows only the first,
// and the owner's Release comes back here.
func (r *Reaper) collect() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.spawning == 0 {
		pid, err := peek()
		if err != nil || pid == 0 {
			return err
		}
		if r.owned[pid] > 0 {
			return nil
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil && !ignorable(err) {
			return os.NewSyscallError("wait4", err)
		}
	}
	return nil
}

// childInfo is the start of siginfo_t for SIGCHLD on 64-bit Linux (include/uapi/asm-generic/siginfo.h).
type childInfo struct {
	Signo, Errno, Code, _ int32
	Pid                   int32
	UID                   uint32
	Status                int32
}

// peek returns the PID of a child that has ended, without collecting it; 0 when there is none.
func peek() (int, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil && !ignorable(err) {
		return 0, os.NewSyscallError("waitid", err)
	}
	return int((*childInfo)(unsafe.Pointer(&info)).Pid), nil
}

func ignorable(err error) bool { return errors.Is(err, unix.ECHILD) || errors.Is(err, unix.EINTR) }
