package stream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// pair is two ends over a UNIX socket, as libkrun offers it to the host.
func pair(t testing.TB) (host, guest *Stream) {
	t.Helper()
	hc, gc := conns(t)
	type accepted struct {
		id  uint32
		s   *Stream
		err error
	}
	ch := make(chan accepted, 1)
	go func() {
		id, s, err := Accept(hc)
		ch <- accepted{id, s, err}
	}()
	guest, err := Dial(gc, 77)
	if err != nil {
		t.Fatal(err)
	}
	a := <-ch
	if a.err != nil || a.id != 77 {
		t.Fatalf("Accept: id %d, %v", a.id, a.err)
	}
	t.Cleanup(func() {
		for _, s := range []*Stream{a.s, guest} {
			_ = s.Close()
			waitDone(t, s)
		}
	})
	return a.s, guest
}

func conns(t testing.TB) (host, guest net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guest, err = net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	host, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return host, guest
}

func waitDone(t testing.TB, s *Stream) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("the stream's goroutine did not end")
	}
}

// send writes n bytes in chunks of random size, ends the stream and returns the sum of what it sent.
func send(s *Stream, n int, seed int64) ([]byte, error) {
	rnd := rand.New(rand.NewSource(seed))
	sum, buf := sha256.New(), make([]byte, 3*MaxFrame)
	for n > 0 {
		chunk := buf[:1+rnd.Intn(min(n, len(buf)))]
		rnd.Read(chunk)
		sum.Write(chunk)
		if _, err := s.Write(chunk); err != nil {
			return nil, err
		}
		n -= len(chunk)
	}
	return sum.Sum(nil), s.CloseWrite()
}

func receive(s *Stream, seed int64) ([]byte, int, error) {
	rnd := rand.New(rand.NewSource(seed))
	sum, buf, total := sha256.New(), make([]byte, Window), 0
	for {
		n, err := s.Read(buf[:1+rnd.Intn(len(buf))])
		sum.Write(buf[:n])
		total += n
		if err == io.EOF {
			return sum.Sum(nil), total, nil
		}
		if err != nil {
			return nil, total, err
		}
	}
}

func TestEveryByteArrivesInOrderBothWaysAtOnce(t *testing.T) {
	host, guest := pair(t)
	const size = 20 << 20
	type result struct {
		sum []byte
		err error
	}
	sent := [2]chan result{make(chan result, 1), make(chan result, 1)}
	for i, s := range []*Stream{host, guest} {
		go func() {
			sum, err := send(s, size, int64(i))
			sent[i] <- result{sum, err}
		}()
	}
	got := make(chan result, 1)
	check := func(s *Stream, from chan result) error {
		sum, n, err := receive(s, 5)
		if err != nil {
			return err
		}
		want := <-from
		if want.err != nil {
			return want.err
		}
		if n != size || !bytes.Equal(sum, want.sum) {
			return errors.New("received bytes differ from those sent")
		}
		return nil
	}
	go func() { got <- result{err: check(host, sent[1])} }()
	if err := check(guest, sent[0]); err != nil {
		t.Error(err)
	}
	if r := <-got; r.err != nil {
		t.Error(r.err)
	}
}

func TestWriterIsHeldAtWindowByASlowReader(t *testing.T) {
	host, guest := pair(t)
	wrote := make(chan error, 1)
	go func() {
		_, err := guest.Write(make([]byte, Window+1))
		wrote <- err
	}()
	waitFor(t, func() bool { host.mu.Lock(); defer host.mu.Unlock(); return host.in.used == Window })
	select {
	case err := <-wrote:
		t.Fatalf("Write returned (%v) with more than Window bytes unread", err)
	case <-time.After(50 * time.Millisecond):
	}
	if n := len(host.in.buf); n >= 2*Window {
		t.Errorf("buffer is %d bytes for a window of %d", n, Window)
	}
	if _, err := io.ReadFull(host, make([]byte, Window+1)); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("timed out")
		}
		time.Sleep(time.Millisecond) // polls a field that has no channel
	}
}

// largeWrites counts the frames of data that pass a connection.
type largeWrites struct {
	net.Conn
	n atomic.Int64
}

func (c *largeWrites) Write(p []byte) (int, error) {
	if len(p) > headerSize {
		c.n.Add(1)
	}
	return c.Conn.Write(p)
}

