package firewall

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
	. "krun.dev/krunpod/vnet/vnettest"
)

// wall is a Firewall with a clock that the test moves.
type wall struct {
	testing.TB
	*Firewall
	open *Openings
	now  time.Duration
	buf  [MaxAnswer]byte
}

// newWall makes a firewall of the guest with a policy in the syntax of the annotation; "" is none.
func newWall(t testing.TB, rules string, change ...func(*Config)) *wall {
	t.Helper()
	w := &wall{TB: t}
	clock := func() time.Duration { return w.now }
	w.open = NewOpenings(0, clock)
	c := Config{MAC: Guest4.MAC, Addresses: []netip.Addr{Guest4.Addr, Guest6.Addr}, Openings: w.open, Clock: clock}
	if rules != "" {
		p, err := policy.Parse(map[string]string{policy.AnnotationRules: rules})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
	}
	for _, f := range change {
		f(&c)
	}
	var err error
	if w.Firewall, err = New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

// out and in judge a frame of the guest, and one of the network.
func (w *wall) out(frame []byte) Verdict {
	v, _ := w.FromGuest(frame, packet.Offload{}, w.buf[:])
	return v
}
func (w *wall) in(frame []byte) Verdict {
	v, _ := w.FromNetwork(frame, packet.Offload{}, w.buf[:])
	return v
}

func (w *wall) want(got, want Verdict, what string, args ...any) {
	w.Helper()
	if got != want {
		w.Errorf("%s: verdict %d, want %d (%v)", fmt.Sprintf(what, args...), got, want, w.causes())
	}
}

// causes lists why frames were dropped.
func (w *wall) causes() map[string]uint64 {
	m := map[string]uint64{}
	s := w.Stats()
	for side, c := range map[string]Counters{"guest": s.FromGuest, "network": s.FromNetwork} {
		for i, n := range c.Dropped {
			if n > 0 {
				m[side+": "+Cause(i).String()] = n
			}
		}
		for i, n := range c.Malformed {
			if n > 0 {
				m[side+": "+packet.Reason(i).String()] = n
			}
		}
	}
	return m
}

// dropped checks that exactly one frame was dropped so far, for a cause, and from which side.
func (w *wall) dropped(side string, cause Cause) {
	w.Helper()
	if got := w.causes(); len(got) != 1 || got[side+": "+cause.String()] != 1 {
		w.Errorf("dropped: %v, want one frame from the %s: %v", got, side, cause)
	}
}

// families runs a test for IPv4 and for IPv6.
func families(t *testing.T, test func(t *testing.T, guest, peer Host)) {
	t.Run("IPv4", func(t *testing.T) { test(t, Guest4, Peer4) })
	t.Run("IPv6", func(t *testing.T) { test(t, Guest6, Peer6) })
}

// connect makes a TCP connection from the guest.
func (w *wall) connect(guest, peer Host, from, to uint16) {
	w.Helper()
	w.want(w.out(IP(w, guest, peer, TCP(from, to, "S"))), Pass, "SYN")
	w.want(w.in(IP(w, peer, guest, TCP(to, from, "SA"))), Pass, "SYN-ACK")
	w.want(w.out(IP(w, guest, peer, TCP(from, to, "A"))), Pass, "ACK")
}

// accept makes a TCP connection to the guest.
func (w *wall) accept(guest, peer Host, from, to uint16) {
	w.Helper()
	w.want(w.in(IP(w, peer, guest, TCP(from, to, "S"))), Pass, "SYN")
	w.want(w.out(IP(w, guest, peer, TCP(to, from, "SA"))), Pass, "SYN-ACK")
	w.want(w.in(IP(w, peer, guest, TCP(from, to, "A"))), Pass, "ACK")
}

func TestWithoutAPolicyEveryConnectionPasses(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "")
		w.connect(guest, peer, 40000, 443)
		w.accept(guest, peer, 40001, 8080)
		w.want(w.out(IP(t, guest, peer, UDP(1, 53), Data("query"))), Pass, "UDP")
		w.want(w.in(IP(t, peer, guest, UDP(53, 1), Data("answer"))), Pass, "UDP back")
		w.want(w.out(IP(t, guest, peer, Echo(guest, 7, false)...)), Pass, "ping")
		w.want(w.in(IP(t, peer, guest, Echo(peer, 7, true)...)), Pass, "pong")
		w.want(w.in(IP(t, peer, guest, Echo(peer, 8, false)...)), Pass, "ping in")
		w.want(w.out(IP(t, guest, peer, Echo(guest, 8, true)...)), Pass, "pong out")
	})
}

func TestAnAllowedConnectionPassesInBothDirectionsAndOthersAreRefused(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "allow egress tcp any 443; allow ingress tcp any 8080")
		w.connect(guest, peer, 40000, 443)
		w.want(w.in(IP(t, peer, guest, TCP(443, 40000, "A"), Data("data"))), Pass, "data")
		w.accept(guest, peer, 40001, 8080)
		for what, frame := range map[string][]byte{
			"another port":                 IP(t, guest, peer, TCP(40002, 80, "S")),
			"UDP":                          IP(t, guest, peer, UDP(40002, 443)),
			"ping":                         IP(t, guest, peer, Echo(guest, 1, false)...),
			"out of a connection's middle": IP(t, guest, peer, TCP(40002, 80, "A"), Data("data")),
		} {
			w.want(w.out(frame), Answer, "%s from the guest", what)
		}
		w.want(w.in(IP(t, peer, guest, TCP(40000, 22, "S"))), Answer, "another port from the network")
		w.want(w.in(IP(t, peer, guest, UDP(40000, 8080))), Answer, "UDP from the network")
	})
}

