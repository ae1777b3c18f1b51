package nat

import (
	"context"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// sessionTimeout is how long a session lasts without a datagram in either direction; that of nf_conntrack's streams is 120 s.
	sessionTimeout = 90 * time.Second
	// maxDatagram is the largest payload of UDP over IPv4, in bytes.
	maxDatagram = 1<<16 - 1 - 20 - 8
)

// associate begins a session for the first datagram from a port of the guest to an address; it must not wait. Without a slot the
// datagram is lost.
func (g *Gateway) associate(r *udp.ForwarderRequest) {
	give, ok := g.outward.sessions.take()
	if !ok {
		return
	}
	id := r.ID()
	var wq waiter.Queue
	ep, failed := r.CreateEndpoint(&wq)
	if failed != nil {
		give()
		return
	}
	go func() {
		defer give()
		guest := gonet.NewUDPConn(&wq, ep)
		out, err := net.Dial("udp4", addrPort(id.LocalAddress, id.LocalPort).String())
		if err != nil {
			guest.Close()
			return
		}
		g.exchange(guest, out)
	}()
}

// exchange carries datagrams both ways until none came for a while, or the gateway is closed.
func (g *Gateway) exchange(a, b net.Conn) {
	shut := func() {
		a.Close()
		b.Close()
	}
	stop := context.AfterFunc(g.running, shut)
	defer stop()
	idle := time.AfterFunc(sessionTimeout, shut)
	defer idle.Stop()
	var both sync.WaitGroup
	carry := func(to, from net.Conn) {
		defer shut()
		data := make([]byte, maxDatagram)
		for {
			n, err := from.Read(data)
			if err != nil && !refused(err) {
				return
			}
			idle.Reset(sessionTimeout)
			if err != nil {
				continue
			}
			// A socket that has yet to tell of a datagram that was refused does so instead of sending the next.
			if _, err := to.Write(data[:n]); refused(err) {
				_, _ = to.Write(data[:n]) // as on a wire
			}
		}
	}
	both.Go(func() { carry(a, b) })
	both.Go(func() { carry(b, a) })
	both.Wait()
}
