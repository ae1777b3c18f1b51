package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
)

const (
	// obeyLimit is how long a guest has to do what it owes. It is the life of the VM and of all containers in it that is at
	// stake, so it allows for a machine that is ten times slower than a good one, too.
	obeyLimit = callTimeout
	// obeyAgain is when a call that the guest refused is made again.
	obeyAgain = time.Second
)

// vm is what ends a sandbox.Sandbox.
type vm interface {
	Done() <-chan struct{}
	Kill() error
}

// owed is what a guest owes to the host: containerd waits for it before it removes a pod, and waits for ever.
type owed struct {
	what string
	call func(context.Context) error
	// done is closed when the guest has done what the call asks for; nil if that is said by the answer.
	done <-chan struct{}
	// limit is obeyLimit, but in tests.
	limit time.Duration
}

// insist makes a call that the guest owes, and ends the VM of a guest that refuses or does not do it within the limit:
// that ends its processes as well. The caller gets the guest's answer; when it leaves before, all this goes on without it.
func insist(ctx context.Context, guest vm, o owed) error {
	answer := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.limit)
		defer cancel()
		err := o.ask(ctx, guest)
		if err == nil || errdefs.IsNotFound(err) {
			answer <- err
			if err = o.wait(ctx, guest); err == nil {
				return
			}
		}
		log.L.WithError(err).Errorf("the microVM is killed: its guest had to %s within %v, and did not", o.what, o.limit)
		err = guest.Kill()
		select {
		case answer <- err:
		default: // the caller has its answer
		}
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", o.what, ctx.Err())
	}
}

// ask calls until the guest has carried it out, which it says with no error or with not found.
func (o owed) ask(ctx context.Context, guest vm) error {
	for {
		err := errgrpc.ToNative(guestError(o.call(ctx)))
		if err == nil || errdefs.IsNotFound(err) {
			return err
		}
		select {
		case <-guest.Done():
			return nil
		case <-ctx.Done():
			return err
		case <-time.After(obeyAgain):
		}
	}
}

// wait returns an error when the limit has passed before it was done.
func (o owed) wait(ctx context.Context, guest vm) error {
	if o.done == nil {
		return nil
	}
	select {
	case <-o.done:
		return nil
	case <-guest.Done():
		return nil
	case <-ctx.Done():
		return errors.New("it answered that it would")
	}
}