func TestFramesOfALongWriteAreWhole(t *testing.T) {
	hc, gc := conns(t)
	counted := &largeWrites{Conn: gc}
	host, guest := start(hc), start(counted)
	const frames = 40
	wrote := make(chan error, 1)
	go func() {
		_, err := guest.Write(make([]byte, frames*MaxFrame))
		wrote <- err
	}()
	// A reader whose reads end anywhere in a frame.
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(host, frames*MaxFrame), make([]byte, 10007)); err != nil {
		t.Error(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if n := counted.n.Load(); n != frames {
		t.Errorf("%d frames for the bytes of %d", n, frames)
	}
	for _, s := range []*Stream{host, guest} {
		_ = s.Close()
		waitDone(t, s)
	}
}

func TestEndComesAfterTheDataAndLeavesTheOtherDirectionOpen(t *testing.T) {
	host, guest := pair(t)
	if _, err := guest.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := guest.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := guest.CloseWrite(); err != nil {
		t.Errorf("second CloseWrite: %v", err)
	}
	if _, err := guest.Write([]byte("x")); err != io.ErrClosedPipe {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	if b, err := io.ReadAll(host); err != nil || string(b) != "last words" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := host.Write([]byte("answer")); err != nil {
		t.Error(err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(guest, b); err != nil || string(b) != "answer" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestBytesBeforeTheOtherEndsCloseAreReadable(t *testing.T) {
	host, guest := pair(t)
	if _, err := guest.Write([]byte("done")); err != nil {
		t.Fatal(err)
	}
	if err := guest.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = guest.Close()
	waitDone(t, host)
	if b, err := io.ReadAll(host); err != nil || string(b) != "done" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestConnectionCutWithoutEndIsAnError(t *testing.T) {
	host, guest := pair(t)
	if _, err := guest.Write([]byte("ha")); err != nil {
		t.Fatal(err)
	}
	_ = guest.conn.Close()
	if b, err := io.ReadAll(host); err != io.ErrUnexpectedEOF || string(b) != "ha" {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := host.Write([]byte("x")); err == nil {
		t.Error("Write succeeded on a cut connection")
	}
}

func TestCloseUnblocksReadAndWrite(t *testing.T) {
	host, _ := pair(t)
	errs := make(chan error, 2)
	go func() { _, err := host.Read(make([]byte, 1)); errs <- err }()
	go func() { _, err := host.Write(make([]byte, 2*Window)); errs <- err }()
	waitFor(t, func() bool { host.mu.Lock(); defer host.mu.Unlock(); return host.credit == 0 })
	_ = host.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	waitDone(t, host)
}

func TestViolationsEndTheStream(t *testing.T) {
	frame := func(kind frameType, amount uint32, payload int) []byte {
		b := make([]byte, headerSize+payload)
		header{kind, amount}.put(b)
		return b
	}
	window := bytes.Repeat(frame(frameData, MaxFrame, MaxFrame), Window/MaxFrame)
	for name, in := range map[string][]byte{
		"unknown type":        frame(9, 0, 0),
		"frame too long":      frame(frameData, MaxFrame+1, 0),
		"empty data":          frame(frameData, 0, 0),
		"beyond the window":   append(window, frame(frameData, 1, 1)...),
		"credit not spent":    frame(frameCredit, 1, 0),
		"credit of the world": frame(frameCredit, 1<<32-1, 0),
		"end with an amount":  frame(frameEnd, 1, 0),
		"second end":          append(frame(frameEnd, 0, 0), frame(frameEnd, 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			hc, gc := conns(t)
			defer gc.Close()
			s := start(hc)
			if _, err := gc.Write(in); err != nil {
				t.Fatal(err)
			}
			waitDone(t, s)
			if _, err := s.Write([]byte("x")); !errors.Is(err, ErrProtocol) {
				t.Errorf("Write: %v", err)
			}
		})
	}
	t.Run("data after the end", func(t *testing.T) {
		hc, gc := conns(t)
		defer gc.Close()
		s := start(hc)
		if _, err := gc.Write(append(frame(frameEnd, 0, 0), frame(frameData, 1, 1)...)); err != nil {
			t.Fatal(err)
		}
		waitDone(t, s)
		if b, err := io.ReadAll(s); len(b) != 0 || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
	})
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	host, guest := pair(t)
	p, q := make([]byte, MaxFrame), make([]byte, MaxFrame)
	round := func() {
		if _, err := guest.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(host, q); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * Window / MaxFrame { // the ring grows to its size
		round()
	}
	if n := testing.AllocsPerRun(200, round); n >= 1 {
		t.Errorf("%v allocations for each frame", n)
	}
}

func BenchmarkStream(b *testing.B) {
	host, guest := pair(b)
	go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{host}) }()
	p := make([]byte, MaxFrame)
	b.SetBytes(MaxFrame)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := guest.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzStream feeds hostile bytes: the pump must end, and hold no more than Window.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 3, 'a', 'b', 'c', 2, 0, 0, 0, 0})
	f.Add([]byte{3, 0, 0, 0, 1})
	f.Add([]byte{1, 255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		hc, gc := net.Pipe()
		s := start(hc)
		read := make(chan int, 1)
		go func() {
			b, _ := io.ReadAll(s)
			read <- len(b)
		}()
		go func() { _, _ = io.Copy(io.Discard, gc) }()
		_, _ = gc.Write(in)
		_ = gc.Close()
		waitDone(t, s)
		if n := <-read; n > len(in) {
			t.Errorf("%d bytes out of %d", n, len(in))
		}
		if len(s.in.buf) > Window {
			t.Errorf("buffer of %d bytes", len(s.in.buf))
		}
	})
}
