package firewall

import (
	"net/netip"
	"testing"

	. "krun.dev/krunpod/vnet/vnettest"
)

// withGateway makes Peer4 the guest's own gateway.
func withGateway(c *Config) { c.Gateway = Peer4.Addr }

func TestGuestWithAGatewayGetsItsLease(t *testing.T) {
	all := Host{MAC: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, Addr: netip.MustParseAddr("255.255.255.255")}
	nobody := Guest4.At("0.0.0.0")
	w := newWall(t, "default egress deny; default ingress deny", withGateway)
	w.want(w.out(IP(t, nobody, all, UDP(68, 67), Data("discover"))), Pass, "a station without an address asks")
	w.want(w.in(IP(t, Peer4, Guest4, UDP(67, 68), Data("offer"))), Pass, "the gateway offers")
	w.want(w.in(IP(t, Peer4, all, UDP(67, 68), Data("offer"))), Pass, "the gateway offers to all")
	w.want(w.out(IP(t, Guest4, Peer4, UDP(68, 67), Data("renew"))), Pass, "the guest renews")
	for what, frame := range map[string][]byte{
		"another port":     IP(t, nobody, all, UDP(68, 69), Data("x")),
		"another sender":   IP(t, Guest4.At("10.9.9.9"), all, UDP(68, 67), Data("x")),
		"another server":   IP(t, Guest4, Peer4.At("10.9.9.9"), UDP(68, 67), Data("x")),
		"another protocol": IP(t, nobody, all, TCP(68, 67, "S")),
	} {
		if v := w.out(frame); v == Pass {
			t.Errorf("%s passes", what)
		}
	}
	w.want(w.in(IP(t, Peer4.At("10.9.9.9"), Guest4, UDP(67, 68), Data("offer"))), Answer, "another offers")

	without := newWall(t, "")
	without.want(without.out(IP(t, nobody, all, UDP(68, 67), Data("discover"))), Drop, "without a gateway it speaks as nobody")
}

func TestGatewayResolvesNames(t *testing.T) {
	w := newWall(t, "", withGateway)
	if !w.NeedsResolver() {
		t.Error("no resolver is asked for")
	}
	w.want(w.out(IP(t, Guest4, Peer4, UDP(4000, 53), Data("query"))), Resolve, "a query to the gateway")
	for _, fragment := range Fragments(t, IP(t, Guest4, Peer4, UDP(4000, 53), Data("0123456789abcdef")), 1, 16) {
		if v := w.out(fragment); v == Pass || v == Resolve {
			t.Error("a part of a query passes the resolver")
		}
	}
	w.want(w.out(IP(t, Guest4, Peer4.At("192.0.2.53"), UDP(4000, 53), Data("query"))), Pass, "a query to another nameserver")
	shut := newWall(t, "default egress deny", withGateway)
	shut.want(shut.out(IP(t, Guest4, Peer4, UDP(4000, 53), Data("query"))), Answer, "a query that the policy does not allow")
}
