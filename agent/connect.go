package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
)

// connectTimeout bounds a connection to loopback: whoever listens with a full backlog does not answer.
const connectTimeout = 5 * time.Second

// Connect implements the Agent API.
func (s *sandbox) Connect(ctx context.Context, r *api.ConnectRequest) (*api.ConnectResponse, error) {
	var conn *net.TCPConn
	err := s.names.Inside(func() (err error) {
		conn, err = dialLoopback(ctx, r.GetPort())
		return err
	})
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	st, err := dialStream(r.GetStream())
	if err != nil {
		stream.Reset(conn)
		return nil, errgrpc.ToGRPC(err)
	}
	go func() { _ = stream.Join(conn, st) }() // ends with the connection; its error is its user's to see
	return &api.ConnectResponse{}, nil
}

// dialLoopback dials localhost in the order that containerd does.
func dialLoopback(ctx context.Context, port uint32) (*net.TCPConn, error) {
	if port == 0 || port > 65535 {
		return nil, fmt.Errorf("port %d: %w", port, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	var dialer net.Dialer
	dialer.SetMultipathTCP(false)
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", errdefs.ErrUnavailable, errors.Join(errs...))
}
