package stdio

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api/stream"
)

const (
	// idleGrace: after a process has ended, something else may hold its output open (a background child of an exec).
	// When nothing has come for this long, the stream is ended and what still comes is dropped. Under runc such a
	// child would lose its output too: the reader goes away with the exec.
	idleGrace = time.Second
	// stuckGrace: after a process has ended, output that the host does not take for this long no longer holds up the
	// report of its end. The copy goes on.
	stuckGrace = 10 * time.Second
	// inputGrace: after CloseStdin, input that is still on its way gets this long from one arrival to the next. A host
	// that ends its stream does not wait for it; it is for one that does not.
	inputGrace = 10 * time.Second
)

// buffers are as long as one frame of a stream; a blocked reader holds none (see output.copy).
var buffers = sync.Pool{New: func() any { return new([stream.MaxFrame]byte) }}

// output copies one pipe or terminal to a stream.
type output struct {
	file     *os.File
	stream   *stream.Stream // nil: a terminal whose output nobody wants
	terminal bool
	done     chan struct{}

	moved atomic.Int64 // bytes read and bytes sent; any change is progress

	mu       sync.Mutex  // held while sending
	busy     atomic.Bool // from before bytes are taken from the file until they are sent
	detached bool        // the stream was ended by drain
}

func (o *output) copy() {
	defer close(o.done)
	for {
		if err := o.step(); err != nil {
			break
		}
	}
	o.end()
	if !o.terminal { // input shares a terminal; Set.Close closes it
		_ = o.file.Close()
	}
}

// step moves what is there. The error is the pipe's end (for a terminal EIO), or that of a stream that is gone: then
// the process gets SIGPIPE, as from any reader that went away.
func (o *output) step() error {
	conn, err := o.file.SyscallConn()
	if err != nil {
		return err
	}
	if err := waitReadable(conn); err != nil { // hold no buffer while idle
		return err
	}
	o.busy.Store(true)
	defer o.busy.Store(false)
	buf := buffers.Get().(*[stream.MaxFrame]byte)
	defer buffers.Put(buf)
	n, err := o.gather(conn, buf[:])
	if n > 0 {
		o.moved.Add(int64(n))
		if err := o.send(buf[:n]); err != nil {
			return err
		}
	}
	return err
}

// gather reads what is there, and gives a writer that is at it one turn after each read: a wake-up often comes with the
// first page of what the writer has, and every frame costs exits of the VM on its way.
func (o *output) gather(conn syscall.RawConn, buf []byte) (int, error) {
	n, err := o.file.Read(buf)
	for err == nil && n < len(buf) && !o.terminal {
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		if o.unread(conn) == 0 {
			break
		}
		var more int
		more, err = o.file.Read(buf[n:])
		n += more
	}
	return n, err
}

func (o *output) send(p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.detached || o.stream == nil {
		return nil
	}
	n, err := o.stream.Write(p)
	o.moved.Add(int64(n))
	return err
}

// end ends the stream, once.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.detached || o.stream == nil {
		return
	}
	o.detached = true
	_ = o.stream.CloseWrite() // it fails only if the host is gone
}

// unread is how many bytes the file holds that the copy has yet to take.
func (o *output) unread(conn syscall.RawConn) (n int) {
	err := conn.Control(func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ); err != nil {
			n = 0
		}
	})
	if err != nil {
		return 0
	}
	return n
}

// waiting reports whether bytes are still to be copied: on a busy guest that can be a while after they were written.
func (o *output) waiting() bool {
	if o.busy.Load() {
		return true
	}
	conn, err := o.file.SyscallConn()
	return err == nil && o.unread(conn) > 0
}

// drain returns when the stream was ended, or when stuckGrace passes without the host taking a byte.
func (o *output) drain() {
	tick := time.NewTicker(idleGrace)
	defer tick.Stop()
	var stuck time.Duration
	for last := o.moved.Load(); ; {
		select {
		case <-o.done:
			return
		case <-tick.C:
		}
		now := o.moved.Load()
		switch {
		case now != last:
			last, stuck = now, 0
		case o.waiting():
			if stuck += idleGrace; stuck >= stuckGrace {
				return
			}
		default:
			o.end()
			return
		}
	}
}

// input copies a stream to one pipe or terminal.
type input struct {
	file     *os.File
	stream   *stream.Stream
	terminal bool
	ended    chan struct{}
	moved    atomic.Int64
	writing  atomic.Bool
	once     sync.Once
	grace    time.Duration
}

func (in *input) copy() {
	defer close(in.ended)
	buf := make([]byte, 4<<10)
	for {
		n, err := in.stream.Read(buf)
		in.moved.Add(int64(n))
		in.writing.Store(true)
		if _, werr := in.file.Write(buf[:n]); n > 0 && werr != nil {
			err = werr // the process closed its input or is gone
		}
		in.writing.Store(false)
		if err != nil {
			break
		}
	}
	if !in.terminal {
		_ = in.file.Close()
	}
	// What the process will never read must not hold up the writer on the host.
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{in.stream})
	_ = in.stream.Close() // the host waits for it, to know that its input was taken
}

// finish closes the pipe when the stream has ended or has been silent for in.grace.
func (in *input) finish() {
	in.once.Do(func() {
		go func() {
			tick := time.NewTicker(in.grace)
			defer tick.Stop()
			for last := in.moved.Load(); ; {
				select {
				case <-in.ended:
					return
				case <-tick.C:
				}
				now := in.moved.Load()
				if now == last && !in.writing.Load() {
					_ = in.file.Close()
					return
				}
				last = now
			}
		}()
	})
}
