package nat

import (
	"errors"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"krun.dev/krunpod/vnet/gateway"
)

// leaseTime says when a guest asks again; its address never changes.
const leaseTime = 24 * time.Hour

func (g *Gateway) listenDHCP() (*gonet.UDPConn, error) {
	var wq waiter.Queue
	ep, failed := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if failed != nil {
		return nil, errors.New(failed.String())
	}
	ep.SocketOptions().SetBroadcast(true)
	if failed := ep.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpv4.ServerPort}); failed != nil {
		ep.Close()
		return nil, errors.New(failed.String())
	}
	return gonet.NewUDPConn(&wq, ep), nil
}

// lease answers the guest's DHCP until the stack is closed.
func (g *Gateway) lease() {
	data := make([]byte, maxDatagram)
	for {
		n, _, err := g.leases.ReadFrom(data)
		if err != nil {
			return
		}
		m, err := dhcpv4.FromBytes(data[:n])
		if err != nil {
			continue
		}
		reply := g.offer(m)
		if reply == nil {
			continue
		}
		// To one that has its address, there; to any other, to all, since it does not answer ARP yet (RFC 2131, section 4.1).
		to := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
		if !m.ClientIPAddr.IsUnspecified() && m.ClientIPAddr.Equal(reply.YourIPAddr) {
			to.IP = m.ClientIPAddr
		}
		_, _ = g.leases.WriteTo(reply.ToBytes(), to)
	}
}

// offer is the answer to a client's message, nil for none. There is one address to have.
func (g *Gateway) offer(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	own := g.config.Address()
	self, guest := net.IP(own.Addr().AsSlice()), net.IP(g.config.Guest().Addr().AsSlice())
	answer := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer,
		dhcpv4.MessageTypeRequest:  dhcpv4.MessageTypeAck,
		dhcpv4.MessageTypeInform:   dhcpv4.MessageTypeAck,
	}[m.MessageType()]
	if id := m.ServerIdentifier(); answer == 0 || m.OpCode != dhcpv4.OpcodeBootRequest || (id != nil && !id.Equal(self)) {
		return nil
	}
	if wanted := m.RequestedIPAddress(); m.MessageType() == dhcpv4.MessageTypeRequest && wanted != nil && !wanted.Equal(guest) {
		answer = dhcpv4.MessageTypeNak
	}
	options := []dhcpv4.Modifier{dhcpv4.WithMessageType(answer), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self))}
	if answer != dhcpv4.MessageTypeNak {
		options = append(options, dhcpv4.WithNetmask(net.CIDRMask(own.Bits(), 32)), dhcpv4.WithRouter(self), dhcpv4.WithDNS(self),
			dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(gateway.MTU)}))
		if m.MessageType() != dhcpv4.MessageTypeInform {
			options = append(options, dhcpv4.WithYourIP(guest), dhcpv4.WithLeaseTime(uint32(leaseTime/time.Second)))
		}
	}
	reply, err := dhcpv4.NewReplyFromRequest(m, options...)
	if err != nil {
		return nil
	}
	return reply
}
