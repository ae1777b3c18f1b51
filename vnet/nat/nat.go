package nat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"krun.dev/krunpod/vnet/gateway"
)

const (
	nic = 1
	// maxQueue is how many frames wait for the guest; what comes beyond is lost, and TCP sends it again.
	maxQueue = 512
	// windowSize bounds each of the two buffers of a connection to the guest, in bytes.
	windowSize    = 128 << 10
	windowDefault = 64 << 10
)

// Gateway is the gateway of one network. Each Read is a frame for the guest, each Write is one of the guest.
type Gateway struct {
	config   gateway.Config
	link     *channel.Endpoint
	stack    *stack.Stack
	forwards []forward
	services []service
	leases   *gonet.UDPConn

	// outward is what the guest begins, inward what comes through forwards.
	outward, inward budget
	// idle is idleTimeout, but in tests.
	idle time.Duration

	// running ends with Close; what Run has started ends with it.
	running context.Context
	cancel  context.CancelFunc
	closed  sync.Once
}

type service struct {
	listener *listener
	answer   gateway.Service
}

// Open makes a gateway and listens on the ports of the host that are forwarded. services answer at the gateway's own
// address. After an error nothing is open.
func Open(c gateway.Config, services gateway.Services) (_ *Gateway, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{
		config: c, outward: newBudget(maxConnections, maxSessions), inward: newBudget(maxForwarded, maxForwardedPeers),
		idle: idleTimeout,
	}
	g.running, g.cancel = context.WithCancel(context.Background())
	g.link = channel.New(maxQueue, gateway.MTU+header.EthernetMinimumSize, tcpip.LinkAddress(gateway.MAC[:]))
	// Nothing can happen to a frame on its way here.
	g.link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("gateway: %w", err), g.Close())
		}
	}()
	if err := g.configure(); err != nil {
		return nil, err
	}
	if g.leases, err = g.listenDHCP(); err != nil {
		return nil, err
	}
	for port, answer := range services {
		l, err := g.listenTCP(port)
		if err != nil {
			return nil, fmt.Errorf("service at port %d: %w", port, err)
		}
		g.services = append(g.services, service{l, answer})
	}
	for _, f := range c.Forwards {
		opened, err := g.listen(f)
		if err != nil {
			return nil, fmt.Errorf("forward %s: %w", f, err)
		}
		g.forwards = append(g.forwards, opened)
	}
	return g, nil
}

// configure gives the stack its address, and makes it answer for every other.
func (g *Gateway) configure() error {
	address := g.config.Address()
	subnet, err := tcpip.NewSubnet(tcpip.AddrFromSlice(address.Masked().Addr().AsSlice()),
		tcpip.MaskFromBytes(net.CIDRMask(address.Bits(), 32)))
	if err != nil {
		return err
	}
	sack := tcpip.TCPSACKEnabled(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: windowDefault, Max: windowSize}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: windowDefault, Max: windowSize}
	for _, err := range []tcpip.Error{
		g.stack.CreateNIC(nic, ethernet.New(g.link)),
		g.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddrFromSlice(address.Addr().AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}),
		// It takes packets for any address, and answers as that.
		g.stack.SetPromiscuousMode(nic, true),
		g.stack.SetSpoofing(nic, true),
		g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &wait),
		g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &receive),
		g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &send),
	} {
		if err != nil {
			return errors.New(err.String())
		}
	}
	g.stack.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: nic}})
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(g.stack, 0, maxDials, g.connect).HandlePacket)
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(g.stack, g.associate).HandlePacket)
	return nil
}

func (g *Gateway) at(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.AsSlice()), Port: port}
}

// guest is a port of the guest.
func (g *Gateway) guest(port uint16) tcpip.FullAddress { return g.at(g.config.Guest().Addr(), port) }

// Run serves until ctx ends or the gateway is closed, and closes it.
func (g *Gateway) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, g.cancel)
	defer stop()
	go g.lease()
	for _, s := range g.services {
		go s.run(g)
	}
	for _, f := range g.forwards {
		go f.run(g)
	}
	<-g.running.Done()
	return g.Close()
}

// Close ends all that goes over the gateway.
func (g *Gateway) Close() error {
	var errs []error
	g.closed.Do(func() {
		g.cancel()
		for _, f := range g.forwards {
			errs = append(errs, f.Close())
		}
		g.stack.Close()
		g.link.Close()
	})
	return errors.Join(errs...)
}

// Read waits for a frame for the guest; io.EOF after Close.
func (g *Gateway) Read(frame []byte) (int, error) {
	p := g.link.ReadContext(g.running)
	if p == nil {
		return 0, io.EOF
	}
	defer p.DecRef()
	view := p.ToView()
	defer view.Release()
	if view.Size() > len(frame) {
		return 0, io.ErrShortBuffer
	}
	return copy(frame, view.AsSlice()), nil
}

// Write hands on a frame of the guest; one that is too short for a header is lost.
func (g *Gateway) Write(frame []byte) (int, error) {
	if g.running.Err() != nil {
		return 0, net.ErrClosed
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer p.DecRef()
	g.link.InjectInbound(0, p)
	return len(frame), nil
}

// run answers until the gateway is closed.
func (s service) run(g *Gateway) {
	for {
		c, err := s.listener.accept(g.running)
		if err != nil {
			return
		}
		give, ok := g.outward.connections.take()
		if !ok {
			c.ep.Abort()
			continue
		}
		go func() {
			defer give()
			s.answer(c)
			c.finish(g.running, endTimeout)
		}()
	}
}
