package firewall

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"krun.dev/krunpod/vnet/packet"
)

// MaxAnswer is the size of the largest answer.
const MaxAnswer = packet.MaxReplyHeaders + header.ICMPv6MinimumSize + maxQuoted

// maxQuoted is how much of a refused packet an ICMP error holds at most; of IPv4 no more than 576 bytes may come
// of it (RFC 1812, section 4.3.2.3).
const maxQuoted = 512

// refusalRate is how many refusals are told of in a second, and at once, to each side: beyond it senders find out by waiting.
const refusalRate = 512

// bucket holds tokens: rate of them, and as many come back in a second.
type bucket struct {
	rate, spent int
	refill      time.Duration
}

// take reports whether there was a token.
func (b *bucket) take(now time.Duration) bool {
	idle := min(now-b.refill, time.Second)
	if back := int(idle * time.Duration(b.rate) / time.Second); back > 0 {
		b.spent = max(0, b.spent-back)
		b.refill = now
	}
	if b.spent == b.rate {
		return false
	}
	b.spent++
	return true
}

// refuse writes the answer to a packet that was refused, as if from its destination, to buf: a reset or an ICMP error.
// It returns nil for what must not be answered (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
func refuse(p *packet.Packet, frame, buf []byte) []byte {
	if !p.Answerable() || p.Fragment.Start != 0 || (isICMP(p) && !isEcho(p)) {
		return nil
	}
	if p.Protocol == packet.TCPProtocol {
		if p.TCP.Has(packet.RST) {
			return nil
		}
		upper := p.StartReply(buf, packet.TCPProtocol, header.TCPMinimumSize)
		writeReset(p, upper)
		return p.FinishReply(buf, upper)
	}
	quoted := frame[p.Network:p.End]
	quoted = quoted[:min(len(quoted), maxQuoted)]
	protocol := packet.ICMPv4Protocol
	if p.Kind == packet.KindIPv6 {
		protocol = packet.ICMPv6Protocol
	}
	upper := p.StartReply(buf, protocol, header.ICMPv6MinimumSize+len(quoted))
	copy(upper[header.ICMPv6MinimumSize:], quoted)
	writeProhibited(p, upper)
	return p.FinishReply(buf, upper)
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
	t.SetChecksum(^checksum.Checksum(b, p.ReplyChecksum(packet.TCPProtocol, len(b))))
}

// writeProhibited is "communication administratively prohibited".
func writeProhibited(p *packet.Packet, b []byte) {
	if p.Kind == packet.KindIPv4 {
		b[0], b[1] = packet.ICMPv4Unreachable, uint8(header.ICMPv4AdminProhibited)
		header.ICMPv4(b).SetChecksum(^checksum.Checksum(b, 0))
		return
	}
	b[0], b[1] = packet.ICMPv6Unreachable, uint8(header.ICMPv6Prohibited)
	header.ICMPv6(b).SetChecksum(^checksum.Checksum(b, p.ReplyChecksum(packet.ICMPv6Protocol, len(b))))
}
