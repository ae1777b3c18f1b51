package shim

import (
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// listenBusy listens on a UNIX socket whose queue is full: nobody accepts.
func listenBusy(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue is not full")
}

func TestOnlyASocketThatRefusesIsADeadShims(t *testing.T) {
	dir := t.TempDir()
	busy, dead := filepath.Join(dir, "busy"), filepath.Join(dir, "dead")
	listenBusy(t, busy)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if !served("unix://" + dead) {
		t.Error("a shim that listens counts as dead")
	}
	l.Close()
	for path, want := range map[string]bool{busy: true, dead: false, filepath.Join(dir, "none"): false} {
		if got := served("unix://" + path); got != want {
			t.Errorf("%s: served %v", path, got)
		}
	}
}
