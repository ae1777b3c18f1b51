package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"krun.dev/krunpod/vnet/packet"
)

// Direction is that of a connection's first packet, not of each of its packets.
type Direction uint8

// The directions, as the pod sees them.
const (
	Egress Direction = iota
	Ingress
	directions
)

var directionNames = [directions]string{"egress", "ingress"}

func (d Direction) String() string { return directionNames[d] }

// Action is what happens with a connection.
type Action uint8

// The actions. What is denied is refused at once, with a TCP reset or an ICMP error.
const (
	Deny Action = iota
	Allow
)

var actionNames = [...]string{"deny", "allow"}

func (a Action) String() string { return actionNames[a] }

// Protocol is what a rule is about.
type Protocol uint8

// The protocols. ICMP is that of the family of the address.
const (
	Any Protocol = iota
	TCP
	UDP
	ICMP
)

var protocolNames = [...]string{"any", "tcp", "udp", "icmp"}

func (p Protocol) String() string { return protocolNames[p] }

// Policy is what a pod may do, in a fixed form: the first rule that covers a connection decides, Default if none does.
type Policy struct {
	Rules   []Rule
	Default [directions]Action
}

// Rule allows or denies connections.
type Rule struct {
	Action    Action
	Direction Direction
	Protocol  Protocol
	// Peer holds the addresses of the other end. The zero value is all of them, unless there is a Name.
	Peer netip.Prefix
	// Name is the DNS name of the other end in lower case without a final dot, or a pattern "*.SUFFIX".
	Name string
	// Ports are those of the connection's destination; none means all. With ports, Any is TCP and UDP.
	Ports []Ports
}

// Ports is a range with both ends in it.
type Ports struct{ First, Last uint16 }

// Names reports whether a rule names its peer, so that the vnet must see the DNS of the pod.
func (p *Policy) Names() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Name != "" })
}

// Covers reports whether r is about connections of a protocol in a direction to a port (0 if the protocol has none).
// What it says of the peer is not looked at.
func (r *Rule) Covers(d Direction, protocol packet.Protocol, port uint16) bool {
	if r.Direction != d {
		return false
	}
	hasPorts := protocol == packet.TCPProtocol || protocol == packet.UDPProtocol
	switch r.Protocol {
	case TCP:
		if protocol != packet.TCPProtocol {
			return false
		}
	case UDP:
		if protocol != packet.UDPProtocol {
			return false
		}
	case ICMP:
		if protocol != packet.ICMPv4Protocol && protocol != packet.ICMPv6Protocol {
			return false
		}
	}
	if len(r.Ports) == 0 {
		return true
	}
	if !hasPorts {
		return false
	}
	for _, ports := range r.Ports {
		if ports.First <= port && port <= ports.Last {
			return true
		}
	}
	return false
}

// CoversAddress reports whether an address is that of the rule's peer. A rule with a name has no addresses of its own. One that denies
// covers what stands for its addresses too: what is not to be reached is not to be reached in another notation.
func (r *Rule) CoversAddress(a netip.Addr) bool {
	if r.Name != "" {
		return false
	}
	if !r.Peer.IsValid() || r.Peer.Contains(a) {
		return true
	}
	if r.Action != Deny || a.Is4() || !r.Peer.Addr().Is4() {
		return false
	}
	inner, ok := Embedded(a)
	return ok && r.Peer.Contains(inner)
}

// Decide is what p says of the first packet of a connection to or from a peer, by addresses alone: rules with names are passed over.
func (p *Policy) Decide(d Direction, protocol packet.Protocol, peer netip.Addr, port uint16) Action {
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Covers(d, protocol, port) && r.CoversAddress(peer) {
			return r.Action
		}
	}
	return p.Default[d]
}

// String is the rule in the syntax of ParseRules.
func (r Rule) String() string {
	words := []string{r.Action.String(), r.Direction.String(), r.Protocol.String(), r.target()}
	if len(r.Ports) > 0 {
		var ports []string
		for _, p := range r.Ports {
			ports = append(ports, p.String())
		}
		words = append(words, strings.Join(ports, ","))
	}
	return strings.Join(words, " ")
}

func (r Rule) target() string {
	switch {
	case r.Name != "":
		return r.Name
	case !r.Peer.IsValid():
		return anyone
	case r.Peer.IsSingleIP():
		return r.Peer.Addr().String()
	}
	return r.Peer.String()
}

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// String is the policy in the syntax of ParseRules, a statement a line.
func (p *Policy) String() string {
	var b strings.Builder
	for _, r := range p.Rules {
		fmt.Fprintln(&b, r)
	}
	for d, action := range p.Default {
		fmt.Fprintln(&b, "default", Direction(d), action)
	}
	return b.String()
}
