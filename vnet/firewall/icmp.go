package firewall

import (
	"time"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

func isICMP(p *packet.Packet) bool {
	return p.Protocol == packet.ICMPv4Protocol || p.Protocol == packet.ICMPv6Protocol
}

// isEcho reports whether p is an echo request or reply.
func isEcho(p *packet.Packet) bool {
	switch p.Protocol {
	case packet.ICMPv4Protocol:
		return p.ICMP.Type == packet.ICMPv4Echo || p.ICMP.Type == packet.ICMPv4EchoReply
	case packet.ICMPv6Protocol:
		return p.ICMP.Type == packet.ICMPv6Echo || p.ICMP.Type == packet.ICMPv6EchoReply
	}
	return false
}

// isReply reports whether the echo p is a reply.
func isReply(p *packet.Packet) bool {
	if p.Protocol == packet.ICMPv4Protocol {
		return p.ICMP.Type == packet.ICMPv4EchoReply
	}
	return p.ICMP.Type == packet.ICMPv6EchoReply
}

// isError reports whether p is an ICMP error.
func isError(p *packet.Packet) bool {
	if p.Protocol == packet.ICMPv4Protocol {
		switch p.ICMP.Type {
		case packet.ICMPv4Unreachable, packet.ICMPv4Exceeded, packet.ICMPv4Parameter:
			return true
		}
		return false
	}
	return p.ICMP.Type >= packet.ICMPv6Unreachable && p.ICMP.Type <= packet.ICMPv6Parameter
}

// related judges an ICMP message that is no echo: an error passes if it is about a packet of a connection, sent by
// whom it is for.
func (f *Firewall) related(d policy.Direction, p *packet.Packet, now time.Duration) Cause {
	if p.Protocol == packet.ICMPv4Protocol && p.ICMP.Type == packet.ICMPv4Redirect {
		return Redirect
	}
	if !isError(p) {
		return OtherICMP
	}
	q := &p.ICMP.Quoted
	if !q.From.IsValid() || q.From != p.To {
		return Unsolicited
	}
	// The quoted packet went in the other direction.
	key := flow{guest: q.To, peer: q.From, guestPort: q.ToPort, peerPort: q.FromPort, protocol: q.Protocol}
	if d == policy.Ingress {
		key = flow{guest: q.From, peer: q.To, guestPort: q.FromPort, peerPort: q.ToPort, protocol: q.Protocol}
	}
	if f.connections.get(key, now) != nil {
		return passed
	}
	if q.Protocol == packet.ICMPv4Protocol || q.Protocol == packet.ICMPv6Protocol {
		// An echo, asked for by either side.
		key.guestPort = q.ID
		if f.connections.get(key, now) != nil {
			return passed
		}
		key.guestPort, key.peerPort = 0, q.ID
		if f.connections.get(key, now) != nil {
			return passed
		}
	}
	return Unsolicited
}