func TestTheFirstRuleThatCoversAConnectionDecides(t *testing.T) {
	w := newWall(t, "deny egress 192.0.2.0/24; allow egress tcp any 443")
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "S"))), Answer, "denied range")
	w.want(w.out(IP(t, Guest4, Peer4.At("192.0.3.1"), TCP(1, 443, "S"))), Pass, "beside it")
}

// A guest that may accept connections, and not make any, must not turn one of those around.
func TestAnAcceptedConnectionDoesNotLetTheGuestConnectBack(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "default egress deny")
		w.accept(guest, peer, 40000, 8080)
		w.want(w.out(IP(t, guest, peer, TCP(8080, 40000, "S"))), Answer, "SYN on the same ports")
		w.want(w.in(IP(t, peer, guest, TCP(40000, 8080, "R"))), Pass, "reset")
		w.want(w.out(IP(t, guest, peer, TCP(8080, 40000, "S"))), Answer, "SYN after the end")
	})
}

func TestPortsOfAClosedConnectionServeAnother(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443")
	w.connect(Guest4, Peer4, 40000, 443)
	w.want(w.out(IP(t, Guest4, Peer4, TCP(40000, 443, "FA"))), Pass, "FIN")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "A"), Data("rest"))), Pass, "data after it")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "FA"))), Pass, "FIN back")
	w.want(w.out(IP(t, Guest4, Peer4, TCP(40000, 443, "A"))), Pass, "last ACK")
	w.connect(Guest4, Peer4, 40000, 443)
}

func TestWhatComesAfterTheEndDoesNotMakeAConnectionLast(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443; default ingress deny")
	w.connect(Guest4, Peer4, 40000, 443)
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "R"))), Pass, "reset")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "SA"))), Drop, "SYN-ACK after it")
	w.now += timeouts[closed] - 1
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "A"), Data("rest"))), Pass, "what was under way")
	w.now++
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 40000, "A"), Data("rest"))), Answer, "what was not")
}

func TestAResetWithoutAConnectionMakesNone(t *testing.T) {
	w := newWall(t, "")
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 2, "R"))), Pass, "reset")
	if n := w.Stats().Connections; n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestAnAnswerIsNoneToAQuestionOfTheSameSide(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "")
		w.want(w.out(IP(t, guest, peer, Echo(guest, 7, false)...)), Pass, "ping")
		w.want(w.out(IP(t, guest, peer, Echo(guest, 7, true)...)), Drop, "pong of who asked")
		w.dropped("guest", Unsolicited)
	})
}

func TestAnswersWithoutAQuestionAreDropped(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		unreachable := packet.ICMPv4Unreachable
		if guest.Addr.Is6() {
			unreachable = packet.ICMPv6Unreachable
		}
		for what, frame := range map[string][]byte{
			"SYN-ACK": IP(t, peer, guest, TCP(443, 40000, "SA")),
			"pong":    IP(t, peer, guest, Echo(peer, 1, true)...),
			"error":   ICMPError(t, peer, guest, unreachable, 1, IP(t, guest, peer, UDP(1, 2))),
		} {
			t.Run(what, func(t *testing.T) {
				w := newWall(t, "")
				w.want(w.in(frame), Drop, "%s", what)
				w.dropped("network", Unsolicited)
			})
		}
	})
}

// The resolver speaks from the guest's addresses: its answers are not the guest's, whatever the policy allows to come in.
func TestAnswersToTheResolverAreNotForTheGuest(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		for _, rules := range []string{"allow egress api.example.org 443", "allow egress api.example.org 443; deny ingress any"} {
			w := newWall(t, rules, func(c *Config) { c.Nameservers = []netip.AddrPort{netip.AddrPortFrom(peer.Addr, 53)} })
			for what, frame := range map[string][]byte{
				"UDP": IP(t, peer, guest, UDP(53, 40000)), "SYN-ACK": IP(t, peer, guest, TCP(53, 40000, "SA")),
				"data": IP(t, peer, guest, TCP(53, 40000, "A"), Data("data")),
			} {
				w.want(w.in(frame), Drop, "%s", what)
			}
			if n := w.Stats().FromNetwork; n.Dropped[ForResolver] != 3 || n.Answered != 0 {
				t.Errorf("%+v", n)
			}
		}
		// Without names there is no resolver, and the guest asks by itself.
		w := newWall(t, "allow egress udp any 53", func(c *Config) { c.Nameservers = []netip.AddrPort{netip.AddrPortFrom(peer.Addr, 53)} })
		w.want(w.out(IP(t, guest, peer, UDP(40000, 53))), Pass, "query")
		w.want(w.in(IP(t, peer, guest, UDP(53, 40000))), Pass, "answer")
	})
}

func TestAPeerSpeaksAfterItHasAnsweredOnly(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443")
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "S"))), Pass, "SYN")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"), Data("data"))), Drop, "data before SYN-ACK")
	w.dropped("network", Unsolicited)
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"))), Pass, "challenge ACK")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "RA"))), Pass, "reset")
}

