package firewall

import (
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// owns reports whether a is an address of the guest: there are a handful.
func (f *Firewall) owns(a netip.Addr) bool {
	for _, own := range f.addresses {
		if own == a {
			return true
		}
	}
	return false
}

// checkSender looks at the hardware addresses.
func (f *Firewall) checkSender(d policy.Direction, p *packet.Packet) Cause {
	if (p.Source == f.mac) != (d == policy.Egress) && !f.sentBack(d, p) {
		return SpoofedMAC
	}
	if d == policy.Ingress && p.Destination != f.mac && !p.Destination.Multicast() {
		return NotAddressed
	}
	return passed
}

// sentBack reports whether the network may have sent p back to the guest: a bridge whose packets the node's netfilter translates
// (net.bridge.bridge-nf-call-iptables, which Kubernetes asks for) leaves the hardware address of the sender on what it turns round,
// such as a connection of a pod to itself through a Service. What it turns round as it was, a group's frame, is not for the guest.
func (f *Firewall) sentBack(d policy.Direction, p *packet.Packet) bool {
	return d == policy.Ingress && p.Destination == f.mac && p.Kind != packet.KindARP && !linkMessage(p)
}

// checkAddresses looks at the addresses of an IP packet that is no message of the link.
func (f *Firewall) checkAddresses(d policy.Direction, p *packet.Packet) Cause {
	if f.owns(p.From) != (d == policy.Egress) {
		return SpoofedAddress
	}
	if d == policy.Egress {
		return passed
	}
	// A broadcast address of a subnet comes with a group's hardware address.
	if !f.owns(p.To) && !p.To.IsMulticast() && (!p.Destination.Multicast() || !p.To.Is4()) {
		return NotAddressed
	}
	return passed
}

// linkMessage reports whether p is of neighbour discovery or multicast listener discovery: what makes the link work,
// and no rule is about.
func linkMessage(p *packet.Packet) bool {
	if p.Kind != packet.KindIPv6 || p.Protocol != packet.ICMPv6Protocol || p.Fragment.Split() {
		return false
	}
	switch t := p.ICMP.Type; t {
	case packet.ICMPv6ListenerQuery, packet.ICMPv6ListenerReport, packet.ICMPv6ListenerDone, packet.ICMPv6ListenerV2:
		return true
	default:
		return t >= packet.ICMPv6RouterSolicit && t <= packet.ICMPv6Redirect
	}
}

// Groups of the link: RFC 4291 section 2.7.1, RFC 3810 section 5.2.14.
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
	allReports = netip.MustParseAddr("ff02::16")
)

// Bounds on messages of the link: those of the guest in a second, and at once, and the neighbours of IPv6 that are remembered, and
// for how long. A busy station asks a handful of neighbours, and a kernel asks each of them again within minutes of its use.
const (
	claimRate        = 256
	maxNeighbours    = 1024
	neighbourTimeout = 24 * time.Hour
)

// checkLink judges ARP and what linkMessage is about.
func (f *Firewall) checkLink(d policy.Direction, p *packet.Packet, now time.Duration) Cause {
	if p.Kind == packet.KindIPv6 && p.ICMP.Type == packet.ICMPv6Redirect {
		return Redirect
	}
	if d == policy.Egress {
		cause := f.checkClaim(p, now)
		if cause == passed && !f.claims.take(now) {
			return LinkFlood
		}
		return cause
	}
	// Nobody else may say where the guest's addresses are, or speak as them.
	if f.owns(p.From) || (p.Neighbour.Type == uint16(packet.ICMPv6NeighborAdv) && f.owns(p.Neighbour.Target)) {
		return Forged
	}
	f.meet(p, now)
	return passed
}

// meet remembers the sender of neighbour discovery from the network. Its hop limit, which package packet has looked at, says that no
// router has sent it on: so the sender is on the link.
func (f *Firewall) meet(p *packet.Packet, now time.Duration) {
	if p.Kind != packet.KindIPv6 || p.HopLimit != header.NDPHopLimit {
		return
	}
	list := []netip.Addr{p.From, p.Neighbour.Target}
	if p.Neighbour.Type != uint16(packet.ICMPv6NeighborAdv) {
		list = list[:1]
	}
	for _, a := range list {
		if s := f.neighbours.get(a, now); s != nil {
			f.neighbours.move(s, 0, now)
		} else if a.IsGlobalUnicast() {
			f.neighbours.add(a, struct{}{}, 0, now)
		}
	}
}

// near reports whether a is on the link, as far as is known.
func (f *Firewall) near(a netip.Addr, now time.Duration) bool {
	return a.IsLinkLocalUnicast() || f.neighbours.get(a, now) != nil
}

// checkClaim judges what the guest says of itself to its neighbours, and what it asks them. No rule is about it, so it must have
// room for nothing else and stay on the link: a router sends on whatever is not for a group of the link.
func (f *Firewall) checkClaim(p *packet.Packet, now time.Duration) Cause {
	n := &p.Neighbour
	// A station that does not have its address yet speaks as nobody: RFC 5227, RFC 4862.
	fresh := p.From.IsUnspecified()
	if !f.owns(p.From) && !fresh {
		return SpoofedAddress
	}
	if (n.HasMAC && n.MAC != f.mac) || !n.Plain {
		return Forged
	}
	ok := false
	switch {
	case p.Kind == packet.KindARP:
		// Who probes an address of another makes it believe that it has a rival: RFC 5227, section 2.4.
		ok = !fresh || (n.Type == packet.ARPRequest && f.owns(p.To))
	case p.ICMP.Type == packet.ICMPv6RouterSolicit:
		ok = p.To == allRouters
	case p.ICMP.Type == packet.ICMPv6NeighborSol:
		ok = (!fresh || f.owns(n.Target)) && // a probe, RFC 4862 section 5.4.3
			(p.To == packet.SolicitedNode(n.Target) || (p.To == n.Target && f.near(p.To, now)))
	case p.ICMP.Type == packet.ICMPv6NeighborAdv:
		ok = f.owns(n.Target) && (p.To == allNodes || f.near(p.To, now))
	case p.HopLimit != 1: // RFC 3810 section 5: within the link
	case p.ICMP.Type == packet.ICMPv6ListenerReport:
		ok = p.To == n.Target
	case p.ICMP.Type == packet.ICMPv6ListenerDone:
		ok = p.To == allRouters
	case p.ICMP.Type == packet.ICMPv6ListenerV2:
		ok = p.To == allReports
	}
	if !ok {
		return Forged
	}
	return passed
}

// The ports of DHCP: RFC 2131, section 4.1.
const (
	portDHCPServer = 67
	portDHCPClient = 68
)

// leases reports whether p is of DHCP between the guest, which may not have its address yet, and its gateway.
func (f *Firewall) leases(d policy.Direction, p *packet.Packet) bool {
	if !f.gateway.IsValid() || p.Protocol != packet.UDPProtocol || p.Fragment.Split() || !p.From.Is4() {
		return false
	}
	if d == policy.Ingress {
		return p.From == f.gateway && p.FromPort == portDHCPServer && p.ToPort == portDHCPClient
	}
	return p.FromPort == portDHCPClient && p.ToPort == portDHCPServer && (p.From.IsUnspecified() || f.owns(p.From)) &&
		(p.To == f.gateway || p.To == broadcast)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
