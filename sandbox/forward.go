package sandbox

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/containerd/log"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
	"krun.dev/krunpod/netbridge"
)

const (
	// maxForwards bounds the connections to the pod's loopback that are open at a time: each holds two buffers of
	// stream.Window here.
	maxForwards = 256
	// forwardTimeout bounds how long the guest may take to connect one.
	forwardTimeout = 10 * time.Second
)

// listenLoopback makes the pod's loopback on the host answer, for containerd's port-forward. Where the kernel cannot,
// the pod does without.
func (s *Sandbox) listenLoopback(ctx context.Context) {
	if s.spec.NetNS == "" {
		return
	}
	l, err := netbridge.ListenLoopback(s.spec.NetNS)
	if err != nil {
		log.G(ctx).WithError(err).WithField("sandbox", s.spec.ID).Warn("port-forward to this pod will not work")
		return
	}
	s.loopback = l
}

// forwardLoopback serves what arrives at the pod's loopback until the VM ends.
func (s *Sandbox) forwardLoopback() {
	if s.loopback == nil {
		return
	}
	places := make(chan struct{}, maxForwards)
	s.loopback.Serve(func(conn *net.TCPConn) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			stream.Reset(conn)
			return
		}
		st, err := s.connect(conn.LocalAddr().(*net.TCPAddr).Port)
		if err != nil {
			stream.Reset(conn) // what a client sees of a port on which nobody listens
			return
		}
		_ = stream.Join(conn, st) // a connection that breaks is its client's to see
	})
	go func() {
		<-s.runner.done
		_ = s.loopback.Close()
	}()
}

// connect opens a stream to a TCP port on the guest's loopback.
func (s *Sandbox) connect(port int) (*stream.Stream, error) {
	pending, err := s.streams.expect()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardTimeout)
	defer cancel()
	if _, err := s.Agent.Connect(ctx, &api.ConnectRequest{Port: uint32(port), Stream: pending.ID}); err != nil {
		pending.Cancel()
		return nil, fmt.Errorf("connect to port %d in the guest: %w", port, err)
	}
	return pending.Wait(ctx)
}
