package stdio

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
)

// host is the other end of the streams, by id.
type host struct {
	t       *testing.T
	mu      sync.Mutex
	streams map[uint32]*stream.Stream
}

func newHost(t *testing.T) *host { return &host{t: t, streams: map[uint32]*stream.Stream{}} }

func (h *host) dial(id uint32) (*stream.Stream, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			return nil, err
		}
		_ = f.Close()
	}
	guest, err := stream.Dial(conns[1], id)
	if err != nil {
		return nil, err
	}
	got, s, err := stream.Accept(conns[0])
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = s.Close() })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[got] = s
	return guest, nil
}

func (h *host) stream(id uint32) *stream.Stream {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.streams[id]
}

func start(t *testing.T, h *host, script string) (*Set, *exec.Cmd) {
	t.Helper()
	return startWithGrace(t, h, script, inputGrace)
}

func startWithGrace(t *testing.T, h *host, script string, grace time.Duration) (*Set, *exec.Cmd) {
	t.Helper()
	set, err := Open(Config{Stdin: api.StreamURI(1), Stdout: api.StreamURI(2), Stderr: api.StreamURI(3)}, h.dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(set.Close)
	set.inputGrace = grace
	cmd := exec.Command("/bin/sh", "-c", script)
	in, out, errs := set.Files()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	set.Start(nil)
	return set, cmd
}

func TestAllOutputArrivesBeforeDrainReturns(t *testing.T) {
	h := newHost(t)
	set, cmd := start(t, h, `head -c 3000000 /dev/zero; echo oops >&2`)
	got := make(chan int, 1)
	go func() {
		b, err := io.ReadAll(h.stream(2))
		if err != nil {
			t.Error(err)
		}
		got <- len(b)
	}()
	_ = cmd.Wait()
	set.Drain()
	if n := <-got; n != 3000000 {
		t.Errorf("%d bytes of output", n)
	}
	if b, err := io.ReadAll(h.stream(3)); err != nil || string(b) != "oops\n" {
		t.Errorf("stderr %q, %v", b, err)
	}
}

func TestInputArrivesWholeAndEndsWithTheStream(t *testing.T) {
	h := newHost(t)
	set, cmd := start(t, h, `sha256sum`)
	data := bytes.Repeat([]byte("0123456789abcdef"), 50000)
	in := h.stream(1)
	if _, err := in.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := in.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	set.Drain()
	b, err := io.ReadAll(h.stream(2))
	if want := fmt.Sprintf("%x", sha256.Sum256(data)); err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("%q, %v; want %s", b, err, want)
	}
}

func TestCloseStdinGivesWhatWasSentThenEOF(t *testing.T) {
	h := newHost(t)
	set, cmd := startWithGrace(t, h, `sleep 0.5; cat`, 100*time.Millisecond)
	if _, err := h.stream(1).Write(bytes.Repeat([]byte("x"), 90000)); err != nil {
		t.Fatal(err)
	}
	set.CloseStdin()
	set.CloseStdin()
	got := make(chan int, 1)
	go func() { b, _ := io.ReadAll(h.stream(2)); got <- len(b) }()
	_ = cmd.Wait() // ends only if cat sees the end
	set.Drain()
	if n := <-got; n != 90000 {
		t.Errorf("%d bytes", n)
	}
}

func TestBackgroundChildDoesNotHoldUpTheExit(t *testing.T) {
	h := newHost(t)
	set, cmd := start(t, h, `sleep 30 & echo $!`)
	_ = cmd.Wait()
	began := time.Now()
	set.Drain()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("drained after %s", d)
	}
	b, err := io.ReadAll(h.stream(2)) // ended although the child lives
	if err != nil || len(b) == 0 {
		t.Fatalf("%q, %v", b, err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err == nil {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func TestSlowReaderHoldsUpOnlyItsWriter(t *testing.T) {
	h := newHost(t)
	_, cmd := start(t, h, `yes >&2 & Y=$!; echo fine; read x; kill $Y`) // nobody reads stderr
	b := make([]byte, 5)
	if _, err := io.ReadFull(h.stream(2), b); err != nil || string(b) != "fine\n" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := h.stream(1).Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTerminalCarriesBothWaysAndResizes(t *testing.T) {
	h := newHost(t)
	set, err := Open(Config{Stdin: api.StreamURI(1), Stdout: api.StreamURI(2), Terminal: true}, h.dial)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if err := set.Resize(1, 1); err != ErrNoTerminal {
		t.Errorf("resize before start: %v", err)
	}
	master, slave := openPty(t)
	cmd := exec.Command("/bin/sh", "-c", "read x; stty size; echo got $x")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	set.Start(master)
	if err := set.Resize(101, 33); err != nil {
		t.Fatal(err)
	}
	if _, err := h.stream(1).Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	set.Drain()
	b, err := io.ReadAll(h.stream(2))
	if want := "hello\r\n33 101\r\ngot hello\r\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
}

func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave
}

// On a busy guest the copy may get no turn for longer than idleGrace; what the process wrote is still to arrive, though
// a background child holds the pipe open.
func TestOutputThatWasNotReadYetIsNotGivenUp(t *testing.T) {
	h := newHost(t)
	guest, err := h.dial(1)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("late"); err != nil {
		t.Fatal(err)
	}
	o := &output{file: r, stream: guest, done: make(chan struct{})}
	time.AfterFunc(idleGrace+idleGrace/2, func() { go o.copy() })
	o.drain()
	if b, err := io.ReadAll(h.stream(1)); err != nil || string(b) != "late" {
		t.Errorf("%q, %v", b, err)
	}
}
