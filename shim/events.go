package shim

import (
	"context"
	"sync"

	eventsAPI "github.com/containerd/containerd/api/events"
	runtimev2 "github.com/containerd/containerd/v2/core/runtime"
	shimlib "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
)

// events publishes to containerd in the order in which it was called.
type events struct {
	ctx  context.Context
	pub  shimlib.Publisher
	mu   sync.Mutex
	done bool
	ch   chan any
	wg   sync.WaitGroup
}

// eventQueue is how many events may wait for containerd; a full queue blocks the caller.
const eventQueue = 256

func newEvents(ctx context.Context, pub shimlib.Publisher) *events {
	e := &events{ctx: ctx, pub: pub, ch: make(chan any, eventQueue)}
	e.wg.Add(1)
	go e.run()
	return e
}

func (e *events) run() {
	defer e.wg.Done()
	for ev := range e.ch {
		if err := e.pub.Publish(e.ctx, topic(ev), ev); err != nil {
			log.G(e.ctx).WithError(err).WithField("topic", topic(ev)).Error("cannot publish an event to containerd")
		}
	}
}

// send queues an event.
func (e *events) send(ev any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.done {
		e.ch <- ev
	}
}

// close publishes what is queued and ends.
func (e *events) close() {
	e.mu.Lock()
	if !e.done {
		e.done = true
		close(e.ch)
	}
	e.mu.Unlock()
	e.wg.Wait()
}

func topic(ev any) string {
	switch ev.(type) {
	case *eventsAPI.TaskCreate:
		return runtimev2.TaskCreateEventTopic
	case *eventsAPI.TaskStart:
		return runtimev2.TaskStartEventTopic
	case *eventsAPI.TaskOOM:
		return runtimev2.TaskOOMEventTopic
	case *eventsAPI.TaskExit:
		return runtimev2.TaskExitEventTopic
	case *eventsAPI.TaskDelete:
		return runtimev2.TaskDeleteEventTopic
	case *eventsAPI.TaskExecAdded:
		return runtimev2.TaskExecAddedEventTopic
	case *eventsAPI.TaskExecStarted:
		return runtimev2.TaskExecStartedEventTopic
	case *eventsAPI.TaskPaused:
		return runtimev2.TaskPausedEventTopic
	case *eventsAPI.TaskResumed:
		return runtimev2.TaskResumedEventTopic
	}
	return runtimev2.TaskUnknownTopic
}
