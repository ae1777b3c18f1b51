package agent

import (
	"context"
	"sync"

	"krun.dev/krunpod/agent/api"
)

// maxEvents bounds what waits for a host that does not listen; the oldest go first.
const maxEvents = 256

// events is a queue with one reader at a time.
type events struct {
	mu    sync.Mutex
	queue []*api.Event
	more  chan struct{} // holds a token when the queue may have something
}

func newEvents() *events { return &events{more: make(chan struct{}, 1)} }

func (e *events) oom(containerID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == maxEvents {
		e.queue = e.queue[1:]
	}
	e.queue = append(e.queue, &api.Event{Event: &api.Event_Oom{Oom: &api.OOM{ContainerId: containerID}}})
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *events) take() []*api.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queue
	e.queue = nil
	return q
}

// send passes events to f until ctx is done or f fails.
func (e *events) send(ctx context.Context, f func(*api.Event) error) error {
	for {
		for _, ev := range e.take() {
			if err := f(ev); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.more:
		}
	}
}
