package firewall

import (
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"krun.dev/krunpod/vnet/packet"
)

// MaxAnswer is the size of the largest answer.
const MaxAnswer = header.EthernetMinimumSize + header.IPv6MinimumSize + header.ICMPv6MinimumSize + maxQuoted

const (
	// maxQuoted is how much of a refused packet an ICMP error holds at most; of IPv4 no more than 576 bytes may come
	// of it (RFC 1812, section 4.3.2.3).
	maxQuoted = 512
	// hopLimit is that of answers, as of Linux's own packets.
	hopLimit = 64
)

// refusals a second, and at once, from each side: beyond it senders find out by waiting.
const (
	refusalRate  = 512
	refusalBurst = 512
)

// bucket holds tokens: one for each refusal.
type bucket struct {
	spent  int // of the burst
	refill time.Duration
}

// take reports whether there was a token.
func (b *bucket) take(now time.Duration) bool {
	idle := min(now-b.refill, time.Second*refusalBurst/refusalRate)
	if back := int(idle * refusalRate / time.Second); back > 0 {
		b.spent = max(0, b.spent-back)
		b.refill = now
	}
	if b.spent == refusalBurst {
		return false
	}
	b.spent++
	return true
}

// refuse writes the answer to a packet that was refused, as if from its destination, to buf: a reset or an ICMP error.
// It returns nil for what must not be answered (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
func refuse(p *packet.Packet, frame, buf []byte) []byte {
	if p.Destination.Multicast() || p.To.IsMulticast() || p.From.IsUnspecified() || p.Fragment.Start != 0 ||
		(isICMP(p) && !isEcho(p)) {
		return nil
	}
	if p.Protocol == packet.TCPProtocol {
		if p.TCP.Has(packet.RST) {
			return nil
		}
		upper := writeHeaders(p, buf, packet.TCPProtocol, header.TCPMinimumSize)
		writeReset(p, upper)
		return complete(p, buf, upper)
	}
	quoted := frame[p.Network:p.End]
	quoted = quoted[:min(len(quoted), maxQuoted)]
	protocol := packet.ICMPv4Protocol
	if p.Kind == packet.KindIPv6 {
		protocol = packet.ICMPv6Protocol
	}
	upper := writeHeaders(p, buf, protocol, header.ICMPv6MinimumSize+len(quoted))
	copy(upper[header.ICMPv6MinimumSize:], quoted)
	writeProhibited(p, upper)
	return complete(p, buf, upper)
}

// writeHeaders writes the headers of the answer to p but for checksums, and returns where size bytes of protocol come.
func writeHeaders(p *packet.Packet, buf []byte, protocol packet.Protocol, size int) []byte {
	copy(buf, p.Source[:])
	copy(buf[6:], p.Destination[:])
	ip := buf[header.EthernetMinimumSize:]
	if p.Kind == packet.KindIPv4 {
		buf[12], buf[13] = 0x08, 0x00
		header.IPv4(ip).Encode(&header.IPv4Fields{
			TotalLength: uint16(header.IPv4MinimumSize + size), TTL: hopLimit, Protocol: uint8(protocol),
			SrcAddr: address(p.To), DstAddr: address(p.From),
		})
		return zeroed(ip[header.IPv4MinimumSize:][:size])
	}
	buf[12], buf[13] = 0x86, 0xdd
	header.IPv6(ip).Encode(&header.IPv6Fields{
		PayloadLength: uint16(size), HopLimit: hopLimit, TransportProtocol: tcpip.TransportProtocolNumber(protocol),
		SrcAddr: address(p.To), DstAddr: address(p.From),
	})
	return zeroed(ip[header.IPv6MinimumSize:][:size])
}

func zeroed(b []byte) []byte {
	clear(b)
	return b
}

func address(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

// writeReset is RFC 9293, section 3.5.2, for a connection that does not exist.
func writeReset(p *packet.Packet, b []byte) {
	t := header.TCP(b)
	fields := header.TCPFields{
		SrcPort: p.ToPort, DstPort: p.FromPort, DataOffset: header.TCPMinimumSize, Flags: packet.RST,
	}
	if p.TCP.Has(packet.ACK) {
		fields.SeqNum = p.TCP.Ack
	} else {
		fields.Flags |= packet.ACK
		fields.AckNum = p.TCP.Seq + uint32(p.TCP.Payload)
		if p.TCP.Has(packet.SYN) {
			fields.AckNum++
		}
	}
	t.Encode(&fields)
	t.SetChecksum(^checksum.Checksum(b, pseudo(p, header.TCPProtocolNumber, len(b))))
}

// writeProhibited is "communication administratively prohibited".
func writeProhibited(p *packet.Packet, b []byte) {
	if p.Kind == packet.KindIPv4 {
		b[0], b[1] = packet.ICMPv4Unreachable, uint8(header.ICMPv4AdminProhibited)
		header.ICMPv4(b).SetChecksum(^checksum.Checksum(b, 0))
		return
	}
	b[0], b[1] = packet.ICMPv6Unreachable, uint8(header.ICMPv6Prohibited)
	header.ICMPv6(b).SetChecksum(^checksum.Checksum(b, pseudo(p, header.ICMPv6ProtocolNumber, len(b))))
}

func pseudo(p *packet.Packet, protocol tcpip.TransportProtocolNumber, size int) uint16 {
	return header.PseudoHeaderChecksum(protocol, address(p.To), address(p.From), uint16(size))
}

// complete writes the checksum of IPv4 and returns the whole answer, of which upper is the end.
func complete(p *packet.Packet, buf, upper []byte) []byte {
	size := header.EthernetMinimumSize + header.IPv6MinimumSize
	if p.Kind == packet.KindIPv4 {
		size = header.EthernetMinimumSize + header.IPv4MinimumSize
		ip := header.IPv4(buf[header.EthernetMinimumSize:])
		ip.SetChecksum(^ip.CalculateChecksum())
	}
	return buf[:size+len(upper)]
}
