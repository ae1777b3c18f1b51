package sandbox

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestNoMoreBootsAtOnceThanTurns(t *testing.T) {
	const turns, boots = 3, 20
	dir := t.TempDir()
	var now, most atomic.Int32
	var wg sync.WaitGroup
	for range boots {
		wg.Go(func() {
			f, err := takeTurn(t.Context(), dir, turns)
			if err != nil {
				t.Error(err)
				return
			}
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(5 * time.Millisecond)
			now.Add(-1)
			f.Close()
		})
	}
	wg.Wait()
	if most.Load() > turns || most.Load() < 2 {
		t.Errorf("%d boots at once, with %d turns", most.Load(), turns)
	}
}

func TestWaitForATurnCanBeGivenUp(t *testing.T) {
	dir := t.TempDir()
	taken, err := takeTurn(t.Context(), dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	gaveUp := errors.New("the sandbox was stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 2)
	for range 2 { // the first in the queue looks for a turn, the second waits for the queue
		go func() {
			_, err := takeTurn(ctx, dir, 1)
			ended <- err
		}()
	}
	time.Sleep(50 * time.Millisecond)
	cancel(gaveUp)
	for range 2 {
		if err := <-ended; !errors.Is(err, gaveUp) || !strings.Contains(err.Error(), "concurrent_boots") {
			t.Errorf("given up, and got %v", err)
		}
	}
	taken.Close()
	next, err := takeTurn(t.Context(), dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
}

func TestATurnNeedsItsDirectory(t *testing.T) {
	if _, err := takeTurn(t.Context(), t.TempDir()+"/none", 1); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
