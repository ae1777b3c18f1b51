package shim

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/log"
)

// stalled is a process that has ended and left output that nobody takes.
func stalled(t *testing.T) *stdio {
	t.Helper()
	s := &stdio{log: log.L, stall: soon}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	t.Cleanup(s.cancel)
	s.out.Add(1)
	return s
}

// waits reports whether the process's end is held back for some time.
func (s *stdio) waits() bool {
	ended := make(chan struct{})
	go func() {
		s.wait()
		close(ended)
	}()
	select {
	case <-ended:
		return false
	case <-time.After(10 * soon):
		return true
	}
}

func TestOutputThatNobodyTakesIsGivenUp(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "containerd"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv(addressEnv, l.Addr().String())
	if stalled(t).waits() {
		t.Error("a reader that takes nothing holds the end of a process back")
	}
}

func TestOutputWaitsForContainerd(t *testing.T) {
	t.Setenv(addressEnv, filepath.Join(t.TempDir(), "containerd"))
	s := stalled(t)
	if !s.waits() {
		t.Fatal("it was given up while containerd was down")
	}
	s.cancel()
	s.wait() // what is deleted waits for nothing
}
