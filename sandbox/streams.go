package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"krun.dev/krunpod/agent/api/stream"
)

const (
	// helloTimeout bounds how long a new connection of the guest may take to name its stream.
	helloTimeout = 10 * time.Second
	// maxHellos bounds the connections that have not named a stream yet: more wait in the listener's queue.
	maxHellos = 64
	// acceptAgain is when it is tried again to accept a connection, after an error.
	acceptAgain = 100 * time.Millisecond
)

// streams joins the stdio connections that the guest opens to those that the host waits for. An id is the host's, and nobody can
// guess it: a process in a container can dial as the agent does. A connection that names one nobody waits for is closed.
type streams struct {
	listener net.Listener
	mu       sync.Mutex
	waiting  map[uint32]chan *stream.Stream
	closed   bool
	hellos   chan struct{}
	wg       sync.WaitGroup
}

func serveStreams(l net.Listener) *streams {
	s := &streams{listener: l, waiting: map[uint32]chan *stream.Stream{}, hellos: make(chan struct{}, maxHellos)}
	s.wg.Add(1)
	go s.accept()
	return s
}

func (s *streams) accept() {
	defer s.wg.Done()
	for {
		s.hellos <- struct{}{} // given back by hello, within helloTimeout
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			<-s.hellos
			time.Sleep(acceptAgain) // the node is out of files: that passes, and the pod's output goes on
			continue
		}
		s.wg.Add(1)
		go s.hello(conn)
	}
}

// hello hands a connection to whoever waits for its stream.
func (s *streams) hello(conn net.Conn) {
	defer s.wg.Done()
	defer func() { <-s.hellos }()
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		conn.Close()
		return
	}
	id, st, err := stream.Accept(conn)
	if err != nil {
		conn.Close()
		return
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		st.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, ok := s.waiting[id]
	if !ok {
		st.Close()
		return
	}
	delete(s.waiting, id)
	wait <- st
}

// Pending is a stream that the guest has been or will be asked to open.
type Pending struct {
	ID   uint32
	s    *streams
	wait chan *stream.Stream
}

// expect makes a new stream id for the guest to dial.
func (s *streams) expect() (*Pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the sandbox is stopped")
	}
	p := &Pending{s: s, wait: make(chan *stream.Stream, 1)}
	for s.waiting[p.ID] != nil || p.ID == 0 {
		var id [4]byte
		_, _ = rand.Read(id[:]) // it never fails
		p.ID = binary.NativeEndian.Uint32(id[:])
	}
	s.waiting[p.ID] = p.wait
	return p, nil
}

// Wait returns the stream once the guest has opened it.
func (p *Pending) Wait(ctx context.Context) (*stream.Stream, error) {
	select {
	case st, ok := <-p.wait:
		if !ok {
			return nil, errors.New("the sandbox stopped before the guest opened its stream")
		}
		return st, nil
	case <-ctx.Done():
		p.Cancel()
		return nil, fmt.Errorf("the guest did not open stream %d: %w", p.ID, ctx.Err())
	}
}

// Cancel gives the stream up. It is idempotent and harmless after Wait.
func (p *Pending) Cancel() {
	p.s.mu.Lock()
	delete(p.s.waiting, p.ID)
	p.s.mu.Unlock()
	select {
	case st, ok := <-p.wait:
		if ok {
			st.Close()
		}
	default:
	}
}

// close ends the listener and everyone who waits. Streams already handed out belong to their users.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	for id, wait := range s.waiting {
		delete(s.waiting, id)
		close(wait)
	}
	s.mu.Unlock()
	s.listener.Close()
	s.wg.Wait()
}
