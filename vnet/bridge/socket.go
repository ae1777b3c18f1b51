package bridge

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetSocket carries the frames of an interface, each with its header. One that the interface does not take is lost, as on a wire:
// its queue is full, it is down, or the frame is larger than its MTU.
type packetSocket struct {
	file    *os.File
	conn    syscall.RawConn
	limited bool // there is a deadline for what is received

	in      transfer
	sending sync.Mutex // held for out
	out     transfer
}

func newPacketSocket(file *os.File) (*packetSocket, error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s := &packetSocket{file: file, conn: conn}
	s.in.init(unix.SYS_READ)
	s.out.init(unix.SYS_WRITE)
	return s, nil
}

// transfer is a system call that does not block, made anew when the socket is ready. Go's scheduler does not hear of it: a call that takes
// more than 20 µs, as on a busy or an emulated machine each of them does, would have its processor given to another thread, and wait for
// another one afterwards, which took more time than all that is done with a frame.
type transfer struct {
	data []byte
	n    int
	err  error
	try  func(fd uintptr) bool
}

func (t *transfer) init(call uintptr) {
	t.try = func(fd uintptr) bool {
		for {
			n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.data))), uintptr(len(t.data)))
			switch errno {
			case 0:
				t.n, t.err = int(n), nil
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				return false
			default:
				t.n, t.err = 0, errno
			}
			return true
		}
	}
}

// run makes the call through one of the functions of a syscall.RawConn, which waits for the socket.
func (t *transfer) run(wait func(func(fd uintptr) bool) error, data []byte) (int, error) {
	t.data = data
	err := wait(t.try)
	t.data = nil
	switch {
	case err == nil:
		return t.n, t.err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, err
	}
	return 0, os.ErrClosed // the only other one, which has no name outside of Go's own packages
}

// within gives what is received next a time; 0 is none.
func (s *packetSocket) within(wait time.Duration) {
	switch {
	case wait > 0:
		_ = s.file.SetReadDeadline(time.Now().Add(wait))
	case s.limited:
		_ = s.file.SetReadDeadline(time.Time{})
	}
	s.limited = wait > 0
}

func (s *packetSocket) receive(data []byte) (int, error) { return s.in.run(s.conn.Read, data) }

func (s *packetSocket) send(data []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	_, err := s.out.run(s.conn.Write, data)
	return err
}

// unread is how many frames the socket's queue had no room for since the last call (packet(7), PACKET_STATISTICS).
func (s *packetSocket) unread() uint64 {
	var lost uint64
	_ = s.conn.Control(func(fd uintptr) {
		if stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = uint64(stats.Drops)
		}
	})
	return lost
}

func (s *packetSocket) Close() error { return s.file.Close() }