func TestErrorsAboutAConnectionPass(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		kind := packet.ICMPv4Unreachable
		if guest.Addr.Is6() {
			kind = packet.ICMPv6TooBig
		}
		w := newWall(t, "default ingress deny; allow egress any")
		router := peer.At("192.0.2.254")
		if guest.Addr.Is6() {
			router = peer.At("2001:db8::fe")
		}
		for what, sent := range map[string][]byte{
			"TCP": IP(t, guest, peer, TCP(1, 443, "S")), "UDP": IP(t, guest, peer, UDP(1, 2)),
			"ping": IP(t, guest, peer, Echo(guest, 77, false)...),
		} {
			w.want(w.out(sent), Pass, "%s", what)
			w.want(w.in(ICMPError(t, router, guest, kind, 4, sent)), Pass, "error about %s", what)
		}
		other := IP(t, guest, peer, UDP(1, 3))
		w.want(w.in(ICMPError(t, router, guest, kind, 4, other)), Drop, "error about what was not sent")
		// The guest's own errors: about what came in, to whom it came from.
		w = newWall(t, "default egress deny; allow ingress any")
		came := IP(t, peer, guest, UDP(5, 6))
		w.want(w.in(came), Pass, "UDP in")
		w.want(w.out(ICMPError(t, guest, peer, kind, 3, came)), Pass, "the guest's error")
		w.want(w.out(ICMPError(t, guest, router, kind, 3, came)), Drop, "the guest's error to somebody else")
	})
}

func TestWhatIsNeverPassed(t *testing.T) {
	redirect4 := ICMPError(t, Peer4, Guest4, packet.ICMPv4Redirect, 1, IP(t, Guest4, Peer4, UDP(1, 2)))
	timestamp := IP(t, Peer4, Guest4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(13, 0)}, Data("123456789012"))
	redirect6 := ND(t, Peer6, Guest6, packet.ICMPv6Redirect, Peer6.Addr, Peer6.MAC)
	for what, c := range map[string]struct {
		frame []byte
		cause Cause
	}{
		"ICMP redirect":   {redirect4, Redirect},
		"ICMPv6 redirect": {redirect6, Redirect},
		"timestamp":       {timestamp, OtherICMP},
	} {
		w := newWall(t, "")
		w.want(w.in(c.frame), Drop, "%s", what)
		w.dropped("network", c.cause)
	}
}

