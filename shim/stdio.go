package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/fifo"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
	"krun.dev/krunpod/sandbox"
)

const (
	// stallLimit is how long, after a process has ended, its output may make no progress before it is given up: a
	// reader that has gone away must not hold the exit event for ever.
	stallLimit = 10 * time.Second
	// killedLimit is how long the output of a process may take that was killed, whatever reads or writes it. It is less than
	// obeyLimit: a reader that is slow must not cost the VM its life.
	killedLimit = obeyLimit * 2 / 3
	// drainInterval is how often CloseIO looks whether the FIFO is empty: a FIFO whose writers are still there has no
	// event for that.
	drainInterval = 20 * time.Millisecond
	// copySize is the buffer of one stream, in bytes: a frame.
	copySize = stream.MaxFrame
)

// uris are where containerd wants a process's stdio: paths of FIFOs, or binary:// or file:// for output.
type uris struct {
	stdin, stdout, stderr string
	terminal              bool
}

// stdio joins one process's streams of the guest to what containerd gave for them.
type stdio struct {
	stdin, stdout, stderr *sandbox.Pending
	outputs               outputs
	stdinPath             string

	log    *log.Entry
	ctx    context.Context
	cancel context.CancelFunc
	// copied counts bytes that left in any direction: the sign of progress.
	copied  atomic.Int64
	stall   time.Duration // stallLimit, but in tests
	out     sync.WaitGroup
	closing chan struct{}
	closed  sync.Once
	kill    sync.Once
}

