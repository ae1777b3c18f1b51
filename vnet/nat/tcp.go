package nat

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// maxDials is how many connections of the guest may be on their way at a time; further SYNs are lost, and sent again.
	maxDials    = 128
	dialTimeout = 20 * time.Second
)

// connect connects to where the guest wants to, and only then answers it: what refuses the host refuses the guest.
func (g *Gateway) connect(r *tcp.ForwarderRequest) {
	give, ok := g.connections.take()
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
	var wq waiter.Queue
	ep, failed := r.CreateEndpoint(&wq)
	if failed != nil {
		r.Complete(true)
		out.Close()
		return
	}
	r.Complete(false)
	g.join(gonet.NewTCPConn(&wq, ep), out.(*net.TCPConn))
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

// join carries bytes both ways until both have ended, or the gateway is closed.
func (g *Gateway) join(a, b halfCloser) {
	shut := func() {
		a.Close()
		b.Close()
	}
	stop := context.AfterFunc(g.running, shut)
	defer stop()
	defer shut()
	var both sync.WaitGroup
	carry := func(to, from halfCloser) {
		if _, err := io.Copy(to, from); err != nil {
			shut()
			return
		}
		_ = to.CloseWrite()
	}
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	both.Wait()
}

// dialGuest connects to a port of the guest.
func (g *Gateway) dialGuest(port uint16) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(g.running, dialTimeout)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.stack, g.guest(port), ipv4.ProtocolNumber)
}
