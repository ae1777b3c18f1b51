package stream

import (
	"errors"
	"io"
	"net"
	"sync"
)

// Join carries bytes between conn and s, both ways, until both directions have ended, and closes both. The end of one
// direction is passed on as that. When a direction breaks, everything ends, and conn's other end sees a reset.
func Join(conn *net.TCPConn, s *Stream) error {
	var toStream, toConn error
	var ended sync.WaitGroup
	ended.Go(func() {
		if _, toStream = io.Copy(s, conn); toStream == nil {
			toStream = s.CloseWrite()
		}
		if toStream != nil {
			reset(conn, s)
		}
	})
	ended.Go(func() {
		if _, toConn = io.Copy(conn, s); toConn == nil {
			toConn = conn.CloseWrite()
		}
		if toConn != nil {
			reset(conn, s)
		}
	})
	ended.Wait()
	return errors.Join(toStream, toConn, conn.Close(), s.Close())
}

// Reset closes conn so that its other end sees a reset, as from a port that nobody listens on: SO_LINGER, socket(7).
func Reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // fails when the connection is gone
	_ = conn.Close()
}

func reset(conn *net.TCPConn, s *Stream) {
	Reset(conn)
	_ = s.Close()
}
