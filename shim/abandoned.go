package shim

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	shimlib "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
)

const (
	// socketEnv hands the address of its socket to the shim that serves.
	socketEnv = "KRUNPOD_SOCKET"
	// bundleLog is the pipe that containerd makes in the bundle before it starts a shim (core/runtime/v2, openShimLog).
	bundleLog = "log"
	// abandonedAfter is how often a shim without a sandbox looks whether somebody still wants it.
	abandonedAfter = 10 * time.Second
)

// Abandoned reports whether this process was started to serve a bundle that is gone already: containerd gives up when its
// client does, and removes the bundle while the shim still starts. Then nobody asks for the socket again, and it is removed.
func Abandoned() bool {
	address := os.Getenv(socketEnv)
	if address == "" || !bundleGone() {
		return false
	}
	if err := shimlib.RemoveSocket(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.L.WithError(err).Warn("the socket of a shim that nobody wants any more is left")
	}
	return true
}

// bundleGone looks in the working directory, which is the bundle.
func bundleGone() bool {
	_, err := os.Lstat(bundleLog)
	return errors.Is(err, fs.ErrNotExist)
}

// endWhenAbandoned ends a shim whose bundle goes before it has a sandbox: containerd has no way to tell it then, since its
// delete action starts in that bundle.
func (s *service) endWhenAbandoned(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := s.getPod(""); err == nil {
			return
		}
		if bundleGone() {
			_ = Abandoned()
			s.shutdown.Shutdown()
			return
		}
	}
}
