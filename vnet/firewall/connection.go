package firewall

import (
	"net/netip"
	"slices"
	"time"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// flow names a connection, in the same way for the packets of both directions. Of an ICMP echo the identifier is the
// port of the side that asks, and the other port is 0, so that a reply is none to a question of its own side; of
// protocols without ports both are 0.
type flow struct {
	guest, peer         netip.Addr
	guestPort, peerPort uint16
	protocol            packet.Protocol
}

// connection is what is known of a flow.
type connection struct {
	// from is the direction of its first packet.
	from policy.Direction
	// joined says that the connection was there before its entry.
	joined bool
	// finished holds the directions in which a FIN was seen.
	finished [2]bool
}

// The classes of connections in their table. One that only one side has spoken in makes room for others when the
// table is full: a flood of them does not hurt those that are in use.
const (
	opening     = iota // TCP: SYN seen, or a connection that was there before its entry, of one side
	unanswered         // anything else, of which one side has been seen
	answering          // TCP: SYN and SYN-ACK seen
	closing            // TCP: both sides have been seen, and one FIN
	closed             // TCP: a reset or both FINs seen
	exchanging         // anything else, of which both sides have been seen
	established        // TCP: both sides have been seen
	lasting     = exchanging
)

// timeouts are as those of nf_conntrack (Documentation/networking/nf_conntrack-sysctl.rst), but for established: there
// it is five days. The usual keepalive, after two hours, keeps a connection.
var timeouts = []time.Duration{
	opening:     60 * time.Second,
	unanswered:  30 * time.Second,
	answering:   60 * time.Second,
	closing:     120 * time.Second,
	closed:      60 * time.Second,
	exchanging:  120 * time.Second,
	established: 24 * time.Hour,
}

// flowOf names the connection that p, on its way in direction d, is of.
func flowOf(d policy.Direction, p *packet.Packet) flow {
	k := flow{guest: p.From, peer: p.To, guestPort: p.FromPort, peerPort: p.ToPort, protocol: p.Protocol}
	if d == policy.Ingress {
		k = flow{guest: p.To, peer: p.From, guestPort: p.ToPort, peerPort: p.FromPort, protocol: p.Protocol}
	}
	if isEcho(p) {
		if asks := !isReply(p); asks == (d == policy.Egress) {
			k.guestPort = p.ICMP.ID
		} else {
			k.peerPort = p.ICMP.ID
		}
	}
	return k
}

// track judges a whole packet, or a first fragment, by its connection and, if it has none, by the rules.
func (f *Firewall) track(d policy.Direction, p *packet.Packet, now time.Duration) Cause {
	if isICMP(p) && !isEcho(p) {
		return f.related(d, p, now)
	}
	key := flowOf(d, p)
	s := f.connections.get(key, now)
	if s == nil {
		return f.begin(d, p, key, now)
	}
	if p.Protocol == packet.TCPProtocol {
		return f.segment(d, p, s, now)
	}
	class := int(s.class)
	if s.value.from != d {
		class = exchanging
	}
	f.connections.move(s, class, now)
	return passed
}

// begin judges a packet that has no connection, and makes one.
func (f *Firewall) begin(d policy.Direction, p *packet.Packet, key flow, now time.Duration) Cause {
	class := unanswered
	switch {
	case d == policy.Ingress && slices.Contains(f.nameservers, netip.AddrPortFrom(p.From, p.FromPort)):
		return ForResolver
	case isICMP(p) && isReply(p):
		return Unsolicited
	case p.Protocol == packet.TCPProtocol:
		if p.TCP.Has(packet.SYN | packet.ACK) {
			return Unsolicited
		}
		class = opening
	}
	if f.names {
		if d == policy.Egress && p.Protocol == packet.UDPProtocol && p.ToPort == portDNS && !p.Fragment.Split() {
			return query
		}
		// Nor from such a port: whoever sends as a nameserver would have opened it for the guest's queries, as answers.
		port := p.ToPort
		if d == policy.Ingress {
			port = p.FromPort
		}
		if port == portDNS || port == portDNSOverTLS {
			return OtherDNS
		}
	}
	if f.decide(d, p) != policy.Allow {
		return Refused
	}
	if d == policy.Egress && f.gateway.IsValid() && p.To == f.gateway && p.Protocol == packet.UDPProtocol && p.ToPort == portDNS {
		if p.Fragment.Split() {
			return OtherDNS // the resolver does not put it together, and nothing else there may get it
		}
		return query
	}
	if p.Protocol == packet.TCPProtocol && p.TCP.Has(packet.RST) {
		return passed // and nothing comes after it
	}
	c := connection{from: d, joined: class == opening && !p.TCP.Has(packet.SYN)}
	if f.connections.add(key, c, class, now) == nil {
		return TableFull
	}
	return passed
}

// Ports of DNS: RFC 1035, RFC 7858 and RFC 9250.
const (
	portDNS        = 53
	portDNSOverTLS = 853
)

// decide holds the first packet of a connection against the rules.
func (f *Firewall) decide(d policy.Direction, p *packet.Packet) policy.Action {
	peer := p.To
	if d == policy.Ingress {
		peer = p.From
	}
	for i := range f.policy.Rules {
		r := &f.policy.Rules[i]
		if !r.Covers(d, p.Protocol, p.ToPort) {
			continue
		}
		if r.CoversAddress(peer) || (r.Name != "" && f.openings.isOpen(peer, i)) {
			return r.Action
		}
	}
	return f.policy.Default[d]
}

// segment judges a TCP segment of a connection and follows its state.
func (f *Firewall) segment(d policy.Direction, p *packet.Packet, s *slot[flow, connection], now time.Duration) Cause {
	ours := s.value.from == d
	switch {
	case p.TCP.Has(packet.SYN | packet.ACK):
		if ours || s.class == closed {
			return Unsolicited
		}
		if s.class == opening {
			f.connections.move(s, answering, now)
		}
		return passed
	case p.TCP.Has(packet.SYN):
		return f.openAgain(d, p, s, now)
	case s.class == closed:
		return passed // what was under way; it does not make the entry last
	case p.TCP.Has(packet.RST):
		f.connections.move(s, closed, now)
		return passed
	}
	return f.proceed(d, p, s, now)
}

// proceed judges a segment with ACK alone or with FIN of a connection that is not closed.
func (f *Firewall) proceed(d policy.Direction, p *packet.Packet, s *slot[flow, connection], now time.Duration) Cause {
	class, ours := int(s.class), s.value.from == d
	if class == opening && !ours && !s.value.joined {
		if p.TCP.Has(packet.FIN) || p.TCP.Payload > 0 {
			return Unsolicited // it speaks before it has answered
		}
		return passed // "that is another connection", RFC 9293 section 3.5.1
	}
	if (class == opening && !ours) || (class == answering && ours) {
		class = established
	}
	if p.TCP.Has(packet.FIN) {
		s.value.finished[d] = true
	}
	switch egress, ingress := s.value.finished[policy.Egress], s.value.finished[policy.Ingress]; {
	case egress && ingress:
		class = closed
	case (egress || ingress) && class == established:
		class = closing // what is half closed and silent must not last: its other end may be gone, and tells nobody
	}
	f.connections.move(s, class, now)
	return passed
}

// openAgain judges a SYN in a connection that has an entry. From the side that began it, in its handshake, it is the same
// one again. Any other SYN wants another connection: one with the same ports, or one in the other direction, of which
// the entry says nothing: without a look at the rules a guest could connect to whoever connects to it.
func (f *Firewall) openAgain(d policy.Direction, p *packet.Packet, s *slot[flow, connection], now time.Duration) Cause {
	switch {
	case s.class == closed || s.class == closing:
		key := s.key
		f.connections.remove(s)
		return f.begin(d, p, key, now)
	case s.value.from == d && s.class == opening:
		s.used = now
		return passed
	case s.value.from == d && s.class == answering:
		return passed
	case f.decide(d, p) != policy.Allow:
		return Refused
	}
	return passed
}
