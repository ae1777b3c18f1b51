package packet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// minFrame is the size of the smallest frame of Ethernet, without its checksum: stations pad what is shorter (IEEE 802.3, 4.2.3.3).
const minFrame = 60

// padded reports whether nothing follows a message that ends at end but zeros, up to minFrame.
func padded(frame []byte, end int) bool {
	return (len(frame) == end || len(frame) <= minFrame) && zeros(frame[end:])
}

func zeros(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// Options of neighbour discovery: those that give a hardware address (RFC 4861 section 4.6.1), and the nonce by which a station
// knows its own probe again (RFC 7527), which Linux puts into one.
const (
	optionSourceMAC = 1
	optionTargetMAC = 2
	optionNonce     = 14
)

// solicitedNodes are the groups that stations are asked in: RFC 4291 section 2.7.1.
var solicitedNodes = netip.MustParsePrefix("ff02::1:ff00:0/104")

// SolicitedNode is the group in which a station with an address is asked for it.
func SolicitedNode(a netip.Addr) netip.Addr {
	group, from := solicitedNodes.Addr().As16(), a.As16()
	copy(group[13:], from[13:])
	return netip.AddrFrom16(group)
}

// parseNeighbour reads neighbour discovery and checks what sections 6.1, 7.1 and 8.1 of RFC 4861 tell each receiver to
// check, and RFC 6980: it is never fragmented.
func (p *Packet) parseNeighbour(b []byte) Reason {
	n := &p.Neighbour
	n.Type = uint16(p.ICMP.Type)
	if p.HopLimit != header.NDPHopLimit || p.ICMP.Code != 0 || p.Fragment != (Fragment{}) {
		return BadNeighbour
	}
	fixed, gives := 8, byte(optionSourceMAC)
	switch p.ICMP.Type {
	case ICMPv6RouterAdvert:
		fixed = 16
	case ICMPv6NeighborSol:
		fixed = 24
	case ICMPv6NeighborAdv:
		fixed, gives = 24, optionTargetMAC
	case ICMPv6Redirect:
		fixed, gives = 40, optionTargetMAC
	}
	if len(b) < fixed {
		return BadNeighbour
	}
	if fixed >= 24 {
		n.Target = addr6(b[8:24])
		if n.Target.IsMulticast() {
			return BadNeighbour
		}
	}
	n.Plain = p.Transport == p.Network+header.IPv6MinimumSize && plainReserved(p.ICMP.Type, b)
	if reason := p.neighbourOptions(b[fixed:], gives); reason != WellFormed {
		return reason
	}
	// A station without an address has none to give, and asks in the group.
	if p.From.IsUnspecified() && (n.HasMAC || (p.ICMP.Type == ICMPv6NeighborSol && !solicitedNodes.Contains(p.To))) {
		return BadNeighbour
	}
	return WellFormed
}

// plainReserved reports whether what a message has no use for is zero.
func plainReserved(kind uint8, b []byte) bool {
	const flags = 0xe0 // router, solicited, override
	if kind == ICMPv6NeighborAdv {
		return b[4]&^flags == 0 && zeros(b[5:8])
	}
	return zeros(b[4:8])
}

// neighbourOptions reads the hardware address in the option gives. Two that differ are malformed: receivers do not
// agree on which one counts.
func (p *Packet) neighbourOptions(b []byte, gives byte) Reason {
	n := &p.Neighbour
	nonce := p.ICMP.Type != ICMPv6NeighborSol // there was one, or there may be none
	for len(b) > 0 {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return BadNeighbour
		}
		switch {
		case b[0] == gives:
			mac := MAC(b[2:8])
			if n.HasMAC && mac != n.MAC {
				return BadNeighbour
			}
			n.Plain = n.Plain && !n.HasMAC && b[1] == 1
			n.MAC, n.HasMAC = mac, true
		case b[0] == optionNonce && !nonce && b[1] == 1:
			nonce = true
		default:
			n.Plain = false
		}
		b = b[int(b[1])*8:]
	}
	return WellFormed
}

// Sizes in messages of multicast listener discovery, in bytes: of a report of version 1 (RFC 2710, section 3), and of the header of
// one of version 2 and of each of its records without sources (RFC 3810, section 5.2).
const (
	listenerSize       = 24
	listenerHeader     = 8
	listenerRecord     = 20
	listenerExtensions = 8 // of a hop-by-hop header with a router alert, which reports have
)

// parseListener looks whether what a listener says is plain; receivers take more (RFC 3810, section 6.2).
func (p *Packet) parseListener(b []byte) {
	n := &p.Neighbour
	n.Type = uint16(p.ICMP.Type)
	n.Plain = p.ICMP.Code == 0 && p.Transport <= p.Network+header.IPv6MinimumSize+listenerExtensions
	if p.ICMP.Type != ICMPv6ListenerV2 {
		if len(b) >= listenerSize {
			n.Target = addr6(b[8:])
		}
		n.Plain = n.Plain && len(b) == listenerSize && zeros(b[4:8]) && n.Target.IsMulticast()
		return
	}
	n.Plain = n.Plain && zeros(b[4:6]) && plainRecords(b[listenerHeader:], int(binary.BigEndian.Uint16(b[6:])))
}

// plainRecords reports whether b is that many records, without auxiliary data.
func plainRecords(b []byte, records int) bool {
	for ; records > 0; records-- {
		if len(b) < listenerRecord || b[1] != 0 || !addr6(b[4:listenerRecord]).IsMulticast() {
			return false
		}
		size := listenerRecord + int(binary.BigEndian.Uint16(b[2:]))*header.IPv6AddressSize
		if size > len(b) {
			return false
		}
		b = b[size:]
	}
	return len(b) == 0
}