// openStdio opens containerd's end and reserves the guest's streams. Nothing is copied before run.
func openStdio(sb *sandbox.Sandbox, namespace, id string, u uris) (_ *stdio, retErr error) {
	s := &stdio{
		stdinPath: u.stdin, closing: make(chan struct{}), stall: stallLimit,
		log: log.L.WithFields(log.Fields{"namespace": namespace, "container": id}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	defer func() {
		if retErr != nil {
			s.close()
		}
	}()
	var err error
	if s.outputs, err = openOutputs(namespace, id, u); err != nil {
		return nil, err
	}
	for _, e := range []struct {
		wanted bool
		to     **sandbox.Pending
	}{{u.stdin != "", &s.stdin}, {s.outputs.stdout != nil, &s.stdout}, {s.outputs.stderr != nil, &s.stderr}} {
		if !e.wanted {
			continue
		}
		if *e.to, err = sb.ExpectStream(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// guest names the streams for the agent.
func (s *stdio) guest() (stdin, stdout, stderr string) {
	name := func(p *sandbox.Pending) string {
		if p == nil {
			return ""
		}
		return api.StreamURI(p.ID)
	}
	return name(s.stdin), name(s.stdout), name(s.stderr)
}

// run copies until each stream ends. It returns at once; wait and close end it.
func (s *stdio) run() {
	for _, o := range []struct {
		from *sandbox.Pending
		to   io.WriteCloser
	}{{s.stdout, s.outputs.stdout}, {s.stderr, s.outputs.stderr}} {
		if o.from == nil {
			continue
		}
		s.out.Add(1)
		go func() {
			defer s.out.Done()
			defer o.to.Close()
			s.copyOut(o.from, o.to)
		}()
	}
	if s.stdin != nil {
		go s.copyIn()
	}
}

// copyOut ends with the stream. When containerd's end fails, the rest is read and dropped: the process must not
// hang on a reader that will never come back.
func (s *stdio) copyOut(from *sandbox.Pending, to io.Writer) {
	st, err := from.Wait(s.ctx)
	if err != nil {
		s.log.WithError(err).Warn("output is lost")
		return
	}
	defer st.Close()
	stop := context.AfterFunc(s.ctx, func() { st.Close() })
	defer stop()
	if _, err := io.CopyBuffer(counter{to, &s.copied}, onlyReader{st}, make([]byte, copySize)); err != nil {
		s.log.WithError(err).Warn("output is lost from here on")
		_, _ = io.Copy(io.Discard, onlyReader{st})
	}
}

func (s *stdio) copyIn() {
	in, err := fifo.OpenFifo(s.ctx, s.stdinPath, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		s.stdin.Cancel()
		return
	}
	defer in.Close()
	st, err := s.stdin.Wait(s.ctx)
	if err != nil {
		return
	}
	defer st.Close()
	var pending atomic.Int64
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.CopyBuffer(onlyWriter{drained{st, &pending}}, arriving{in, &pending}, make([]byte, copySize))
	}()
	select {
	case <-read:
	case <-s.closing:
		s.awaitDrained(read, &pending)
	case <-s.ctx.Done():
		return
	}
	_ = st.CloseWrite()
	// The stream stays open until the guest has read the end, or the process is over.
	select {
	case <-st.Done():
	case <-s.ctx.Done():
	}
}

// awaitDrained returns when what was written to the FIFO before CloseIO has gone on to the guest: CloseIO may come
// while the writer is still open.
func (s *stdio) awaitDrained(read <-chan struct{}, pending *atomic.Int64) {
	// A second reader takes nothing: it only asks how much is there (FIONREAD, which TIOCINQ is another name of, pipe(7)).
	peek, err := os.OpenFile(s.stdinPath, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer peek.Close()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		select {
		case <-read:
			return
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		n, err := unix.IoctlGetInt(int(peek.Fd()), unix.TIOCINQ)
		if err != nil || (n == 0 && pending.Load() == 0) {
			return
		}
	}
}

// arriving counts the bytes that were taken from a reader, and drained takes those away that went on to a writer: the
// difference is on its way.
type arriving struct {
	r       io.Reader
	pending *atomic.Int64
}

func (a arriving) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	a.pending.Add(int64(n))
	return n, err
}

type drained struct {
	w       io.Writer
	pending *atomic.Int64
}

func (d drained) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.pending.Add(-int64(n))
	return n, err
}

// closeStdin ends the process's input after what was already written.
func (s *stdio) closeStdin() { s.closed.Do(func() { close(s.closing) }) }

// wait returns when all output has been handed over. It is called when the process has ended. A reader that is there and
// has taken nothing for as long as stall gives up the rest. What has ended while containerd is down waits for it.
func (s *stdio) wait() {
	done := make(chan struct{})
	go func() {
		s.out.Wait()
		close(done)
	}()
	tick := time.NewTicker(s.stall)
	defer tick.Stop()
	for last, there := s.copied.Load(), true; ; {
		select {
		case <-done:
			return
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		// Once it is back, containerd has as long as any reader.
		was, before := there, last
		last, there = s.copied.Load(), containerdListens()
		if last == before && was && there {
			s.log.Warnf("the output of a process that has ended stood still for %v: it is given up", s.stall)
			return
		}
	}
}

// killed gives the output up after killedLimit: neither it nor its reader may hold a pod for ever.
func (s *stdio) killed() {
	s.kill.Do(func() {
		time.AfterFunc(killedLimit, func() {
			if s.ctx.Err() == nil {
				s.log.Warnf("the output of a process that was killed has not ended within %v: it is given up", killedLimit)
				s.close()
			}
		})
	})
}

// addressEnv is where containerd says how to reach it (pkg/shim).
const addressEnv = "TTRPC_ADDRESS"

// containerdListens reports whether there is a containerd that could read output; one that cannot be asked counts.
func containerdListens() bool {
	address := os.Getenv(addressEnv)
	return address == "" || served(address)
}

// close ends every copy and gives containerd's ends back. It is idempotent.
func (s *stdio) close() {
	s.cancel()
	for _, p := range []*sandbox.Pending{s.stdin, s.stdout, s.stderr} {
		if p != nil {
			p.Cancel()
		}
	}
	s.outputs.close()
}

// counter counts what passes through a writer.
type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// onlyWriter hides any ReadFrom, and onlyReader any WriteTo, so that io.CopyBuffer uses its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// outputs are containerd's ends for what a process writes; nil where it wants none.
type outputs struct {
	stdout, stderr io.WriteCloser
	logger         *logger
}

func openOutputs(namespace, id string, u uris) (outputs, error) {
	parsed, err := url.Parse(u.stdout)
	if err != nil {
		return outputs{}, fmt.Errorf("stdout %q: %w", u.stdout, err)
	}
	switch parsed.Scheme {
	case "", "fifo":
		return openFIFOs(u)
	case "binary", "binary-v2":
		return startLogger(namespace, id, parsed)
	case "file":
		f, err := os.OpenFile(parsed.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return outputs{}, fmt.Errorf("log file: %w", err)
		}
		// Both streams append to one file; a second descriptor lets each close its own.
		second, err := os.OpenFile(parsed.Path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return outputs{}, errors.Join(fmt.Errorf("log file: %w", err), f.Close())
		}
		return outputs{stdout: f, stderr: second}, nil
	}
	return outputs{}, fmt.Errorf("stdout %q: the schemes are fifo, binary, binary-v2 and file", u.stdout)
}

func openFIFOs(u uris) (o outputs, err error) {
	if u.stdout != "" {
		if o.stdout, err = openFIFO(u.stdout); err != nil {
			return o, err
		}
	}
	if u.stderr != "" && !u.terminal {
		if o.stderr, err = openFIFO(u.stderr); err != nil {
			o.close()
			return outputs{}, err
		}
	}
	return o, nil
}

// openFIFO opens for reading and writing (fifo(7)): so that it does not wait for containerd's reader, and a
// containerd that restarts does not break the pipe. Non-blocking, the runtime's poller can end a write that hangs.
func openFIFO(path string) (io.WriteCloser, error) {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdio: %w", err)
	}
	return f, nil
}

func (o *outputs) close() {
	for _, w := range []io.Closer{o.stdout, o.stderr} {
		if w != nil {
			w.Close()
		}
	}
	if o.logger != nil {
		o.logger.stop()
	}
}
