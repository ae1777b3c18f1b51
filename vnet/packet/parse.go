package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The types of Ethernet frames that are looked into: IANA, IEEE 802 numbers.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// Parse reads frame into p, of which nothing is kept from before, and returns WellFormed or what is wrong with frame;
// then p holds what was read so far. Checksums of TCP, UDP and ICMP are not verified: a frame with offloads has none
// yet, and who is addressed verifies them.
func Parse(frame []byte, p *Packet) Reason {
	*p = Packet{}
	if len(frame) < header.EthernetMinimumSize {
		return ShortFrame
	}
	copy(p.Destination[:], frame)
	copy(p.Source[:], frame[6:])
	p.Network = header.EthernetMinimumSize
	if p.Source.Multicast() {
		return SourceMulticast
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeARP:
		p.Kind = KindARP
		return p.parseARP(frame)
	case typeIPv4:
		p.Kind = KindIPv4
		return p.parseIPv4(frame)
	case typeIPv6:
		p.Kind = KindIPv6
		return p.parseIPv6(frame)
	}
	return OtherEtherType
}

// The operations of ARP that stations use: RFC 826.
const (
	ARPRequest = uint16(header.ARPRequest)
	ARPReply   = uint16(header.ARPReply)
)

func (p *Packet) parseARP(frame []byte) Reason {
	a := header.ARP(frame[p.Network:])
	if !a.IsValid() {
		return BadARP
	}
	op := uint16(a.Op())
	if op != ARPRequest && op != ARPReply {
		return BadARP
	}
	p.End = p.Network + header.ARPSize
	p.Neighbour.Type, p.Neighbour.HasMAC = op, true
	copy(p.Neighbour.MAC[:], a.HardwareAddressSender())
	p.Neighbour.Plain = padded(frame, p.End)
	p.From = addr4(a.ProtocolAddressSender())
	p.To = addr4(a.ProtocolAddressTarget())
	return WellFormed
}

// parseUpper reads the header at p.Transport, unless the packet is a fragment that does not start with it.
func (p *Packet) parseUpper(frame []byte) Reason {
	if p.Fragment.Start != 0 {
		return WellFormed
	}
	reason := p.parseTransport(frame[p.Transport:p.End])
	p.Neighbour.Plain = p.Neighbour.Plain && padded(frame, p.End)
	if reason != WellFormed && p.Fragment.More && p.tooShort(p.End-p.Transport) {
		return SplitHeader
	}
	return reason
}

// tooShort reports whether n bytes cannot hold the header of p.Protocol, so that more of it may be in a later fragment.
func (p *Packet) tooShort(n int) bool {
	switch p.Protocol {
	case TCPProtocol:
		return n < header.TCPHeaderMaximumSize
	case UDPProtocol:
		return n < header.UDPMinimumSize
	}
	return n < header.ICMPv6MinimumSize
}

func (p *Packet) parseTransport(b []byte) Reason {
	switch p.Protocol {
	case TCPProtocol:
		return p.parseTCP(b)
	case UDPProtocol:
		return p.parseUDP(b)
	case ICMPv4Protocol:
		if p.Kind == KindIPv4 {
			return p.parseICMPv4(b)
		}
		return BadICMP // of the other family: RFC 4443 has no use for it
	case ICMPv6Protocol:
		if p.Kind == KindIPv6 {
			return p.parseICMPv6(b)
		}
		return BadICMP
	}
	return WellFormed
}

func (p *Packet) parseTCP(b []byte) Reason {
	if len(b) < header.TCPMinimumSize {
		return BadTCP
	}
	t := header.TCP(b)
	size := int(t.DataOffset())
	if size < header.TCPMinimumSize || size > len(b) {
		return BadTCP
	}
	p.FromPort, p.ToPort = t.SourcePort(), t.DestinationPort()
	p.TCP = TCPFields{Seq: t.SequenceNumber(), Ack: t.AckNumber(), Flags: t.Flags(), Payload: len(b) - size}
	if p.FromPort == 0 || p.ToPort == 0 || !sane(p.TCP.Flags) {
		return BadTCP
	}
	return WellFormed
}

// sane reports whether a segment of a connection can have these flags, as nf_conntrack judges them (tcp_valid_flags,
// net/netfilter/nf_conntrack_proto_tcp.c). The flags of congestion and PSH do not matter.
func sane(f header.TCPFlags) bool {
	switch f & (SYN | FIN | RST | ACK) {
	case SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, ACK:
		return true
	}
	return false
}

func (p *Packet) parseUDP(b []byte) Reason {
	if len(b) < header.UDPMinimumSize {
		return BadUDP
	}
	u := header.UDP(b)
	length := int(u.Length())
	p.FromPort, p.ToPort = u.SourcePort(), u.DestinationPort()
	if p.ToPort == 0 || length < header.UDPMinimumSize {
		return BadUDP
	}
	if length > len(b) && !p.Fragment.More {
		return BadUDP
	}
	return WellFormed
}