func TestTheGuestSpeaksAsItselfOnly(t *testing.T) {
	stranger := packet.MAC{2, 0, 0, 0, 0, 0x99}
	strange := func(h Host) Host { return Host{MAC: stranger, Addr: h.Addr} }
	nobody := netip.IPv4Unspecified()
	self := netip.MustParseAddr("fe80::ff:fe00:10") // of Guest6.MAC
	all, routers := groupOf(allNodes), groupOf(allRouters)
	askGuest, askPeer := groupOf(packet.SolicitedNode(Guest6.Addr)), groupOf(packet.SolicitedNode(Peer6.Addr))
	fresh := Host{MAC: Guest6.MAC, Addr: netip.IPv6Unspecified()}
	sol, adv := packet.ICMPv6NeighborSol, packet.ICMPv6NeighborAdv
	for what, c := range map[string]struct {
		frame []byte
		want  Cause
	}{
		"TCP with another hardware address": {IP(t, strange(Guest4), Peer4, TCP(1, 2, "S")), SpoofedMAC},
		"TCP from another address":          {IP(t, Guest4.At("10.9.0.3"), Peer4, TCP(1, 2, "S")), SpoofedAddress},
		"UDP from another IPv6 address":     {IP(t, Guest6.At("fd00::3"), Peer6, UDP(1, 2)), SpoofedAddress},
		"UDP from nobody":                   {IP(t, Guest4.At("0.0.0.0"), Peer4, UDP(68, 67)), SpoofedAddress},
		"ARP request":                       {ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), passed},
		"ARP probe":                         {ARP(t, Guest4.MAC, packet.ARPRequest, Host{MAC: Guest4.MAC, Addr: nobody}, Guest4), passed},
		"ARP probe of another's address":    {ARP(t, Guest4.MAC, packet.ARPRequest, Host{MAC: Guest4.MAC, Addr: nobody}, Peer4), Forged},
		"ARP reply as nobody":               {ARP(t, Guest4.MAC, packet.ARPReply, Host{MAC: Guest4.MAC, Addr: nobody}, Guest4), Forged},
		"ARP with padding":                  {append(ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), make([]byte, 18)...), passed},
		"ARP with too much of it":           {append(ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), make([]byte, 19)...), Forged},
		"ARP with a message after it":       {append(ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), "secret"...), Forged},
		"ARP for the gateway's address":     {ARP(t, Guest4.MAC, packet.ARPReply, Guest4.At("10.9.0.1"), Peer4), SpoofedAddress},
		"ARP with another hardware address": {ARP(t, Guest4.MAC, packet.ARPReply, strange(Guest4), Peer4), Forged},
		"ARP in a frame of another":         {ARP(t, stranger, packet.ARPReply, Guest4, Peer4), SpoofedMAC},
		"neighbour solicitation":            {ND(t, Guest6, askPeer, sol, Peer6.Addr, Guest6.MAC), passed},
		"… of who may be anywhere":          {ND(t, Guest6, Peer6, sol, Peer6.Addr, Guest6.MAC), Forged},
		"… of a link-local neighbour":       {ND(t, Guest6, Peer6.At("fe80::1"), sol, netip.MustParseAddr("fe80::1"), Guest6.MAC), passed},
		"… to another than it is about":     {ND(t, Guest6, Peer6.At("fe80::1"), sol, Peer6.Addr, Guest6.MAC), Forged},
		"… to another's group":              {ND(t, Guest6, askGuest, sol, netip.MustParseAddr("fd00::3"), Guest6.MAC), Forged},
		"… with a nonce":                    {ndWith(t, askPeer, sol, Peer6.Addr, 14, 1, 1, 2, 3, 4, 5, 6), passed},
		"… with another option":             {ndWith(t, askPeer, sol, Peer6.Addr, 253, 1, 's', 'e', 'c', 'r', 'e', 't'), Forged},
		"… with a long option":              {ndWith(t, askPeer, sol, Peer6.Addr, 14, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14), Forged},
		"… with two nonces":                 {ndWith(t, askPeer, sol, Peer6.Addr, 14, 1, 1, 2, 3, 4, 5, 6, 14, 1, 1, 2, 3, 4, 5, 6), Forged},
		"… in reserved bits":                {reserved(ND(t, Guest6, askPeer, sol, Peer6.Addr, Guest6.MAC)), Forged},
		"… with a message after it":         {append(ND(t, Guest6, askPeer, sol, Peer6.Addr, Guest6.MAC), "secret"...), Forged},
		"… from the link-local address":     {ND(t, Guest6.At(self.String()), askPeer, sol, Peer6.Addr, Guest6.MAC), passed},
		"… for a duplicate":                 {ND(t, fresh, askGuest, sol, Guest6.Addr, packet.MAC{}), passed},
		"… for a duplicate of its own":      {ND(t, fresh, groupOf(packet.SolicitedNode(self)), sol, self, packet.MAC{}), passed},
		"… for another's duplicate":         {ND(t, fresh, askPeer, sol, Peer6.Addr, packet.MAC{}), Forged},
		"… with another hardware address":   {ND(t, Guest6, askPeer, sol, Peer6.Addr, stranger), Forged},
		"… from another address":            {ND(t, Guest6.At("fd00::3"), askPeer, sol, Peer6.Addr, Guest6.MAC), SpoofedAddress},
		"neighbour advertisement":           {ND(t, Guest6, all, adv, Guest6.Addr, Guest6.MAC), passed},
		"… to who may be anywhere":          {ND(t, Guest6, Peer6, adv, Guest6.Addr, Guest6.MAC), Forged},
		"… to a link-local neighbour":       {ND(t, Guest6, Peer6.At("fe80::1"), adv, Guest6.Addr, Guest6.MAC), passed},
		"… to another group":                {ND(t, Guest6, groupOf(netip.MustParseAddr("ff0e::1")), adv, Guest6.Addr, Guest6.MAC), Forged},
		"… with reserved bits":              {reserved(ND(t, Guest6, all, adv, Guest6.Addr, Guest6.MAC)), Forged},
		"… for the gateway's address":       {ND(t, Guest6, all, adv, Peer6.Addr, Guest6.MAC), Forged},
		"… with another's hardware address": {ND(t, Guest6, all, adv, Guest6.Addr, stranger), Forged},
		"router solicitation":               {ND(t, Guest6, routers, packet.ICMPv6RouterSolicit, netip.Addr{}, Guest6.MAC), passed},
		"… to one station":                  {ND(t, Guest6, Peer6, packet.ICMPv6RouterSolicit, netip.Addr{}, Guest6.MAC), Forged},
		"… with a message in it":            {ndWith(t, routers, packet.ICMPv6RouterSolicit, netip.Addr{}, 253, 1, 's', 'e', 'c', 'r', 'e', 't'), Forged},
		"router advertisement":              {ND(t, Guest6, all, packet.ICMPv6RouterAdvert, netip.Addr{}, Guest6.MAC), Forged},
		"redirect":                          {ND(t, Guest6, Peer6, packet.ICMPv6Redirect, Peer6.Addr, Guest6.MAC), Redirect},
		"link-local address of another":     {ND(t, Guest6.At("fe80::1"), askPeer, sol, Peer6.Addr, Guest6.MAC), SpoofedAddress},
		"listener report to one station":    {listenerTo(t, Peer6, packet.ICMPv6ListenerV2, record), Forged},
		"listener report":                   {listenerTo(t, groupOf(allReports), packet.ICMPv6ListenerV2, record), passed},
		"… of two groups and a source":      {listenerTo(t, groupOf(allReports), packet.ICMPv6ListenerV2, record, sourced), passed},
		"… reported to another group":       {listenerTo(t, all, packet.ICMPv6ListenerV2, record), Forged},
		"… with auxiliary data":             {listenerTo(t, groupOf(allReports), packet.ICMPv6ListenerV2, auxiliary), Forged},
		"… with a message after its record": {listenerTo(t, groupOf(allReports), packet.ICMPv6ListenerV2, record+"secret"), Forged},
		"… about no group":                  {listenerTo(t, groupOf(allReports), packet.ICMPv6ListenerV2, strings.Repeat("\x00", 20)), Forged},
		"… of version 1":                    {listenerTo(t, groupOf(packet.SolicitedNode(Guest6.Addr)), packet.ICMPv6ListenerReport), passed},
		"… of version 1 to another group":   {listenerTo(t, all, packet.ICMPv6ListenerReport), Forged},
		"… of version 1 and a message":      {listenerTo(t, groupOf(packet.SolicitedNode(Guest6.Addr)), packet.ICMPv6ListenerReport, "secret"), Forged},
		"listener's end":                    {listenerTo(t, routers, packet.ICMPv6ListenerDone), passed},
		"listener's query":                  {listenerTo(t, all, packet.ICMPv6ListenerQuery), Forged},
		"listener report beyond the link":   {IP(t, Guest6, groupOf(allReports), listener(packet.ICMPv6ListenerV2, record)...), Forged},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWall(t, "")
			if c.want == passed {
				w.want(w.out(c.frame), Pass, "%s", what)
				return
			}
			w.want(w.out(c.frame), Drop, "%s", what)
			w.dropped("guest", c.want)
		})
	}
}

