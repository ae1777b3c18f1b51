package stream

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// Stream is a full-duplex byte stream. One goroutine may read while another writes.
type Stream struct {
	conn net.Conn
	done chan struct{} // closed when the pump has ended

	wmu  sync.Mutex // serialises frames on conn
	wbuf [headerSize]byte

	mu       sync.Mutex
	readable sync.Cond // in changed, peerEnded or err set
	writable sync.Cond // credit grew, ended or err set
	in       ring
	granted  int // bytes the other end may still send
	taken    int // bytes read since the last credit frame
	credit   int // bytes we may still send
	ended    bool
	// peerEnded: the end frame came; reads give io.EOF once in is empty.
	peerEnded bool
	err       error
}

// frames are buffers for a header and its payload, so that a frame is one write and costs no allocation.
var frames = sync.Pool{New: func() any { return new([headerSize + MaxFrame]byte) }}

// creditStep is how much a reader takes before it gives credit: often enough to keep the sender going, seldom enough
// that credit frames stay few.
const creditStep = Window - MaxFrame

// Accept is the host's end: it reads the stream's id from conn and starts. The caller sets a deadline on conn
// before and clears it after; on an error conn is left open.
func Accept(conn net.Conn) (id uint32, s *Stream, err error) {
	var b [4]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return 0, nil, fmt.Errorf("stream id: %w", err)
	}
	return binary.BigEndian.Uint32(b[:]), start(conn), nil
}

// Dial is the guest's end: it opens stream id on a fresh conn. On an error conn is left open.
func Dial(conn net.Conn, id uint32) (*Stream, error) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], id)
	if _, err := conn.Write(b[:]); err != nil {
		return nil, fmt.Errorf("open stream %d: %w", id, err)
	}
	return start(conn), nil
}

func start(conn net.Conn) *Stream {
	s := &Stream{conn: conn, done: make(chan struct{}), granted: Window, credit: Window}
	s.readable.L, s.writable.L = &s.mu, &s.mu
	go s.pump()
	return s
}

// Done is closed when the connection is closed and the stream's goroutine has ended. Bytes that came before remain
// readable unless Close was called.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Read gives bytes in order, then io.EOF after the other end's CloseWrite, io.ErrUnexpectedEOF when the connection
// ended without one, an error wrapping ErrProtocol, or net.ErrClosed after Close.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for s.in.used == 0 && !s.peerEnded && s.err == nil {
		s.readable.Wait()
	}
	if s.in.used == 0 {
		defer s.mu.Unlock()
		if s.peerEnded {
			return 0, io.EOF
		}
		return 0, s.err
	}
	n := s.in.take(p)
	s.taken += n
	give := 0
	if s.taken >= creditStep && !s.peerEnded && s.err == nil {
		give, s.taken = s.taken, 0
		s.granted += give
	}
	s.mu.Unlock()
	if give > 0 {
		// A failure here shows in the next Read; these bytes are good.
		_ = s.writeHeader(header{frameCredit, uint32(give)})
	}
	return n, nil
}

// Write sends all of p. It waits for credit, that is until the other end's reader has taken all but Window bytes.
// After CloseWrite it is io.ErrClosedPipe; when the connection has ended, the error that ended it.
func (s *Stream) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n := min(len(p)-sent, MaxFrame)
		if err := s.takeCredit(n); err != nil {
			return sent, err
		}
		if err := s.writeData(p[sent : sent+n]); err != nil {
			return sent, s.fail(err)
		}
		sent += n
	}
	return sent, nil
}

// takeCredit waits until n bytes, at most MaxFrame, may be sent, and takes the right to. It waits for all of them, so
// that frames are whole. The credit comes: what the other end's reader took without giving credit is less than
// creditStep, and Window is a frame more than that.
func (s *Stream) takeCredit(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.credit < n && !s.ended && s.err == nil {
		s.writable.Wait()
	}
	if s.ended {
		return io.ErrClosedPipe
	}
	if s.err != nil {
		return s.err
	}
	s.credit -= n
	return nil
}

