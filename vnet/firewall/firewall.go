package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// Verdict is what is to be done with a frame.
type Verdict uint8

// The verdicts.
const (
	// Drop the frame in silence.
	Drop Verdict = iota
	// Pass it on to the other side as it is.
	Pass
	// Answer: drop it, and send the answer to the side it came from.
	Answer
	// Resolve: it is a DNS query of the guest, for the pod's resolver alone.
	Resolve
)

// Config says for whom a Firewall stands.
type Config struct {
	// MAC is the guest's hardware address.
	MAC packet.MAC
	// Addresses are those the guest may speak as, besides the IPv6 link-local one that follows from MAC.
	Addresses []netip.Addr
	// Policy is what the pod may do; nil allows every connection.
	Policy *policy.Policy
	// Openings are the addresses of the names in Policy, shared by all firewalls of a pod. Needed if Policy has names.
	Openings *Openings
	// Nameservers are those that the pod's resolver asks, from the guest's addresses: what they send is not for the guest.
	Nameservers []netip.AddrPort
	// Gateway is the guest's own (package gateway), which leases it its address and resolves names for it; the zero value is none.
	Gateway netip.Addr
	// MaxConnections bounds the table of connections; 0 is DefaultConnections.
	MaxConnections int
	// Clock is a monotonic one; nil is the system's.
	Clock func() time.Duration
}

// DefaultConnections are about 8 MiB of memory when they are all in use.
const DefaultConnections = 32768

// Firewall judges the frames of one interface of a guest. It may be used by several goroutines.
type Firewall struct {
	mac       packet.MAC
	addresses []netip.Addr
	policy    *policy.Policy
	names     bool
	openings  *Openings
	// nameservers are those of the resolver; without names there is none.
	nameservers []netip.AddrPort
	gateway     netip.Addr
	clock       func() time.Duration

	mu          sync.Mutex
	connections *table[flow, connection]
	sides       [2]side
	// neighbours are stations that are known to be on the link.
	neighbours *table[netip.Addr, struct{}]
	claims     bucket
}

// side is what the firewall keeps for the frames from one side; the guest's is that of policy.Egress.
type side struct {
	packet    packet.Packet
	fragments *table[fragmented, int]
	refusals  bucket
	counters  Counters
}

// New makes a Firewall.
func New(c Config) (*Firewall, error) {
	f := &Firewall{mac: c.MAC, policy: c.Policy, openings: c.Openings, gateway: c.Gateway, clock: c.Clock}
	if c.MAC.Multicast() || c.MAC == (packet.MAC{}) {
		return nil, fmt.Errorf("firewall: %x is not the hardware address of a guest", c.MAC)
	}
	f.addresses = append(slices.Clone(c.Addresses), linkLocal(c.MAC))
	for _, a := range c.Addresses {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
			return nil, fmt.Errorf("firewall: %s is not an address of a guest", a)
		}
	}
	if f.policy == nil {
		f.policy = &policy.Policy{Default: [2]policy.Action{policy.Allow, policy.Allow}}
	}
	f.names = f.policy.Names()
	if f.names && f.openings == nil {
		return nil, fmt.Errorf("firewall: the policy has names, and there is nothing to open their addresses with")
	}
	if f.names {
		f.nameservers = slices.Clone(c.Nameservers)
	}
	if f.clock == nil {
		f.clock = systemClock()
	}
	most := c.MaxConnections
	if most == 0 {
		most = DefaultConnections
	}
	f.connections = newTable[flow, connection](most, timeouts, lasting)
	f.neighbours = newTable[netip.Addr, struct{}](maxNeighbours, []time.Duration{neighbourTimeout}, 1)
	f.claims.rate = claimRate
	for i := range f.sides {
		f.sides[i].refusals.rate = refusalRate
		f.sides[i].fragments = newTable[fragmented, int](maxFragmented, []time.Duration{fragmentTimeout}, 1)
	}
	return f, nil
}

func systemClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// linkLocal is the IPv6 address that a station gives itself, from its hardware address: RFC 4291, appendix A.
func linkLocal(m packet.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// FromGuest judges a frame of the guest, with what is left to do with it. An answer is written to buf, which has room for MaxAnswer
// bytes, and is the part of it that is returned; with any other verdict nothing is.
func (f *Firewall) FromGuest(frame []byte, left packet.Offload, buf []byte) (Verdict, []byte) {
	return f.judge(policy.Egress, frame, left, buf)
}

// FromNetwork judges a frame of the pod's network; see FromGuest.
func (f *Firewall) FromNetwork(frame []byte, left packet.Offload, buf []byte) (Verdict, []byte) {
	return f.judge(policy.Ingress, frame, left, buf)
}

func (f *Firewall) judge(d policy.Direction, frame []byte, left packet.Offload, buf []byte) (Verdict, []byte) {
	now := f.clock()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.sides[d]
	s.counters.Frames++
	reason := packet.Parse(frame, &s.packet)
	if reason == packet.WellFormed {
		reason = s.packet.CheckOffload(left, len(frame))
	}
	if reason != packet.WellFormed {
		s.counters.Malformed[reason]++
		return Drop, nil
	}
	cause := f.pass(d, &s.packet, now)
	switch {
	case cause == passed:
		s.counters.Passed++
		return Pass, nil
	case cause == query:
		s.counters.Queries++
		return Resolve, nil
	}
	s.counters.Dropped[cause]++
	if !cause.answered() || !s.refusals.take(now) {
		return Drop, nil
	}
	answer := refuse(&s.packet, frame, buf)
	if answer == nil {
		return Drop, nil
	}
	s.counters.Answered++
	return Answer, answer
}

// pass says why a packet must not pass, if not.
func (f *Firewall) pass(d policy.Direction, p *packet.Packet, now time.Duration) Cause {
	if cause := f.checkSender(d, p); cause != passed {
		return cause
	}
	if p.Kind == packet.KindARP || linkMessage(p) {
		return f.checkLink(d, p, now)
	}
	if f.leases(d, p) {
		return passed
	}
	if cause := f.checkAddresses(d, p); cause != passed {
		return cause
	}
	if !p.Fragment.Split() {
		return f.track(d, p, now)
	}
	return f.passFragment(d, p, now)
}

// NeedsResolver reports whether there is a verdict Resolve.
func (f *Firewall) NeedsResolver() bool { return f.names || f.gateway.IsValid() }

// Stats reports what the firewall has counted.
func (f *Firewall) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Stats{
		FromGuest: f.sides[policy.Egress].counters, FromNetwork: f.sides[policy.Ingress].counters,
		Connections: f.connections.len(),
	}
}
