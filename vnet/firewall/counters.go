package firewall

import "krun.dev/krunpod/vnet/packet"

// Cause says why a well-formed frame did not pass.
type Cause uint8

// The causes.
const (
	passed Cause = iota // it did
	query               // it goes to the resolver

	Refused         // by a rule, or because none allows it
	OtherDNS        // a way around the resolver: DNS over TCP or TLS
	TableFull       // no room for another connection
	SpoofedMAC      // from the guest with a hardware address that is not its own, or from elsewhere with the guest's
	SpoofedAddress  // the same of an address
	NotAddressed    // for another station
	Forged          // a message of the link that says where another's address is, or leaves the link, or holds more than it needs
	LinkFlood       // more messages of the link than a station has a use for
	Redirect        // an ICMP redirect: routes do not change behind the policy
	Unsolicited     // an answer without a question, or an error about nothing that was sent
	OtherICMP       // a message of ICMP that no rule can be about
	LostFragment    // a fragment of a packet whose first one did not come before
	OverlapFragment // a fragment that would replace what was judged
	ForResolver     // an answer to the pod's resolver, not to the guest
	causes
)

// Causes is the number of values of Cause, for arrays of counters.
const Causes = int(causes)

var causeNames = [Causes]string{
	"passed", "query", "refused", "other way of DNS", "table full", "spoofed hardware address", "spoofed address",
	"for another station", "forged", "too many messages of the link", "redirect", "unsolicited", "other ICMP", "fragment without its first",
	"overlapping fragment", "for the resolver",
}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown cause"
}

// answered reports whether the sender is told: an application that may not connect fails at once.
func (c Cause) answered() bool { return c == Refused || c == OtherDNS || c == TableFull }

// Counters are those of the frames from one side.
type Counters struct {
	// Frames are all; each was counted once more, in one of Passed, Queries, Malformed and Dropped.
	Frames, Passed, Queries uint64
	Malformed               [packet.Reasons]uint64
	Dropped                 [Causes]uint64
	// Answered are those of Dropped whose sender was told.
	Answered uint64
}

// Stats is what a Firewall has counted, and holds.
type Stats struct {
	FromGuest, FromNetwork Counters
	Connections            int
}