func (s *Stream) writeData(p []byte) error {
	f := frames.Get().(*[headerSize + MaxFrame]byte)
	defer frames.Put(f)
	header{frameData, uint32(len(p))}.put(f[:])
	copy(f[headerSize:], p)
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := s.conn.Write(f[:headerSize+len(p)])
	return err
}

func (s *Stream) writeHeader(h header) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	h.put(s.wbuf[:])
	_, err := s.conn.Write(s.wbuf[:])
	return err
}

// CloseWrite tells the other end that no more bytes follow. It must not run beside a Write. Calling it again does
// nothing.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	if s.ended || s.err != nil {
		defer s.mu.Unlock()
		if s.ended {
			return nil
		}
		return s.err
	}
	s.ended = true
	s.writable.Broadcast()
	s.mu.Unlock()
	if err := s.writeHeader(header{frameEnd, 0}); err != nil {
		return s.fail(err)
	}
	return nil
}

// Close ends the stream at once, both ways, and drops what was not read; Read and Write that wait return
// net.ErrClosed. Calling it again does nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.in, s.peerEnded = ring{}, false
	s.err = net.ErrClosed
	s.readable.Broadcast()
	s.writable.Broadcast()
	s.mu.Unlock()
	_ = s.conn.Close() // a second close reports that it was closed: no news
	return nil
}

// fail records the first error that ended the stream, closes the connection and returns the recorded error.
func (s *Stream) fail(err error) error {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	err = s.err
	s.readable.Broadcast()
	s.writable.Broadcast()
	s.mu.Unlock()
	_ = s.conn.Close()
	return err
}

// pump drains the connection until it ends; it never waits for the stream's reader and never writes.
func (s *Stream) pump() {
	defer close(s.done)
	r := bufio.NewReaderSize(s.conn, 4<<10)
	var b [headerSize]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			s.fail(ended(err))
			return
		}
		if err := s.handle(r, parseHeader(b[:])); err != nil {
			s.fail(ended(err))
			return
		}
	}
}

// ended turns the end of the connection into what readers expect of a stream that was cut.
func ended(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *Stream) handle(r io.Reader, h header) error {
	switch h.kind {
	case frameData:
		return s.receive(r, h.amount)
	case frameEnd:
		return s.receiveEnd(h.amount)
	case frameCredit:
		return s.receiveCredit(h.amount)
	}
	return violation("frame of unknown type %d", h.kind)
}

// receive moves one data frame of amount bytes into the ring.
func (s *Stream) receive(r io.Reader, amount uint32) error {
	if amount == 0 || amount > MaxFrame {
		return violation("data frame of %d bytes, allowed are 1 to %d", amount, MaxFrame)
	}
	n := int(amount)
	s.mu.Lock()
	switch {
	case s.peerEnded:
		s.mu.Unlock()
		return violation("%d bytes after the end", n)
	case n > s.granted:
		granted := s.granted
		s.mu.Unlock()
		return violation("%d bytes with a credit of %d", n, granted)
	}
	s.granted -= n
	s.in.reserve(n)
	for n > 0 {
		free := s.in.free(n)
		s.mu.Unlock()
		// Without the lock: the reader takes from the other end of the ring and only the pump fills it.
		got, err := io.ReadFull(r, free)
		s.mu.Lock()
		if s.err != nil { // Close dropped the ring meanwhile
			defer s.mu.Unlock()
			return s.err
		}
		s.in.filled(got)
		n -= got
		s.readable.Broadcast()
		if err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	return nil
}

func (s *Stream) receiveEnd(amount uint32) error {
	if amount != 0 {
		return violation("end frame with an amount of %d", amount)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peerEnded {
		return violation("second end frame")
	}
	s.peerEnded = true
	s.readable.Broadcast()
	return nil
}

func (s *Stream) receiveCredit(amount uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if amount == 0 || amount > Window || s.credit+int(amount) > Window {
		return violation("credit of %d when %d of %d are free", amount, s.credit, Window)
	}
	s.credit += int(amount)
	s.writable.Broadcast()
	return nil
}
