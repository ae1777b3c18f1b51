package nat

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"krun.dev/krunpod/vnet/gateway"
)

// forward is a port of the host at which somebody may ask for the guest.
type forward interface {
	// run serves until it is closed.
	run(g *Gateway)
	io.Closer
}

func (g *Gateway) listen(f gateway.Forward) (forward, error) {
	if f.Protocol == "udp" {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(f.Listen))
		if err != nil {
			return nil, err
		}
		return &datagrams{UDPConn: conn, port: f.Guest, peers: map[netip.AddrPort]net.Conn{}}, nil
	}
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(f.Listen))
	if err != nil {
		return nil, err
	}
	return &connections{l, f.Guest}, nil
}

// pause is how long nobody is accepted after a failure, such as one for want of descriptors.
const pause = 100 * time.Millisecond

// connections are those to a port of the guest.
type connections struct {
	*net.TCPListener
	port uint16
}

func (c *connections) run(g *Gateway) {
	for {
		in, err := c.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pause)
			continue
		}
		give, ok := g.inward.connections.take()
		if !ok {
			reset(in)
			continue
		}
		go func() {
			defer give()
			guest, err := g.dialGuest(c.port)
			if err != nil {
				reset(in) // as the guest, or its silence, refused it
				return
			}
			g.join(guest, in)
		}()
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// datagrams are those to a port of the guest: each peer has a session, so that the guest's answers find it.
type datagrams struct {
	*net.UDPConn
	port uint16

	mu    sync.Mutex
	peers map[netip.AddrPort]net.Conn
}

func (d *datagrams) run(g *Gateway) {
	data := make([]byte, maxDatagram)
	for {
		n, from, err := d.ReadFromUDPAddrPort(data)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of an earlier answer: whoever asked is gone
		}
		if to := d.session(g, from); to != nil {
			_, _ = to.Write(data[:n])
		}
	}
}

// session returns where datagrams of a peer go, nil if there is no room for it.
func (d *datagrams) session(g *Gateway, from netip.AddrPort) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if to := d.peers[from]; to != nil {
		return to
	}
	give, ok := g.inward.sessions.take()
	if !ok {
		return nil
	}
	guest := g.guest(d.port)
	conn, err := gonet.DialUDP(g.stack, nil, &guest, ipv4.ProtocolNumber)
	if err != nil {
		give()
		return nil
	}
	ours, theirs := net.Pipe() // a Read for each Write
	d.peers[from] = ours
	go func() {
		defer give()
		g.exchange(theirs, conn)
	}()
	go func() {
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.peers, from)
			ours.Close()
		}()
		data := make([]byte, maxDatagram)
		for {
			n, err := ours.Read(data)
			if err != nil {
				return
			}
			_, _ = d.WriteToUDPAddrPort(data[:n], from)
		}
	}()
	return ours
}

// refused is the error of a datagram before: nobody was there for it, which is no reason to end. Of gVisor's errors gonet keeps the
// text alone.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (errors.Is(op.Err, syscall.ECONNREFUSED) || op.Err.Error() == (&tcpip.ErrConnectionRefused{}).String())
}
