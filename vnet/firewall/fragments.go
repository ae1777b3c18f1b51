package firewall

import (
	"net/netip"
	"time"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// fragmented names a packet in fragments: RFC 791 section 3.2, RFC 8200 section 4.5.
type fragmented struct {
	from, to netip.Addr
	id       uint32
	// protocol is 0 for IPv6, whose fragments may each say another one.
	protocol packet.Protocol
}

const (
	// maxFragmented is the most packets in fragments at a time, from each side.
	maxFragmented = 512
	// fragmentTimeout is how long a receiver waits for the rest on Linux (net.ipv4.ipfrag_time).
	fragmentTimeout = 30 * time.Second
)

// passFragment judges a fragment. The first holds all headers (package packet refuses it otherwise) and is judged like
// a packet; the others pass after it, and if they do not reach into it: no part that was judged can be replaced where
// the packet is put together. Others than the first that come before it are dropped: who sends them has them in order.
func (f *Firewall) passFragment(d policy.Direction, p *packet.Packet, now time.Duration) Cause {
	key := fragmented{from: p.From, to: p.To, id: p.Fragment.ID}
	if p.Kind == packet.KindIPv4 {
		key.protocol = p.Protocol
	}
	list := f.sides[d].fragments
	s := list.get(key, now)
	if p.Fragment.Start != 0 {
		switch {
		case s == nil:
			return LostFragment
		case p.Fragment.Start < s.value:
			return OverlapFragment
		}
		return passed
	}
	if s != nil {
		list.remove(s)
	}
	cause := f.track(d, p, now)
	if cause == passed {
		list.add(key, p.Fragment.End, 0, now)
	}
	return cause
}
