package shim

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// fakeVM stands for a VM, which only a hostile guest in it could make do what these tests are about.
type fakeVM struct {
	context.Context
	end context.CancelFunc
}

func newVM() fakeVM {
	ctx, end := context.WithCancel(context.Background())
	return fakeVM{ctx, end}
}

func (v fakeVM) Kill() error {
	v.end()
	return nil
}

// soon is a limit that a test waits for, and late one that it does not.
const (
	soon = 50 * time.Millisecond
	late = time.Minute
)

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func agrees(context.Context) error { return nil }

func TestAGuestThatDoesNotDoWhatItOwesIsKilled(t *testing.T) {
	never := make(chan struct{})
	refuses := func(context.Context) error { return errgrpc.ToGRPC(errdefs.ErrFailedPrecondition) }
	for name, o := range map[string]owed{
		"it does not answer":            {call: hang},
		"it refuses":                    {call: refuses},
		"it says yes and does not":      {call: agrees, done: never},
		"it says gone, and it is there": {call: func(context.Context) error { return errgrpc.ToGRPC(errdefs.ErrNotFound) }, done: never},
	} {
		t.Run(name, func(t *testing.T) {
			vm := newVM()
			o.what, o.limit = "test it", soon
			if err := insist(context.Background(), vm, o); err != nil && !errdefs.IsNotFound(err) {
				t.Errorf("the caller gets %v", err)
			}
			select {
			case <-vm.Done():
			case <-time.After(10 * time.Second):
				t.Error("the VM lives on")
			}
		})
	}
}

func TestAGuestIsKilledAlsoWhenTheCallerHasLeft(t *testing.T) {
	vm := newVM()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := insist(ctx, vm, owed{what: "test it", call: hang, limit: soon}); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller gets %v", err)
	}
	<-vm.Done()
}

func TestAGuestThatDoesWhatItOwesLives(t *testing.T) {
	var calls atomic.Int32
	done := make(chan struct{})
	vm := newVM()
	err := insist(context.Background(), vm, owed{what: "test it", limit: late, done: done, call: func(context.Context) error {
		if calls.Add(1) == 1 {
			return errors.New("not yet")
		}
		close(done)
		return nil
	}})
	if err != nil || calls.Load() != 2 || vm.Err() != nil {
		t.Errorf("error %v after %d calls, the VM is %v", err, calls.Load(), vm.Err())
	}
}

func TestWhatIsOwedIsPaidByTheEndOfTheVM(t *testing.T) {
	vm := newVM()
	gone := func(context.Context) error {
		vm.end()
		return errors.New("the connection is gone")
	}
	if err := insist(context.Background(), vm, owed{what: "test it", limit: late, call: gone}); err != nil {
		t.Error(err)
	}
}