// groupOf is an IPv6 group as a host to send to: RFC 2464, section 7.
func groupOf(a netip.Addr) Host {
	b := a.As16()
	return Host{MAC: packet.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}, Addr: a}
}

// ndWith is neighbour discovery of the guest with its hardware address and, after it, options.
func ndWith(t *testing.T, to Host, kind uint8, target netip.Addr, options ...byte) []byte {
	f := append(ND(t, Guest6, to, kind, target, Guest6.MAC), options...)
	f[19] += byte(len(options)) // the length of IPv6's payload
	return f
}

// reserved sets a reserved bit of neighbour discovery: the last of four bytes after its checksum.
func reserved(f []byte) []byte {
	f[14+40+7] = 1
	return f
}

// Records of a listener's report, version 2: RFC 3810, section 5.2.4. The second has a source, the third auxiliary data.
var (
	record    = "\x04\x00\x00\x00" + string(allNodes.AsSlice())
	sourced   = "\x05\x00\x00\x01" + string(allNodes.AsSlice()) + string(Peer6.Addr.AsSlice())
	auxiliary = "\x04\x01\x00\x00" + string(allNodes.AsSlice()) + "text"
)

// listener is a message of multicast listener discovery: of version 2 with records, of version 1 about the guest's group.
func listener(kind uint8, records ...string) []gopacket.SerializableLayer {
	body := string(make([]byte, 4)) + string(packet.SolicitedNode(Guest6.Addr).AsSlice())
	if kind == packet.ICMPv6ListenerV2 {
		body = string([]byte{0, 0, 0, byte(len(records))})
	}
	return []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, Data(body + strings.Join(records, "")),
	}
}

func listenerTo(t *testing.T, to Host, kind uint8, records ...string) []byte {
	ip := IPv6(Guest6, to)
	ip.HopLimit, ip.NextHeader = 1, layers.IPProtocolICMPv6
	parts := []gopacket.SerializableLayer{Ethernet(Guest6, to, layers.EthernetTypeIPv6), ip}
	return Frame(t, append(parts, listener(kind, records...)...)...)
}

// A kernel asks a neighbour that it knows by its own address, and answers who asked: both are on the link.
func TestKnownNeighboursAreAskedAndAnsweredByTheirAddress(t *testing.T) {
	ask := ND(t, Guest6, Peer6, packet.ICMPv6NeighborSol, Peer6.Addr, Guest6.MAC)
	answer := ND(t, Guest6, Peer6, packet.ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC)
	for what, heard := range map[string][]byte{
		"a question":                  ND(t, Peer6, groupOf(packet.SolicitedNode(Guest6.Addr)), packet.ICMPv6NeighborSol, Guest6.Addr, Peer6.MAC),
		"an answer":                   ND(t, Peer6, Guest6, packet.ICMPv6NeighborAdv, Peer6.Addr, Peer6.MAC),
		"an answer from another own":  ND(t, Peer6.At("fe80::7"), Guest6, packet.ICMPv6NeighborAdv, Peer6.Addr, Peer6.MAC),
		"a router's advertisement of": ND(t, Peer6, groupOf(allNodes), packet.ICMPv6RouterAdvert, netip.Addr{}, Peer6.MAC),
	} {
		t.Run(what, func(t *testing.T) {
			w := newWall(t, "default egress deny; default ingress deny")
			w.want(w.out(ask), Drop, "a stranger is asked")
			w.want(w.in(heard), Pass, "%s", what)
			w.want(w.out(ask), Pass, "a neighbour is asked")
			w.want(w.out(answer), Pass, "a neighbour is answered")
			w.now += neighbourTimeout
			w.want(w.out(ask), Drop, "one that was not heard of for long")
		})
	}
	w := newWall(t, "")
	w.want(w.in(IP(t, Peer6, Guest6, UDP(1, 2))), Pass, "a packet that may have come over a router")
	w.want(w.out(ask), Drop, "its sender is asked")
	for i := range 2 * maxNeighbours {
		from := Peer6
		from.Addr = netip.AddrFrom16([16]byte{0x20, 1, 14: byte(i >> 8), byte(i)})
		w.in(ND(t, from, Guest6, packet.ICMPv6NeighborSol, Guest6.Addr, Peer6.MAC))
	}
	if n := len(w.neighbours.slots); n > maxNeighbours {
		t.Errorf("%d neighbours are remembered", n)
	}
}

func TestAGuestFloodsTheLinkInVain(t *testing.T) {
	w := newWall(t, "")
	ask := ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4)
	for range 3 * claimRate {
		w.out(ask)
	}
	if n := w.Stats().FromGuest; n.Passed != claimRate || n.Dropped[LinkFlood] != 2*claimRate {
		t.Errorf("%d passed, %v", n.Passed, w.causes())
	}
	w.now += time.Second / 2
	w.want(w.out(ask), Pass, "later")
	w.want(w.in(ARP(t, Peer4.MAC, packet.ARPRequest, Peer4, Guest4)), Pass, "the network's")
}

