package vnettest

import (
	"context"
	"io"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// NIC is the number of a Station's only one.
const NIC = 1

const (
	stationMTU   = 1500 // bytes, that of a guest at a gateway
	stationQueue = 512  // frames
)

// Station is a machine with a network stack, an address of IPv4 and a way to all others over router, until the test's end. wire hands
// over a frame with each Read and takes one with each Write.
func Station(t testing.TB, own Host, router netip.Addr, wire io.ReadWriter) *stack.Stack {
	t.Helper()
	link := channel.New(stationQueue, stationMTU+header.EthernetMinimumSize, tcpip.LinkAddress(own.MAC[:]))
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	for _, err := range []tcpip.Error{
		s.CreateNIC(NIC, ethernet.New(link)),
		s.AddProtocolAddress(NIC, tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddrFromSlice(own.Addr.AsSlice()).WithPrefix(),
		}, stack.AddressProperties{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFromSlice(router.AsSlice()), NIC: NIC}})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); s.Close() })
	go func() {
		frame := make([]byte, 1<<16)
		for {
			n, err := wire.Read(frame)
			if err != nil {
				return
			}
			p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame[:n])})
			link.InjectInbound(0, p)
			p.DecRef()
		}
	}()
	go func() {
		for {
			p := link.ReadContext(ctx)
			if p == nil {
				return
			}
			view := p.ToView()
			_, _ = wire.Write(view.AsSlice())
			view.Release()
			p.DecRef()
		}
	}()
	return s
}
