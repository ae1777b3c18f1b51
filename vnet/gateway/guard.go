package gateway

import (
	"maps"
	"net/netip"
	"slices"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// shut are destinations that a guest cannot have, whatever its policy says: the gateway would connect to them from the host, where
// they are the host's own, a link's (a cloud's metadata service), or nobody's. The network has no IPv6.
var shut = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/0"),
}

const portDNS = 53

// Guard is a policy for a guest on the network: p, nil for none, within what any guest may do there. Of the gateway the guest reaches
// services and DNS, if p allows them, and ICMP. It has rules before those of p: whoever names a rule by its index means one of it.
func (c *Config) Guard(p *policy.Policy, services Services) *policy.Policy {
	if p == nil {
		p = &policy.Policy{Default: [2]policy.Action{policy.Allow, policy.Allow}}
	}
	gateway := c.Address().Addr()
	own := netip.PrefixFrom(gateway, gateway.BitLen())
	rule := func(a policy.Action, protocol policy.Protocol, peer netip.Prefix, ports ...uint16) policy.Rule {
		r := policy.Rule{Action: a, Direction: policy.Egress, Protocol: protocol, Peer: peer}
		for _, port := range ports {
			r.Ports = append(r.Ports, policy.Ports{First: port, Last: port})
		}
		return r
	}
	var rules []policy.Rule
	for _, peer := range shut {
		rules = append(rules, rule(policy.Deny, policy.Any, peer))
	}
	rules = append(rules, rule(policy.Allow, policy.ICMP, own))
	if p.Decide(policy.Egress, packet.UDPProtocol, gateway, portDNS) == policy.Allow {
		rules = append(rules, rule(policy.Allow, policy.UDP, own, portDNS))
	}
	for _, port := range slices.Sorted(maps.Keys(services)) {
		if p.Decide(policy.Egress, packet.TCPProtocol, gateway, port) == policy.Allow {
			rules = append(rules, rule(policy.Allow, policy.TCP, own, port))
		}
	}
	// Nobody else is on the network, and an echo of what lies beyond could only be one of the gateway.
	rules = append(rules, rule(policy.Deny, policy.Any, c.subnet()), rule(policy.Deny, policy.ICMP, netip.Prefix{}))
	return &policy.Policy{Rules: append(rules, p.Rules...), Default: p.Default}
}
