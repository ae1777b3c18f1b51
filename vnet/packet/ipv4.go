package packet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// maxPacket is the size of the largest IP packet without its header's say: RFC 791, RFC 8200 without jumbograms.
const maxPacket = 1<<16 - 1

// Options of IPv4: IANA, Internet Protocol version 4 parameters.
const (
	optionEnd         = 0
	optionNop         = 1
	optionLooseRoute  = 131
	optionStrictRoute = 137
)

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }

func (p *Packet) parseIPv4(frame []byte) Reason {
	h := header.IPv4(frame[p.Network:])
	if !h.IsValid(len(h)) || !h.IsChecksumValid() {
		return BadIPv4Header
	}
	p.From, p.To = addr4(h.SourceAddressSlice()), addr4(h.DestinationAddressSlice())
	p.HopLimit, p.Protocol = h.TTL(), Protocol(h.Protocol())
	p.Transport = p.Network + int(h.HeaderLength())
	p.End = p.Network + int(h.TotalLength())
	if reason := checkOptions(h[header.IPv4MinimumSize:h.HeaderLength()]); reason != WellFormed {
		return reason
	}
	if !addressed(p.From, p.To) {
		return BadAddress
	}
	if h.More() || h.FragmentOffset() != 0 {
		part := Fragment{ID: uint32(h.ID()), Start: int(h.FragmentOffset()), More: h.More()}
		part.End = part.Start + p.End - p.Transport
		if !part.fits() {
			return BadFragment
		}
		p.Fragment = part
	}
	return p.parseUpper(frame)
}

// checkOptions walks the options, and refuses those by which a packet's destination is another one than it says.
func checkOptions(b []byte) Reason {
	for len(b) > 0 {
		switch b[0] {
		case optionEnd:
			return WellFormed
		case optionNop:
			b = b[1:]
			continue
		case optionLooseRoute, optionStrictRoute:
			return SourceRoute
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return BadIPv4Option
		}
		b = b[b[1]:]
	}
	return WellFormed
}

// fits reports whether the fragment can be part of a packet: not empty, all but the last a multiple of 8 bytes, and
// within the size of a packet.
func (f Fragment) fits() bool {
	size := f.End - f.Start
	return size > 0 && f.End <= maxPacket && (!f.More || size%8 == 0)
}

// addressed reports whether a packet on the wire may be from and to these addresses: not from a group of stations,
// not to nobody, not from or to a loopback.
func addressed(from, to netip.Addr) bool {
	return !from.IsMulticast() && !to.IsUnspecified() && !from.IsLoopback() && !to.IsLoopback() &&
		!from.Is4In6() && !to.Is4In6() && from != broadcast
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// ICMP's messages that are about another packet, by type: RFC 792. Redirects quote one too.
const (
	ICMPv4EchoReply   = uint8(header.ICMPv4EchoReply)
	ICMPv4Unreachable = uint8(header.ICMPv4DstUnreachable)
	ICMPv4Redirect    = uint8(header.ICMPv4Redirect)
	ICMPv4Echo        = uint8(header.ICMPv4Echo)
	ICMPv4Exceeded    = uint8(header.ICMPv4TimeExceeded)
	ICMPv4Parameter   = uint8(header.ICMPv4ParamProblem)
)

func (p *Packet) parseICMPv4(b []byte) Reason {
	if len(b) < header.ICMPv4MinimumSize {
		return BadICMP
	}
	p.ICMP.Type, p.ICMP.Code = b[0], b[1]
	switch p.ICMP.Type {
	case ICMPv4Echo, ICMPv4EchoReply:
		p.ICMP.ID = header.ICMPv4(b).Ident()
	case ICMPv4Unreachable, ICMPv4Redirect, ICMPv4Exceeded, ICMPv4Parameter:
		p.ICMP.Quoted = quoteIPv4(b[header.ICMPv4MinimumSize:])
	}
	return WellFormed
}

// quoteIPv4 reads a packet of which ICMP quotes the header and eight bytes or more. Its lengths are those of the whole
// packet, and routers have changed its checksum, so of both no use is made.
func quoteIPv4(b []byte) Quoted {
	if len(b) < header.IPv4MinimumSize || header.IPVersion(b) != header.IPv4Version {
		return Quoted{}
	}
	h := header.IPv4(b)
	size := int(h.HeaderLength())
	if size < header.IPv4MinimumSize || h.FragmentOffset() != 0 || len(b) < size+quotedBytes {
		return Quoted{}
	}
	q := Quoted{From: addr4(h.SourceAddressSlice()), To: addr4(h.DestinationAddressSlice()), Protocol: Protocol(h.Protocol())}
	q.ports(b[size:])
	return q
}

// quotedBytes is how much of a packet's payload an ICMP error quotes at least: RFC 792.
const quotedBytes = 8

// ports reads the first eight bytes after the IP header.
func (q *Quoted) ports(b []byte) {
	switch q.Protocol {
	case TCPProtocol, UDPProtocol:
		q.FromPort, q.ToPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case ICMPv4Protocol, ICMPv6Protocol:
		q.ID = binary.BigEndian.Uint16(b[4:])
	}
}
