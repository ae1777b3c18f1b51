package agent

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// oneConn is a listener that gives out one connection, then waits for its own Close. ended is closed when that
// connection is; wrote has a token when something was written to it that began after mark.
type oneConn struct {
	conn   chan net.Conn
	ended  chan struct{}
	wrote  chan struct{}
	marked *atomic.Bool
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{conn: make(chan net.Conn, 1), ended: make(chan struct{}), wrote: make(chan struct{}, 1),
		marked: new(atomic.Bool), closed: make(chan struct{}), addr: c.LocalAddr()}
	l.conn <- &tracked{Conn: c, ended: l.ended, wrote: l.wrote, marked: l.marked}
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
	ended  chan struct{}
	wrote  chan struct{}
	marked *atomic.Bool
	once   sync.Once
}

func (t *tracked) Write(p []byte) (int, error) {
	answer := t.marked.Load() // an earlier answer may still be in Write when mark is called
	n, err := t.Conn.Write(p)
	if answer {
		select {
		case t.wrote <- struct{}{}:
		default:
		}
	}
	return n, err
}

func (t *tracked) Close() error {
	t.once.Do(func() { close(t.ended) })
	return t.Conn.Close()
}

// flushLimit bounds flush: a host that does not read has no use for an answer.
const flushLimit = time.Second

// mark is called before the answer that flush waits for is given to ttrpc.
func (l *oneConn) mark() { l.marked.Store(true) }

// flush waits for something to be written after mark. ttrpc's own Shutdown closes a connection as idle whose only
// request has come in since its last answer (ttrpc 1.2.10, serverConn.run), and with it loses the answer.
func (l *oneConn) flush() {
	select {
	case <-l.wrote:
	case <-l.ended:
	case <-time.After(flushLimit):
	}
}