func TestNobodySpeaksAsTheGuest(t *testing.T) {
	group := Host{MAC: packet.MAC{0x33, 0x33, 0, 0, 0, 1}, Addr: netip.MustParseAddr("ff02::1")}
	elsewhere := Host{MAC: packet.MAC{2, 0, 0, 0, 0, 0x33}, Addr: Guest4.Addr}
	everybody := Host{MAC: packet.MAC{255, 255, 255, 255, 255, 255}, Addr: netip.MustParseAddr("10.9.0.255")}
	as := func(h Host) Host { return Host{MAC: Peer4.MAC, Addr: h.Addr} }
	for what, c := range map[string]struct {
		frame []byte
		want  Cause
	}{
		"ARP request":                  {ARP(t, Peer4.MAC, packet.ARPRequest, Peer4, Guest4), passed},
		"ARP with the guest's address": {ARP(t, Peer4.MAC, packet.ARPReply, as(Guest4), Guest4), Forged},
		"solicitation of the guest":    {ND(t, Peer6, Guest6, packet.ICMPv6NeighborSol, Guest6.Addr, Peer6.MAC), passed},
		"advertisement of another":     {ND(t, Peer6, Guest6, packet.ICMPv6NeighborAdv, Peer6.Addr, Peer6.MAC), passed},
		"advertisement of the guest's": {ND(t, Peer6, group, packet.ICMPv6NeighborAdv, Guest6.Addr, Peer6.MAC), Forged},
		"router advertisement":         {ND(t, Peer6, group, packet.ICMPv6RouterAdvert, netip.Addr{}, Peer6.MAC), passed},
		"TCP with the guest's address": {IP(t, as(Guest4), Guest4, TCP(1, 2, "S")), SpoofedAddress},
		// A bridge turns round what the guest sent to a Service and is for the guest itself, with another address.
		"TCP that was sent back":            {IP(t, Host{MAC: Guest4.MAC, Addr: Peer4.Addr}, Guest4, TCP(1, 2, "S")), passed},
		"… as the guest":                    {IP(t, Guest4, Guest4, TCP(1, 2, "S")), SpoofedAddress},
		"ARP that was sent back":            {ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), SpoofedMAC},
		"ARP with the guest's hardware":     {ARP(t, Guest4.MAC, packet.ARPReply, Peer4, Guest4), SpoofedMAC},
		"neighbour of the guest's hardware": {ND(t, Host{MAC: Guest6.MAC, Addr: Peer6.Addr}, Guest6, packet.ICMPv6NeighborSol, Guest6.Addr, Peer6.MAC), SpoofedMAC},
		"a group's from the guest's":        {IP(t, Host{MAC: Guest4.MAC, Addr: Peer4.Addr}, Host{MAC: packet.MAC{1, 0, 0x5e, 0, 0, 1}, Addr: netip.MustParseAddr("224.0.0.1")}, Data("x")), SpoofedMAC},
		"UDP to the subnet":                 {IP(t, Peer4, everybody, UDP(1, 2)), passed},
		"UDP to a group":                    {IP(t, Peer6, group, UDP(1, 2)), passed},
		"UDP to another in a group's frame": {IP(t, Peer6, Host{MAC: group.MAC, Addr: netip.MustParseAddr("fd00::3")}, UDP(1, 2)), NotAddressed},
		"TCP to another station":            {IP(t, Peer4, elsewhere, TCP(1, 2, "S")), NotAddressed},
		"TCP to another address":            {IP(t, Peer4, Guest4.At("10.9.0.3"), TCP(1, 2, "S")), NotAddressed},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWall(t, "")
			if c.want == passed {
				w.want(w.in(c.frame), Pass, "%s", what)
				return
			}
			w.want(w.in(c.frame), Drop, "%s", what)
			w.dropped("network", c.want)
		})
	}
}

func TestFragmentsFollowTheirFirst(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "allow egress udp any 99")
		big := Data("0123456789abcdef0123456789abcdef0123456789abcdef")
		good := Fragments(t, IP(t, guest, peer, UDP(5, 99), big), 1, 16)
		bad := Fragments(t, IP(t, guest, peer, UDP(5, 98), big), 2, 16)
		for i, f := range good {
			w.want(w.out(f), Pass, "part %d", i)
		}
		w.want(w.out(bad[0]), Answer, "first part to another port")
		w.want(w.out(bad[1]), Drop, "the next one")
		// The same packet number again, refused: what follows is refused too.
		again := Fragments(t, IP(t, guest, peer, UDP(5, 98), big), 1, 16)
		w.want(w.out(again[0]), Answer, "a refused first part of the same number")
		w.want(w.out(good[1]), Drop, "its next one")
	})
}

func TestFragmentsOfAnotherProtocolAreOfAnotherPacket(t *testing.T) {
	w := newWall(t, "allow egress any 99")
	udp := Fragments(t, IP(t, Guest4, Peer4, UDP(5, 99), Data("0123456789abcdef")), 1, 16)
	tcp := Fragments(t, IP(t, Guest4, Peer4, TCP(5, 22, "S"), Data("0123456789abcdef0123456789abcdef")), 1, 24)
	w.want(w.out(udp[0]), Pass, "UDP")
	w.want(w.out(tcp[1]), Drop, "TCP with its number")
	w.dropped("guest", LostFragment)
}

