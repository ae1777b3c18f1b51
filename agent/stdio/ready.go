package stdio

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// waitReadable waits in the runtime's poller until the file can be read or its other end is closed.
func waitReadable(conn syscall.RawConn) error {
	var pollErr error
	err := conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		for err == unix.EINTR {
			n, err = unix.Poll(fds, 0)
		}
		pollErr = os.NewSyscallError("poll", err)
		return err != nil || n > 0
	})
	if err != nil {
		return err
	}
	return pollErr
}
