package nat

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"krun.dev/krunpod/agent/api/stream"
)

const (
	// maxDials is how many connections of the guest may be on their way at a time; further SYNs are lost, and sent again.
	maxDials    = 128
	dialTimeout = 20 * time.Second
	// idleTimeout is how long a connection lasts without a byte in either direction: RFC 5382, REQ-5.
	idleTimeout = 2*time.Hour + 4*time.Minute
	// copySize is the size of the buffer of each direction, in bytes, as io.Copy's.
	copySize = 32 << 10
)

// connect connects to where the guest wants to, and only then answers it: what refuses the host refuses the guest.
func (g *Gateway) connect(r *tcp.ForwarderRequest) {
	give, ok := g.outward.connections.take()
	if !ok {
		r.Complete(true)
		return
	}
	defer give()
	id := r.ID()
	ctx, cancel := context.WithTimeout(g.running, dialTimeout)
	defer cancel()
	out, err := new(net.Dialer).DialContext(ctx, "tcp4", addrPort(id.LocalAddress, id.LocalPort).String())
	if err != nil {
		r.Complete(true)
		return
	}
	wq := new(waiter.Queue)
	ep, failed := r.CreateEndpoint(wq)
	if failed != nil {
		r.Complete(true)
		out.Close()
		return
	}
	r.Complete(false)
	g.join(newConn(wq, ep), out.(*net.TCPConn))
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(addr, port)
}

// halfCloser is a connection each direction of which ends by itself.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join carries bytes both ways until both have ended, nothing came for long, or the gateway is closed; and until nothing is left of
// the guest's connection.
func (g *Gateway) join(guest *conn, host *net.TCPConn) {
	var end sync.Once
	shut := func() {
		end.Do(func() {
			guest.Close()
			host.Close()
		})
	}
	// A connection that broke must not look like one that ended: what came of it may be half of a file.
	broke := func() {
		end.Do(func() {
			guest.ep.Abort()
			stream.Reset(host)
		})
	}
	stop := context.AfterFunc(g.running, shut)
	defer stop()
	idle := time.AfterFunc(g.idle, shut)
	defer idle.Stop()
	var both sync.WaitGroup
	carry := func(to, from halfCloser) {
		if !copyAll(to, from, func() { idle.Reset(g.idle) }) {
			broke()
			return
		}
		_ = to.CloseWrite()
	}
	both.Go(func() { carry(guest, host) })
	both.Go(func() { carry(host, guest) })
	both.Wait()
	host.Close()
	guest.finish(g.running, endTimeout)
}

// copyAll copies until from ends, and reports whether it ended well. It calls came with all that comes.
func copyAll(to, from net.Conn, came func()) bool {
	data := make([]byte, copySize)
	for {
		n, err := from.Read(data)
		if n > 0 {
			came()
			if _, err := to.Write(data[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
