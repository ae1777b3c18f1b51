package policy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"krun.dev/krunpod/vnet/packet"
)

func parse(t *testing.T, rules, short string) *Policy {
	t.Helper()
	p, err := Parse(annotations(rules, short))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func annotations(rules, short string) map[string]string {
	m := map[string]string{"krun.dev/vcpus": "1"}
	if rules != "" {
		m[AnnotationRules] = rules
	}
	if short != "" {
		m[AnnotationEgressAllow] = short
	}
	return m
}

func TestNoAnnotationIsNoPolicy(t *testing.T) {
	if p := parse(t, "", ""); p != nil {
		t.Errorf("%v", p)
	}
}

func TestStatements(t *testing.T) {
	for text, want := range map[string]string{
		"allow egress tcp 10.0.0.0/8 443,8000-8080": "allow egress tcp 10.0.0.0/8 443,8000-8080",
		"allow egress any":                          "allow egress any any",
		"allow egress any any":                      "allow egress any any",
		"allow egress any 53":                       "allow egress any any 53",
		"allow egress any any 53":                   "allow egress any any 53",
		"allow egress any 10.0.0.1 53":              "allow egress any 10.0.0.1 53",
		"deny egress 169.254.169.254":               "deny egress any 169.254.169.254",
		"deny ingress icmp any":                     "deny ingress icmp any",
		"allow egress udp 2001:db8::/32 53":         "allow egress udp 2001:db8::/32 53",
		"allow egress API.Example.ORG. 443":         "allow egress any api.example.org 443",
		"allow egress tcp *.internal.example":       "allow egress tcp *.internal.example",
		"  allow\tingress  tcp any 80  ":            "allow ingress tcp any 80",
	} {
		p := parse(t, text, "")
		if len(p.Rules) != 1 || p.Rules[0].String() != want {
			t.Errorf("%q: %v, want %s", text, p.Rules, want)
		}
	}
}

func TestShortFormIsForEgressOnly(t *testing.T) {
	p := parse(t, "", "api.example.org:443, *.internal.example ,10.1.0.0/16:5432,192.0.2.1, [2001:db8::1]:443,2001:db8::2,[2001:db8:1::/48]")
	want := []string{
		"allow egress any api.example.org 443", "allow egress any *.internal.example",
		"allow egress any 10.1.0.0/16 5432", "allow egress any 192.0.2.1",
		"allow egress any 2001:db8::1 443", "allow egress any 2001:db8::2", "allow egress any 2001:db8:1::/48",
	}
	var got []string
	for _, r := range p.Rules {
		got = append(got, r.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if p.Default != [2]Action{Egress: Deny, Ingress: Allow} {
		t.Errorf("defaults %v", p.Default)
	}
}

func TestADirectionWithSomethingAllowedDeniesTheRest(t *testing.T) {
	for text, want := range map[string][2]Action{
		"deny egress any":                           {Allow, Allow},
		"allow egress tcp any 443":                  {Deny, Allow},
		"allow ingress tcp any 80":                  {Allow, Deny},
		"default egress deny":                       {Deny, Allow},
		"allow egress any 80; default egress allow": {Allow, Allow},
		"default ingress deny\ndefault egress deny": {Deny, Deny},
		"deny ingress any;allow egress 10.0.0.0/8":  {Deny, Allow},
	} {
		if p := parse(t, text, ""); p.Default != want {
			t.Errorf("%q: %v, want %v", text, p.Default, want)
		}
	}
}

func TestRulesComeBeforeTheShortForm(t *testing.T) {
	p := parse(t, "deny egress 10.0.0.0/8", "*.example.org:443")
	if len(p.Rules) != 2 || p.Rules[0].Action != Deny || p.Default[Egress] != Deny {
		t.Errorf("%v", p)
	}
}

func TestAMistakeNamesItsWord(t *testing.T) {
	rules := map[string]string{
		"alow egress any":                                 "alow",
		"allow outward any":                               "outward",
		"allow egress":                                    "allow egress",
		"allow egress tcp":                                "allow egress tcp",
		"allow egress tcp 10.0.0.1/8":                     "10.0.0.1/8",
		"allow egress tcp 10.0.0.0/33":                    "10.0.0.0/33",
		"allow egress tcp 10.0.0.300":                     "10.0.0.300",
		"allow egress tcp 10.0.0.1 0":                     "0",
		"allow egress tcp 10.0.0.1 70000":                 "70000",
		"allow egress tcp 10.0.0.1 443,":                  "",
		"allow egress tcp 10.0.0.1 90-80":                 "90-80",
		"allow egress tcp 10.0.0.1 +80":                   "+80",
		"allow egress tcp 10.0.0.1 80 90":                 "90",
		"allow egress tcp 10.0.0.1, 10.0.0.2":             "10.0.0.1,",
		"allow egress icmp any 80":                        "80",
		"allow egress ::ffff:10.0.0.1":                    "::ffff:10.0.0.1",
		"allow egress fe80::1%eth0":                       "fe80::1%eth0",
		"allow egress sctp 10.0.0.1":                      "sctp",
		"allow egress database 5432":                      "database",
		"allow egress a..example.org":                     "a..example.org",
		"allow egress exämple.org":                        "exämple.org",
		"allow egress *":                                  "*",
		"allow egress api.*.org":                          "api.*.org",
		"allow egress *api.example.org":                   "*api.example.org",
		"allow egress -a.example.org":                     "-a.example.org",
		"deny egress api.example.org":                     "api.example.org",
		"allow ingress api.example.org":                   "api.example.org",
		"default egress":                                  "default egress",
		"default egres deny":                              "egres",
		"default egress maybe":                            "maybe",
		"default egress deny;default egress allow":        "default egress allow",
		"allow egress a.example.org;default egress allow": "default egress allow",
		" ; \n": "",
	}
	for text, word := range rules {
		checkMistake(t, annotations(text, ""), AnnotationRules, word)
	}
	for text, word := range map[string]string{
		"api.example.org:443,":        "",
		"api.example.org:https":       "https",
		"api.example.org: 443":        " 443",
		"https://api.example.org":     "https://api.example.org",
		"[2001:db8::1:443":            "[2001:db8::1:443",
		"[2001:db8::1]443":            "[2001:db8::1]443",
		"a.example.org b.example.org": "a.example.org b.example.org",
		" ":                           "",
	} {
		checkMistake(t, annotations("", text), AnnotationEgressAllow, word)
	}
}

func checkMistake(t *testing.T, annotations map[string]string, annotation, word string) {
	t.Helper()
	p, err := Parse(annotations)
	var e *Error
	if !errors.As(err, &e) || p != nil {
		t.Errorf("%q: %v, %v", annotations[annotation], p, err)
		return
	}
	if e.Annotation != annotation || e.Word != word || e.Reason == "" {
		t.Errorf("%q: the word is %q of %s (%v), want %q", annotations[annotation], e.Word, e.Annotation, err, word)
	}
	if !strings.Contains(err.Error(), annotation) {
		t.Errorf("%v does not name its annotation", err)
	}
}

func TestBounds(t *testing.T) {
	long := strings.Repeat("a", 64) + ".org"
	for _, text := range []string{
		strings.Repeat("allow egress any;", maxRules+1),
		"allow egress any 1" + strings.Repeat(",1", maxPorts),
		strings.Repeat(" ", maxText+1),
		"allow egress " + long,
		"allow egress " + strings.Repeat("a.", 127) + "org",
	} {
		if p, err := Parse(annotations(text, "")); err == nil || p != nil {
			t.Errorf("%.40q…: no error", text)
		} else if len(err.Error()) > 400 {
			t.Errorf("%.40q…: a message of %d bytes", text, len(err.Error()))
		}
	}
	parse(t, strings.Repeat("allow egress any;", maxRules), "")
}

func TestWhatARuleCovers(t *testing.T) {
	rule := func(text string) *Rule { return &parse(t, text, "").Rules[0] }
	inside, outside := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("11.0.0.1")
	r := rule("allow egress 10.0.0.0/8 80-90,443")
	for port, want := range map[uint16]bool{79: false, 80: true, 90: true, 91: false, 443: true} {
		if r.Covers(Egress, packet.TCPProtocol, port) != want || r.Covers(Egress, packet.UDPProtocol, port) != want {
			t.Errorf("port %d: not %t", port, want)
		}
	}
	if r.Covers(Ingress, packet.TCPProtocol, 80) {
		t.Error("covers the other direction")
	}
	if r.Covers(Egress, packet.ICMPv4Protocol, 0) || r.Covers(Egress, 47, 0) {
		t.Error("a rule with ports covers a protocol without them")
	}
	if !r.CoversAddress(inside) || r.CoversAddress(outside) {
		t.Error("address")
	}
	if icmp := rule("allow egress icmp any"); !icmp.Covers(Egress, packet.ICMPv6Protocol, 0) || icmp.Covers(Egress, packet.TCPProtocol, 1) {
		t.Error("icmp")
	}
	if named := rule("allow egress api.example.org"); named.CoversAddress(inside) || !named.Covers(Egress, 47, 0) {
		t.Error("a name covers addresses by itself")
	}
}

func TestNamesMatchByWholeLabels(t *testing.T) {
	p := parse(t, "", "api.example.org, *.internal.example, *.example.org, 10.0.0.0/8, *.org")
	set := p.NameSet()
	for name, want := range map[string][]int{
		"api.example.org":       {0, 2, 4},
		"xapi.example.org":      {2, 4},
		"example.org":           {4},
		"org":                   nil,
		"internal.example":      nil,
		"a.b.internal.example":  {1},
		"notinternal.example":   nil,
		"api.example.org.evil":  nil,
		"evil-internal.example": nil,
		"":                      nil,
	} {
		if got := set.Match(name, nil); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if !p.Names() || parse(t, "", "10.0.0.0/8").Names() {
		t.Error("Names")
	}
}

// What is denied is denied in the notations of IPv6 for it, which a translator turns back; what is allowed is not allowed in them.
func TestDeniedAddressesAreDeniedInEveryNotation(t *testing.T) {
	p := parse(t, "deny egress 10.0.0.0/8; deny egress 169.254.169.254; allow egress 192.0.2.0/24; allow egress 2001:db8::/32;"+
		"allow egress 64:ff9b::/96; allow egress 2002::/16; allow egress 64:ff9b:1::/48", "")
	for to, want := range map[string]Action{
		"64:ff9b::10.1.2.3": Deny, "64:ff9b:1::10.1.2.3": Deny, "2002:a01:203::1": Deny, "64:ff9b::169.254.169.254": Deny,
		"64:ff9b::192.0.2.1": Allow, "2002:c000:201::1": Allow, "2001:db8::1": Allow, "10.1.2.3": Deny, "192.0.2.1": Allow,
	} {
		if got := p.Decide(Egress, packet.TCPProtocol, netip.MustParseAddr(to), 443); got != want {
			t.Errorf("%s: %v, want %v", to, got, want)
		}
	}
	only := parse(t, "allow egress 192.0.2.0/24", "")
	if only.Decide(Egress, packet.TCPProtocol, netip.MustParseAddr("64:ff9b::192.0.2.1"), 443) != Deny {
		t.Error("an address that stands for one that is allowed is allowed")
	}
}

// FuzzParse looks for a policy that says something else when it is written and read again.
func FuzzParse(f *testing.F) {
	f.Add("allow egress tcp 10.0.0.0/8 443,8000-8080; deny ingress icmp any\ndefault egress deny", "")
	f.Add("allow egress any 53;allow egress any any 53", "[2001:db8::1]:443, *.internal.example")
	f.Add("", "api.example.org:443,192.0.2.0/24")
	f.Fuzz(func(t *testing.T, rules, short string) {
		p, err := Parse(annotations(rules, short))
		if err != nil || p == nil {
			return
		}
		again, err := Parse(annotations(p.String(), ""))
		if err != nil {
			t.Fatalf("%q was written as %q: %v", rules+"|"+short, p, err)
		}
		if again.String() != p.String() {
			t.Fatalf("%q became %q", p, again)
		}
	})
}