func TestAFragmentCannotReplaceWhatWasJudged(t *testing.T) {
	w := newWall(t, "allow egress udp any 99")
	first := Fragments(t, IP(t, Guest4, Peer4, UDP(5, 99), Data("0123456789abcdef0123456789abcdef")), 1, 24)[0]
	overlap := Fragments(t, IP(t, Guest4, Peer4, UDP(5, 98), Data("0123456789abcdef0123456789abcdef")), 1, 16)[1]
	w.want(w.out(first), Pass, "first")
	w.want(w.out(overlap), Drop, "overlap")
	w.dropped("guest", OverlapFragment)
}

func TestFragmentsAreForgottenInTime(t *testing.T) {
	w := newWall(t, "")
	parts := Fragments(t, IP(t, Guest4, Peer4, UDP(5, 99), Data("0123456789abcdef0123456789abcdef")), 1, 16)
	w.want(w.out(parts[0]), Pass, "first")
	w.now += fragmentTimeout
	w.want(w.out(parts[1]), Drop, "late")
	w.dropped("guest", LostFragment)
	for i := range maxFragmented * 2 {
		w.out(Fragments(t, IP(t, Guest4, Peer4, UDP(5, 99), Data("0123456789abcdef")), uint32(i), 16)[0])
	}
	if n := w.sides[policy.Egress].fragments.len(); n > maxFragmented {
		t.Errorf("%d packets in fragments are remembered", n)
	}
}

func TestNamesAreOpenForTheirTime(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "allow egress api.example.org 443")
		syn := IP(t, guest, peer, TCP(40000, 443, "S"))
		w.want(w.out(syn), Answer, "before it is asked for")
		if !w.open.Open(peer.Addr, []int{0}, time.Minute) {
			t.Fatal("no room")
		}
		w.connect(guest, peer, 40000, 443)
		w.want(w.out(IP(t, guest, peer, TCP(40001, 80, "S"))), Answer, "another port")
		w.now += time.Minute
		w.want(w.out(IP(t, guest, peer, TCP(40002, 443, "S"))), Answer, "after its time")
		w.want(w.out(IP(t, guest, peer, TCP(40000, 443, "A"), Data("x"))), Pass, "the connection that was made")
		w.want(w.out(IP(t, guest, peer, TCP(40000, 443, "S"))), Answer, "another one with its ports")
	})
}

func TestOpeningsAreBounded(t *testing.T) {
	now := time.Duration(0)
	o := NewOpenings(4, func() time.Duration { return now })
	addr := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, i}) }
	if !o.Open(addr(1), []int{0, 1}, time.Second) || !o.Open(addr(2), []int{0, 1}, time.Minute) {
		t.Fatal("no room for four")
	}
	if o.Open(addr(3), []int{0}, time.Second) {
		t.Error("a fifth")
	}
	if !o.Open(addr(2), []int{0, 1}, time.Second) {
		t.Error("what is open cannot be opened for longer when there is no room for more")
	}
	now = 2 * time.Second
	if o.isOpen(addr(1), 0) || !o.isOpen(addr(2), 0) || !o.Open(addr(3), []int{0}, time.Second) || o.Len() != 3 {
		t.Error("what is over still counts, or what is not does not")
	}
}

func TestDNSHasOneWay(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "allow egress api.example.org; allow egress any 53; allow egress any 853")
		w.want(w.out(IP(t, guest, peer, UDP(5000, 53), Data("query"))), Resolve, "DNS")
		w.want(w.out(IP(t, guest, peer, TCP(5000, 53, "S"))), Answer, "DNS over TCP")
		w.want(w.out(IP(t, guest, peer, TCP(5000, 853, "S"))), Answer, "DNS over TLS")
		w.want(w.out(IP(t, guest, peer, UDP(5000, 853))), Answer, "DNS over QUIC")
		query := Fragments(t, IP(t, guest, peer, UDP(5000, 53), Data("0123456789abcdef")), 1, 16)
		w.want(w.out(query[0]), Answer, "DNS in fragments")
		w.want(w.out(query[1]), Drop, "its rest")
		for _, port := range []uint16{53, 853} {
			w.want(w.in(IP(t, peer, guest, UDP(port, 5000))), Answer, "who opens the port from outside")
			w.want(w.in(IP(t, peer, guest, TCP(port, 5000, "S"))), Answer, "… with TCP")
			w.want(w.out(IP(t, guest, peer, TCP(5000, port, "SA"))), Drop, "its answer")
		}
		w.want(w.out(IP(t, guest, peer, UDP(5000, 853))), Answer, "a query as an answer")
		w.want(w.out(IP(t, guest, peer, UDP(5000, 53))), Resolve, "… and at port 53")
	})
}

func TestIdleConnectionsEnd(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443; allow egress udp any; default ingress deny")
	w.connect(Guest4, Peer4, 1, 443)
	udp, back := IP(t, Guest4, Peer4, UDP(1, 2)), IP(t, Peer4, Guest4, UDP(2, 1))
	w.out(udp)
	w.now += timeouts[unanswered]
	w.want(w.in(back), Answer, "an answer too late")
	w.out(udp)
	for range 5 {
		w.want(w.in(back), Pass, "answer")
		w.now += timeouts[exchanging] - 1
	}
	w.now++
	w.want(w.in(back), Answer, "an answer after silence")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"))), Pass, "TCP lasts")
	w.now += timeouts[established]
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"))), Answer, "for a day")
}

