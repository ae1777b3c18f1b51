package firewall

import (
	"net/netip"

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

// checkLink judges ARP and what linkMessage is about.
func (f *Firewall) checkLink(d policy.Direction, p *packet.Packet) Cause {
	if p.Kind == packet.KindIPv6 && p.ICMP.Type == packet.ICMPv6Redirect {
		return Redirect
	}
	if d == policy.Egress {
		return f.checkClaim(p)
	}
	// Nobody else may say where the guest's addresses are, or speak as them.
	if f.owns(p.From) || (p.Neighbour.Type == uint16(packet.ICMPv6NeighborAdv) && f.owns(p.Neighbour.Target)) {
		return Forged
	}
	return passed
}

// checkClaim judges what the guest says of itself to its neighbours. A station that does not have its address yet
// speaks as nobody: RFC 5227, RFC 4862.
func (f *Firewall) checkClaim(p *packet.Packet) Cause {
	if !f.owns(p.From) && !p.From.IsUnspecified() {
		return SpoofedAddress
	}
	if p.Neighbour.HasMAC && p.Neighbour.MAC != f.mac {
		return Forged
	}
	if p.Kind == packet.KindARP {
		return passed
	}
	switch p.ICMP.Type {
	case packet.ICMPv6RouterAdvert, packet.ICMPv6ListenerQuery:
		return Forged
	case packet.ICMPv6NeighborAdv:
		if !f.owns(p.Neighbour.Target) {
			return Forged
		}
	case packet.ICMPv6ListenerReport, packet.ICMPv6ListenerDone, packet.ICMPv6ListenerV2:
		if !p.To.IsMulticast() || p.HopLimit != 1 {
			return Forged // RFC 3810 section 5: within the link
		}
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
