package agent

import (
	"net"
	"sync"
)

// oneConn is a listener that gives out one connection, then waits for its own Close. ended is closed when that
// connection is.
type oneConn struct {
	conn   chan net.Conn
	ended  chan struct{}
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conn: make(chan net.Conn, 1), ended: make(chan struct{}), closed: make(chan struct{}), addr: c.LocalAddr()}
	l.conn <- &tracked{Conn: c, ended: l.ended}
	return l
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return l.addr }

// tracked tells when ttrpc has closed the connection, which it does when the other end has.
type tracked struct {
	net.Conn
	ended chan struct{}
	once  sync.Once
}

func (t *tracked) Close() error {
	t.once.Do(func() { close(t.ended) })
	return t.Conn.Close()
}
