package gateway

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

func TestForwardsHaveDefaults(t *testing.T) {
	for text, want := range map[string]string{
		"80":                  "127.0.0.1:80:80/tcp",
		"8080:80":             "127.0.0.1:8080:80/tcp",
		"53/udp":              "127.0.0.1:53:53/udp",
		"0.0.0.0:8080:80/tcp": "0.0.0.0:8080:80/tcp",
		"[::1]:8080:80":       "[::1]:8080:80/tcp",
		"::1:8080:80":         "[::1]:8080:80/tcp",
	} {
		f, err := ParseForward(text)
		if err != nil || f.String() != want {
			t.Errorf("%s: %s, %v; want %s", text, f, err, want)
		}
	}
}

func TestBadForwardsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"": `"" is not a port`, "0": `"0" is not a port`, "70000": `"70000" is not a port`, "80/sctp": `"sctp" is neither`,
		"a:80": `"a" is not a port`, "host:80:80": `"host" is not an IP address`, "1.2.3.4:80": `"1.2.3.4" is not a port`,
		"224.0.0.1:80:80": "nobody can listen", "fe80::1%eth0:80:80": "not a plain address", "80,": `"" is not a port`,
	} {
		if list, err := ParseForwards(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want an error with %q", text, list, err, want)
		}
	}
}

func FuzzForward(f *testing.F) {
	for _, text := range []string{"80", "8080:80/udp", "[::1]:1:2", "1.2.3.4:5:6/tcp", "::1:2:3", "[::1%eth0]:1:2", "0:0", ":::", "1/", "::ffff:1.2.3.4:5:6"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		forward, err := ParseForward(text)
		if err != nil {
			return
		}
		if again, err := ParseForward(forward.String()); err != nil || again != forward {
			t.Errorf("%q is %v, and that is read as %v, %v", text, forward, again, err)
		}
	})
}

func TestConfigIsReadAsItWasWritten(t *testing.T) {
	c := Config{Subnet: netip.MustParsePrefix("10.0.0.0/30"), Forwards: []Forward{{tcp, netip.MustParseAddrPort("127.0.0.1:8080"), 80}}}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got Config
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%s is %+v, %v", data, got, err)
	}
	if data, err := json.Marshal(Config{}); err != nil || string(data) != "{}" {
		t.Errorf("the zero value is %s, %v", data, err)
	}
}

func TestAddresses(t *testing.T) {
	var c Config
	if c.Address().String() != "192.168.127.1/24" || c.Guest().String() != "192.168.127.2/24" {
		t.Errorf("%s and %s", c.Address(), c.Guest())
	}
	c.Subnet = netip.MustParsePrefix("10.1.2.4/30")
	if c.Address().String() != "10.1.2.5/30" || c.Guest().String() != "10.1.2.6/30" || c.Validate() != nil {
		t.Errorf("%s and %s: %v", c.Address(), c.Guest(), c.Validate())
	}
}

func TestBadConfigsAreNamed(t *testing.T) {
	at := Forward{tcp, netip.MustParseAddrPort("127.0.0.1:80"), 80}
	for want, c := range map[string]Config{
		"room for two":            {Subnet: netip.MustParsePrefix("10.0.0.0/31")},
		"not one of IPv4":         {Subnet: netip.MustParsePrefix("fd00::/64")},
		"is an address in":        {Subnet: netip.MustParsePrefix("10.0.0.1/24")},
		"no station may have":     {Subnet: netip.MustParsePrefix("127.1.0.0/16")},
		"another one listens":     {Forwards: []Forward{at, at}},
		"neither tcp nor udp":     {Forwards: []Forward{{"sctp", at.Listen, 80}}},
		"forward 127.0.0.1:80:0/": {Forwards: []Forward{{tcp, at.Listen, 0}}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error with %q", c, err, want)
		}
	}
}

func TestGuardHoldsWhateverThePolicySays(t *testing.T) {
	var c Config
	all, err := policy.Parse(map[string]string{policy.AnnotationRules: "allow egress any any"})
	if err != nil {
		t.Fatal(err)
	}
	none, err := policy.Parse(map[string]string{policy.AnnotationRules: "default egress deny"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		protocol  packet.Protocol
		to        string
		port      uint16
		open, mid bool // with a policy that allows all, and with one that allows nothing
	}{
		{packet.TCPProtocol, "192.0.2.1", 443, true, false},
		{packet.UDPProtocol, "10.0.0.1", 53, true, false},
		{packet.UDPProtocol, "192.168.127.1", 53, true, false},
		{packet.TCPProtocol, "192.168.127.1", 80, true, false}, // a service
		{packet.TCPProtocol, "192.168.127.1", 22, false, false},
		{packet.TCPProtocol, "192.168.127.77", 80, false, false},
		{packet.ICMPv4Protocol, "192.168.127.1", 0, true, true},
		{packet.ICMPv4Protocol, "192.0.2.1", 0, false, false},
		{packet.TCPProtocol, "127.0.0.1", 80, false, false},
		{packet.TCPProtocol, "127.255.255.255", 80, false, false},
		{packet.TCPProtocol, "0.0.0.0", 80, false, false},
		{packet.TCPProtocol, "169.254.169.254", 80, false, false},
		{packet.UDPProtocol, "255.255.255.255", 67, false, false},
		{packet.UDPProtocol, "224.0.0.251", 5353, false, false},
		{packet.TCPProtocol, "2001:db8::1", 443, false, false},
		{packet.ICMPv6Protocol, "2001:db8::1", 0, false, false},
	} {
		to := netip.MustParseAddr(tc.to)
		for p, want := range map[*policy.Policy]bool{nil: tc.open, all: tc.open, none: tc.mid} {
			if got := c.Guard(p, Services{80: nil}).Decide(policy.Egress, tc.protocol, to, tc.port) == policy.Allow; got != want {
				t.Errorf("protocol %d to %s port %d: %v, want %v with\n%v", tc.protocol, to, tc.port, got, want, p)
			}
		}
	}
}
