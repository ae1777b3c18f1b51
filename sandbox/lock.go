package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Locks that all shims of a node share are files of the state directory (flock(2)), so they end with the shim that has them.
// Their names begin with a dot, as no namespace of containerd does.

func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock of the sandboxes: %w", err)
	}
	return f, nil
}

// flock goes on after a signal, such as those of Go's scheduler.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
