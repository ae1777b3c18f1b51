package main

import (
	"net/netip"
	"strings"
	"testing"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/policy"
)

func TestTrafficAsATable(t *testing.T) {
	var out strings.Builder
	err := printTraffic(&out, traffic{
		&sandbox.VNet{
			Policy:      map[string]string{policy.AnnotationRules: "allow egress any 53\ndeny ingress any\n", policy.AnnotationEgressAllow: "api.example.org:443"},
			Nameservers: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")},
		},
		&vnet.Report{
			Links: []vnet.LinkReport{{Interface: "eth0", Connections: 3, FromGuest: vnet.SideReport{Frames: 311, Passed: 302, Dropped: map[string]uint64{"refused": 2}, Unread: 1, Unsent: 2},
				FromNetwork: vnet.SideReport{Frames: 298, Passed: 298}}},
			Resolver: &dns.Stats{}, OpenAddresses: 2, RefusedNames: map[string]uint64{"evil.example.org.": 4},
		},
	})
	const want = `krun.dev/egress-allow:    api.example.org:443
krun.dev/network-policy:  allow egress any 53; deny ingress any
nameservers:              [10.96.0.10:53]
open addresses:           2

INTERFACE  FROM     FRAMES  PASSED  LOST  CONNECTIONS
eth0       guest    311     302     3     3
eth0       network  298     298     0     3

INTERFACE  FROM   DROPPED  WHY
eth0       guest  2        refused

REFUSED NAME       ASKED FOR
evil.example.org.  4
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}
