package stdio

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
)

// Dial opens the stream with that id to the host.
type Dial func(id uint32) (*stream.Stream, error)

// Config names the streams of a process (api.StreamURI); an empty one is the null device.
type Config struct {
	Stdin, Stdout, Stderr string
	// Terminal: one pseudo-terminal instead of pipes; Stderr is not used.
	Terminal bool
}

// Set is the stdio of one process.
type Set struct {
	cfg     Config
	child   [3]*os.File // the process's ends; nil with a terminal
	ours    [3]*os.File // our ends of the pipes; nil where there is none
	streams [3]*stream.Stream

	inputGrace time.Duration

	mu      sync.Mutex
	console *os.File
	outputs []*output
	input   *input
	closed  bool
}

// ErrNoTerminal: the process has none to resize.
var ErrNoTerminal = errors.New("process has no terminal")

// Open dials the streams and makes the pipes. The caller starts the process with Files or a console socket, then
// calls Start; in any case it calls Close in the end.
func Open(cfg Config, dial Dial) (_ *Set, err error) {
	if cfg.Terminal {
		cfg.Stderr = ""
	}
	s := &Set{cfg: cfg, inputGrace: inputGrace}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for i, uri := range []string{cfg.Stdin, cfg.Stdout, cfg.Stderr} {
		if uri != "" {
			id, err := api.ParseStreamURI(uri)
			if err != nil {
				return nil, err
			}
			if s.streams[i], err = dial(id); err != nil {
				return nil, fmt.Errorf("stdio: %w", err)
			}
		}
		if cfg.Terminal {
			continue
		}
		if uri == "" {
			s.child[i], err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		} else {
			err = s.pipe(i)
		}
		if err != nil {
			return nil, fmt.Errorf("stdio: %w", err)
		}
	}
	return s, nil
}

// pipe makes the pipe of descriptor i. Only our end is non-blocking: the flag belongs to the open file, and processes
// expect blocking stdio.
func (s *Set) pipe(i int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	theirs, ours := p[0], p[1]
	if i != 0 {
		theirs, ours = p[1], p[0]
	}
	err := unix.SetNonblock(ours, true)
	s.child[i] = os.NewFile(uintptr(theirs), "stdio")
	s.ours[i] = os.NewFile(uintptr(ours), "stdio")
	return os.NewSyscallError("fcntl", err)
}

// Terminal reports whether the process gets a pseudo-terminal.
func (s *Set) Terminal() bool { return s.cfg.Terminal }

// Files are the process's stdin, stdout and stderr; nil with a terminal. They are closed by Start and Close.
func (s *Set) Files() (stdin, stdout, stderr *os.File) { return s.child[0], s.child[1], s.child[2] }

// Start begins to copy, after the process was started. With a terminal console is its master end, which Set closes;
// it has to be non-blocking.
func (s *Set) Start(console *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeChild()
	if s.closed {
		if console != nil {
			_ = console.Close()
		}
		return
	}
	in, out := s.ours[0], []*os.File{s.ours[1], s.ours[2]}
	if console != nil {
		s.console = console
		in, out = console, []*os.File{console, nil}
	}
	if in != nil && s.streams[0] != nil {
		s.input = &input{file: in, stream: s.streams[0], terminal: console != nil, ended: make(chan struct{}),
			grace: s.inputGrace}
		go s.input.copy()
	}
	for i, f := range out {
		if f == nil {
			continue
		}
		o := &output{file: f, stream: s.streams[1+i], done: make(chan struct{}), terminal: console != nil}
		s.outputs = append(s.outputs, o)
		go o.copy()
	}
}

func (s *Set) closeChild() {
	for i, f := range s.child {
		if f != nil {
			_ = f.Close()
			s.child[i] = nil
		}
	}
}

// Resize sets the terminal's size in characters.
func (s *Set) Resize(width, height uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.console == nil {
		return ErrNoTerminal
	}
	conn, err := s.console.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	})
	if err == nil {
		err = ioctlErr
	}
	if err != nil {
		return fmt.Errorf("resize terminal to %dx%d: %w", width, height, err)
	}
	return nil
}

// CloseStdin ends the process's input once what the host has sent is written, and without waiting for an end of the
// stream that may never come (see inputGrace). A terminal's input stays open, as with runc.
func (s *Set) CloseStdin() {
	s.mu.Lock()
	in := s.input
	s.mu.Unlock()
	if in != nil && !in.terminal {
		in.finish()
	}
}

// Drain waits, after the process has ended, until its output was sent and the streams were ended. See output.drain for
// how long it waits when something else keeps the output open.
func (s *Set) Drain() {
	s.mu.Lock()
	outputs := s.outputs
	s.mu.Unlock()
	for _, o := range outputs {
		o.drain()
	}
}

// Close ends everything at once.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.closeChild()
	for _, f := range append(s.ours[:], s.console) {
		if f != nil {
			_ = f.Close()
		}
	}
	for _, st := range s.streams {
		if st != nil {
			_ = st.Close()
		}
	}
}