// A client that is gone tells nobody: what the guest has closed, and the client not, must neither last nor keep others out.
func TestHalfClosedConnectionsDoNotFillTheTable(t *testing.T) {
	const most = 50
	w := newWall(t, "allow ingress tcp any 80", func(c *Config) { c.MaxConnections = most })
	for port := range uint16(3 * most) {
		w.accept(Guest4, Peer4, 1000+port, 80)
		w.want(w.out(IP(t, Guest4, Peer4, TCP(80, 1000+port, "FA"))), Pass, "FIN")
		w.want(w.in(IP(t, Peer4, Guest4, TCP(1000+port, 80, "A"))), Pass, "its ACK, and no more")
	}
}

func TestHalfClosedConnectionGoesOnWhileItIsUsed(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443; default ingress deny")
	for range 2 {
		w.connect(Guest4, Peer4, 1, 443)
		w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "FA"))), Pass, "the guest has asked")
		for range 5 {
			w.now += timeouts[closing] - 1
			w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"), Data("x"))), Pass, "answer")
		}
		// The ports are used again, without the end of the first.
	}
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "FA"))), Pass, "FIN")
	w.now += timeouts[closed]
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"))), Answer, "after the end")
	w.connect(Guest4, Peer4, 2, 443)
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 2, "FA"))), Pass, "the peer has ended")
	w.now += timeouts[closing]
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 2, "A"))), Answer, "after silence")
}

// The connection that uses the ports of one of which one end was seen has none of its ends.
func TestPortsThatAreUsedAgainBeginAnew(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443; default ingress deny")
	w.connect(Guest4, Peer4, 1, 443)
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "FA"))), Pass, "FIN")
	w.connect(Guest4, Peer4, 1, 443)
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "FA"))), Pass, "FIN of the new one")
	w.now += timeouts[closed]
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "A"), Data("x"))), Pass, "its other half")
}

func TestAConnectionOlderThanItsEntryGoesOnIfTheRulesAllowIt(t *testing.T) {
	w := newWall(t, "allow egress tcp any 443; default ingress deny")
	w.want(w.out(IP(t, Guest4, Peer4, TCP(1, 443, "A"), Data("x"))), Pass, "from its middle")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"), Data("y"))), Pass, "its answer")
	if w.connections.get(flow{Guest4.Addr, Peer4.Addr, 1, 443, packet.TCPProtocol}, w.now).class != established {
		t.Error("it is not established")
	}
}

func TestAFloodHurtsItselfOnly(t *testing.T) {
	const most = 100
	w := newWall(t, "", func(c *Config) { c.MaxConnections = most })
	w.connect(Guest4, Peer4, 1, 443)
	for i := range uint16(1000) {
		w.want(w.out(IP(t, Guest4, Peer4, UDP(1000+i, 9))), Pass, "flood")
		if i == 900 {
			w.want(w.out(IP(t, Guest4, Peer4, TCP(2, 443, "S"))), Pass, "SYN in a flood")
		}
	}
	if n := w.Stats().Connections; n > most {
		t.Errorf("%d connections, the most is %d", n, most)
	}
	if n := len(w.connections.slots); n > most {
		t.Errorf("%d entries in memory, the most is %d", n, most)
	}
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 2, "SA"))), Pass, "its answer")
	w.want(w.in(IP(t, Peer4, Guest4, TCP(443, 1, "A"), Data("x"))), Pass, "the connection in use")
}

func TestATableFullOfConnectionsInUseRefusesMore(t *testing.T) {
	w := newWall(t, "", func(c *Config) { c.MaxConnections = 3 })
	for i := range uint16(3) {
		w.connect(Guest4, Peer4, 100+i, 443)
	}
	w.want(w.out(IP(t, Guest4, Peer4, TCP(200, 443, "S"))), Answer, "one more")
	w.dropped("guest", TableFull)
	w.want(w.out(IP(t, Guest4, Peer4, TCP(100, 443, "RA"))), Pass, "the end of one")
	w.connect(Guest4, Peer4, 201, 443)
}

func TestEveryFrameIsCountedOnce(t *testing.T) {
	w := newWall(t, "allow egress api.example.org")
	for _, f := range [][]byte{
		nil, IP(t, Guest4, Peer4, UDP(1, 53)), IP(t, Guest4, Peer4, TCP(1, 443, "S")),
		ARP(t, Guest4.MAC, packet.ARPRequest, Guest4, Peer4), IP(t, Peer4, Guest4, UDP(1, 2)),
	} {
		w.out(f)
	}
	c := w.Stats().FromGuest
	sum := c.Passed + c.Queries
	for _, n := range append(c.Malformed[:], c.Dropped[:]...) {
		sum += n
	}
	if c.Frames != 5 || sum != 5 || c.Answered != 1 || c.Queries != 1 || c.Passed != 1 {
		t.Errorf("%+v", c)
	}
}

func TestConfigurationsThatCannotHold(t *testing.T) {
	named, err := policy.Parse(map[string]string{policy.AnnotationEgressAllow: "api.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]Config{
		"no hardware address": {},
		"a group's":           {MAC: packet.MAC{1}},
		"everybody's address": {MAC: Guest4.MAC, Addresses: []netip.Addr{netip.IPv4Unspecified()}},
		"names, no openings":  {MAC: Guest4.MAC, Policy: named},
	} {
		if f, err := New(c); err == nil || f != nil {
			t.Errorf("%s: no error", what)
		}
	}
}
