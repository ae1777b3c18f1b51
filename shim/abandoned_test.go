package shim

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/shutdown"
)

// serving makes this process look like a shim that was started in a bundle, and returns the bundle and the socket's path.
func serving(t *testing.T) (bundle, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv(socketEnv, "unix://"+socket)
	bundle = filepath.Join(t.TempDir(), "bundle")
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(bundle)
	if err := os.WriteFile(bundleLog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return bundle, socket
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func TestAbandonedShimTakesItsSocketAlong(t *testing.T) {
	bundle, socket := serving(t)
	if Abandoned() || !exists(socket) {
		t.Fatal("a shim whose bundle is there counts as abandoned")
	}
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	if !Abandoned() || exists(socket) {
		t.Errorf("the bundle is gone, and the socket is there: %v", exists(socket))
	}
}

func TestActionsAreNotAbandoned(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(socketEnv, "")
	if Abandoned() {
		t.Error("what containerd runs in a directory without a log, such as the delete action, counts as abandoned")
	}
}

func TestShimEndsWhenItsBundleGoesBeforeItHasASandbox(t *testing.T) {
	bundle, socket := serving(t)
	_, sd := shutdown.WithShutdown(t.Context())
	s := &service{shutdown: sd}
	go s.endWhenAbandoned(t.Context(), time.Millisecond)
	select {
	case <-sd.Done():
		t.Fatal("it ends though its bundle is there")
	case <-time.After(20 * time.Millisecond):
	}
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sd.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on without a bundle")
	}
	if exists(socket) {
		t.Error("its socket is left")
	}
}
