package packet

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Headers that may stand between the IPv6 header and what it carries: IANA, IPv6 extension header types. Those that
// are not here end the chain: a policy judges them as a protocol of their own (ESP and AH among them).
const (
	extensionHopByHop    = 0
	extensionRouting     = 43
	extensionFragment    = 44
	extensionDestination = 60
	noNextHeader         = 59
)

// maxExtensions is the most extension headers of a packet: RFC 8200 section 4.1 has a use for five.
const maxExtensions = 6

func addr6(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:header.IPv6AddressSize])) }

func (p *Packet) parseIPv6(frame []byte) Reason {
	h := header.IPv6(frame[p.Network:])
	if !h.IsValid(len(h)) {
		return BadIPv6Header
	}
	p.From, p.To = addr6(h.SourceAddressSlice()), addr6(h.DestinationAddressSlice())
	p.HopLimit = h.HopLimit()
	p.Transport = p.Network + header.IPv6MinimumSize
	p.End = p.Transport + int(h.PayloadLength())
	if !addressed(p.From, p.To) {
		return BadAddress
	}
	if p.Transport == p.End && h.NextHeader() != noNextHeader {
		return BadIPv6Header // also a jumbogram, RFC 2675
	}
	if reason := p.skipExtensions(frame, h.NextHeader()); reason != WellFormed {
		if p.Fragment.More && reason == BadExtension {
			return SplitHeader
		}
		return reason
	}
	return p.parseUpper(frame)
}

// skipExtensions moves p.Transport behind the extension headers, of which next is the first.
func (p *Packet) skipExtensions(frame []byte, next uint8) Reason {
	for n := 0; ; n++ {
		p.Protocol = Protocol(next)
		if !extension(next) {
			return WellFormed
		}
		// Every extension header has eight bytes or more, and the next one's type in its first.
		b := frame[p.Transport:p.End]
		if n == maxExtensions || len(b) < 8 || (next == extensionHopByHop && n > 0) {
			return BadExtension
		}
		size := 8
		switch next {
		case extensionRouting:
			// Type 0 is deprecated (RFC 5095); with segments left the packet is not for whom it says.
			if b[2] == 0 || b[3] != 0 {
				return SourceRoute
			}
			size += int(b[1]) * 8
		case extensionFragment:
			if reason := p.fragment(b); reason != WellFormed {
				return reason
			}
			if p.Fragment.Start != 0 {
				p.Protocol = Protocol(b[0])
				p.Transport += size
				return WellFormed
			}
		default:
			size += int(b[1]) * 8
		}
		if size > len(b) {
			return BadExtension
		}
		next = b[0]
		p.Transport += size
	}
}

func extension(next uint8) bool {
	switch next {
	case extensionHopByHop, extensionRouting, extensionFragment, extensionDestination:
		return true
	}
	return false
}

// fragment reads the fragment header at the start of b, which lasts until the end of the packet.
func (p *Packet) fragment(b []byte) Reason {
	if p.Fragment != (Fragment{}) {
		return BadExtension // a second one
	}
	h := header.IPv6Fragment(b)
	part := Fragment{ID: h.ID(), Start: int(h.FragmentOffset()) * 8, More: h.More()}
	part.End = part.Start + len(b) - header.IPv6FragmentHeaderSize
	if !part.fits() {
		return BadFragment
	}
	p.Fragment = part
	return WellFormed
}

// ICMPv6's messages: RFC 4443, RFC 4861, RFC 2710, RFC 3810.
const (
	ICMPv6Unreachable    = uint8(header.ICMPv6DstUnreachable)
	ICMPv6TooBig         = uint8(header.ICMPv6PacketTooBig)
	ICMPv6Exceeded       = uint8(header.ICMPv6TimeExceeded)
	ICMPv6Parameter      = uint8(header.ICMPv6ParamProblem)
	ICMPv6Echo           = uint8(header.ICMPv6EchoRequest)
	ICMPv6EchoReply      = uint8(header.ICMPv6EchoReply)
	ICMPv6ListenerQuery  = uint8(130)
	ICMPv6ListenerReport = uint8(131)
	ICMPv6ListenerDone   = uint8(132)
	ICMPv6RouterSolicit  = uint8(header.ICMPv6RouterSolicit)
	ICMPv6RouterAdvert   = uint8(header.ICMPv6RouterAdvert)
	ICMPv6NeighborSol    = uint8(header.ICMPv6NeighborSolicit)
	ICMPv6NeighborAdv    = uint8(header.ICMPv6NeighborAdvert)
	ICMPv6Redirect       = uint8(header.ICMPv6RedirectMsg)
	ICMPv6ListenerV2     = uint8(143)
)

func (p *Packet) parseICMPv6(b []byte) Reason {
	if len(b) < header.ICMPv6MinimumSize {
		return BadICMP
	}
	p.ICMP.Type, p.ICMP.Code = b[0], b[1]
	switch t := p.ICMP.Type; {
	case t == ICMPv6Echo || t == ICMPv6EchoReply:
		p.ICMP.ID = header.ICMPv6(b).Ident()
	case t >= ICMPv6Unreachable && t <= ICMPv6Parameter:
		p.ICMP.Quoted = quoteIPv6(b[header.ICMPv6MinimumSize:])
	case t >= ICMPv6RouterSolicit && t <= ICMPv6Redirect:
		return p.parseNeighbour(b)
	case t >= ICMPv6ListenerQuery && t <= ICMPv6ListenerDone, t == ICMPv6ListenerV2:
		p.parseListener(b)
	}
	return WellFormed
}

// quoteIPv6 reads a packet that ICMPv6 quotes; one with extension headers is not read.
func quoteIPv6(b []byte) Quoted {
	if len(b) < header.IPv6MinimumSize+quotedBytes || header.IPVersion(b) != header.IPv6Version {
		return Quoted{}
	}
	h := header.IPv6(b)
	if extension(h.NextHeader()) {
		return Quoted{}
	}
	q := Quoted{From: addr6(h.SourceAddressSlice()), To: addr6(h.DestinationAddressSlice()), Protocol: Protocol(h.NextHeader())}
	q.ports(b[header.IPv6MinimumSize:])
	return q
}
