package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Boots take turns. A guest that boots computes without a pause: more of them at once than the node has CPUs are not there
// sooner, and many are so late that all miss BootTimeout, and do so again when the kubelet tries again. A turn is a lock of
// the state directory.

// turnPoll is how often the first one in the queue looks for a free turn.
const turnPoll = 20 * time.Millisecond

// takeTurn waits for one of n turns to boot, in the order of coming. Closing the file gives it back.
func takeTurn(ctx context.Context, state string, n int) (*os.File, error) {
	queue, err := openLock(filepath.Join(state, ".boot-queue"))
	if err != nil {
		return nil, err
	}
	if err := waitLock(ctx, queue); err != nil {
		return nil, err
	}
	defer queue.Close()
	for {
		for i := range n {
			f, err := openLock(filepath.Join(state, fmt.Sprintf(".boot-%d", i)))
			if err != nil {
				return nil, err
			}
			err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
			if err == nil {
				return f, nil
			}
			f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
			}
		}
		select {
		case <-time.After(turnPoll):
		case <-ctx.Done():
			return nil, notMyTurn(ctx)
		}
	}
}

// waitLock locks f, or closes it.
func waitLock(ctx context.Context, f *os.File) error {
	locked := make(chan error, 1)
	go func() { locked <- flock(f, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil
	case <-ctx.Done():
		// Nothing interrupts flock: it is given back when it comes.
		go func() {
			<-locked
			f.Close()
		}()
		return notMyTurn(ctx)
	}
}

func notMyTurn(ctx context.Context) error {
	return fmt.Errorf("other microVMs of this node were booting (vm.concurrent_boots): %w", context.Cause(ctx))
}
