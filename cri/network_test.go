package cri

import (
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/policy"
)

const someNetNS = "/run/netns/pod"

var (
	both    = config.Default().Network
	tapOnly = config.Network{Default: config.WayTap}
	always  = config.Network{Default: config.WayVNet}
	someDNS = &api.DNS{Servers: []string{"127.0.0.53", "10.96.0.10", "::ffff:10.0.0.1", "fd00::1"}}
)

func TestVNetOfAnnotations(t *testing.T) {
	asked := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.0.0.1:53"), netip.MustParseAddrPort("[fd00::1]:53")}
	names := map[string]string{policy.AnnotationEgressAllow: "api.example.org:443"}
	rules := map[string]string{policy.AnnotationRules: "allow egress 10.0.0.0/8", annotationVCPUs: "1"}
	for name, c := range map[string]struct {
		annotations map[string]string
		node        config.Network
		want        *sandbox.VNet
	}{
		"nothing":             {nil, both, nil},
		"the node's default":  {nil, always, &sandbox.VNet{}},
		"an annotation":       {map[string]string{annotationNetwork: "vnet"}, both, &sandbox.VNet{}},
		"what is the default": {map[string]string{annotationNetwork: "tap"}, tapOnly, nil},
		"a policy implies it": {names, both, &sandbox.VNet{Policy: names, Nameservers: asked}},
		"rules without names": {rules, always, &sandbox.VNet{Policy: map[string]string{policy.AnnotationRules: rules[policy.AnnotationRules]}}},
	} {
		got, err := vnet(c.annotations, someNetNS, someDNS, c.node)
		if got != nil && len(got.Policy) == 0 {
			got.Policy = nil
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A mistake never opens the network: there is no pod, and the error names the word that is wrong.
func TestMistakesInAnnotationsOfTheNetworkAreNamed(t *testing.T) {
	for word, c := range map[string]struct {
		annotations map[string]string
		node        config.Network
		dns         *api.DNS
	}{
		`"nat" is neither`:                   {map[string]string{annotationNetwork: "nat"}, both, someDNS},
		`"" is neither`:                      {map[string]string{annotationNetwork: ""}, both, someDNS},
		`"tap" has no policy`:                {map[string]string{annotationNetwork: "tap", policy.AnnotationEgressAllow: "10.0.0.1"}, both, someDNS},
		`this node allows ["tap"]`:           {map[string]string{policy.AnnotationEgressAllow: "10.0.0.1"}, tapOnly, someDNS},
		`this node allows ["vnet"]`:          {map[string]string{annotationNetwork: "tap"}, always, someDNS},
		`"permit"`:                           {map[string]string{policy.AnnotationRules: "permit egress any"}, both, someDNS},
		`"https"`:                            {map[string]string{policy.AnnotationEgressAllow: "api.example.org:https"}, both, someDNS},
		`no nameserver to ask`:               {map[string]string{policy.AnnotationEgressAllow: "api.example.org"}, both, &api.DNS{Servers: []string{"::1"}}},
		`nameserver "ns.example.org" of the`: {map[string]string{policy.AnnotationEgressAllow: "api.example.org"}, both, &api.DNS{Servers: []string{"ns.example.org"}}},
	} {
		if got, err := vnet(c.annotations, someNetNS, c.dns, c.node); err == nil || got != nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
}

func TestNetworkOfAGuestWithoutCNI(t *testing.T) {
	asks := map[string]string{annotationNetwork: "vnet", annotationForward: "8080:80, 53/udp"}
	dns := &api.DNS{Servers: []string{"127.0.0.53", "10.96.0.10"}, Searches: []string{"example.org"}}
	c := both
	c.Subnet = netip.MustParsePrefix("10.7.0.0/24")
	v, err := vnet(asks, "", dns, c)
	if err != nil {
		t.Fatal(err)
	}
	forwards, err := gateway.ParseForwards("127.0.0.1:8080:80,127.0.0.1:53:53/udp")
	if err != nil {
		t.Fatal(err)
	}
	want := &gateway.Config{Subnet: c.Subnet, Forwards: forwards}
	// The gateway asks from the host, whose loopback is its own.
	servers := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), netip.MustParseAddrPort("10.96.0.10:53")}
	if !reflect.DeepEqual(v.Gateway, want) || !reflect.DeepEqual(v.Nameservers, servers) {
		t.Errorf("%+v, %v", v.Gateway, v.Nameservers)
	}
	if !reflect.DeepEqual(dns.Servers, []string{"10.7.0.1"}) || dns.Searches[0] != "example.org" {
		t.Errorf("the guest is told %v", dns)
	}
	if v, err := vnet(nil, "", someDNS, both); v != nil || err != nil {
		t.Errorf("one that does not ask: %+v, %v", v, err)
	}
	if v, err := vnet(nil, "", &api.DNS{}, always); err != nil || v.Gateway == nil || v.Nameservers != nil {
		t.Errorf("a host without nameservers: %+v, %v", v, err)
	}
}

func TestMistakesInForwardsAreNamed(t *testing.T) {
	for word, c := range map[string]struct {
		netNS, text string
		node        config.Network
	}{
		"has a network of CNI":           {someNetNS, "80", always},
		`set krun.dev/network to "vnet"`: {"", "80", tapOnly},
		`annotation krun.dev/forward: forward "http": "http" is not a port`: {"", "http", always},
		"another one listens there":                                         {"", "80,80", always},
	} {
		v, err := vnet(map[string]string{annotationForward: c.text}, c.netNS, &api.DNS{}, c.node)
		if err == nil || v != nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %+v, %v", word, v, err)
		}
	}
}

// annotation is one of a manifest in YAML, in quotation marks or as a block.
var annotation = regexp.MustCompile(`(krun\.dev/[a-z-]+): (?:"([^"]*)"|\|\n((?: {6}.*\n)+))`)

func TestPoliciesOfTheDocumentationAreValid(t *testing.T) {
	text, err := os.ReadFile("../docs/networking.md")
	if err != nil {
		t.Fatal(err)
	}
	all := annotation.FindAllStringSubmatch(string(text), -1)
	for _, a := range all {
		if v, err := vnet(map[string]string{a[1]: a[2] + a[3]}, someNetNS, someDNS, both); err != nil || len(v.Policy) == 0 {
			t.Errorf("%v: %s", err, a[0])
		}
	}
	if len(all) != strings.Count(string(text), "annotations:") || len(all) < 3 {
		t.Errorf("docs/networking.md has %d examples of a policy", len(all))
	}
}
