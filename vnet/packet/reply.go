package packet

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// MaxReplyHeaders is the most that StartReply writes before what the reply carries.
const MaxReplyHeaders = header.EthernetMinimumSize + header.IPv6MinimumSize

// replyHopLimit is that of Linux's own packets.
const replyHopLimit = 64

// Answerable reports whether p goes from one station to one: what goes to several, or comes from nobody, is not answered (RFC 1122,
// section 3.2.2; RFC 4443, section 2.4).
func (p *Packet) Answerable() bool {
	return !p.Destination.Multicast() && !p.To.IsMulticast() && p.To != broadcast && !p.From.IsUnspecified()
}

// StartReply writes the headers of a packet from the destination of p, which is IPv4 or IPv6, to its source to buf, and
// returns the size bytes after them, zeroed, for protocol. FinishReply comes when they are written.
func (p *Packet) StartReply(buf []byte, protocol Protocol, size int) (upper []byte) {
	copy(buf, p.Source[:])
	copy(buf[6:], p.Destination[:])
	ip := buf[header.EthernetMinimumSize:]
	if p.Kind == KindIPv4 {
		buf[12], buf[13] = typeIPv4>>8, typeIPv4&0xff
		header.IPv4(ip).Encode(&header.IPv4Fields{
			TotalLength: uint16(header.IPv4MinimumSize + size), TTL: replyHopLimit, Protocol: uint8(protocol),
			SrcAddr: address(p.To), DstAddr: address(p.From),
		})
		upper = ip[header.IPv4MinimumSize:][:size]
	} else {
		buf[12], buf[13] = typeIPv6>>8, typeIPv6&0xff
		header.IPv6(ip).Encode(&header.IPv6Fields{
			PayloadLength: uint16(size), HopLimit: replyHopLimit,
			TransportProtocol: tcpip.TransportProtocolNumber(protocol),
			SrcAddr:           address(p.To), DstAddr: address(p.From),
		})
		upper = ip[header.IPv6MinimumSize:][:size]
	}
	clear(upper)
	return upper
}

// FinishReply writes the checksum of IPv4 and returns the whole frame, of which upper is the end.
func (p *Packet) FinishReply(buf, upper []byte) []byte {
	size := header.EthernetMinimumSize + header.IPv6MinimumSize
	if p.Kind == KindIPv4 {
		size = header.EthernetMinimumSize + header.IPv4MinimumSize
		ip := header.IPv4(buf[header.EthernetMinimumSize:])
		ip.SetChecksum(^ip.CalculateChecksum())
	}
	return buf[:size+len(upper)]
}

// ReplyChecksum is what the checksum over the size bytes of protocol in a reply begins with.
func (p *Packet) ReplyChecksum(protocol Protocol, size int) uint16 {
	return header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(protocol), address(p.To), address(p.From), uint16(size))
}

func address(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}
