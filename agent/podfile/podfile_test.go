package podfile

import (
	"net/netip"
	"strings"
	"testing"

	"krun.dev/krunpod/agent/api"
)

func TestResolvConfHasSearchesServersOptionsInThatOrder(t *testing.T) {
	got, err := ResolvConf(&api.DNS{
		Servers: []string{"10.96.0.10", "fd00::a"}, Searches: []string{"a.svc.cluster.local", "cluster.local"},
		Options: []string{"ndots:5", "edns0"},
	})
	want := "search a.svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n"
	if err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ResolvConf(nil); err != nil || got != "" {
		t.Errorf("without DNS: %q, %v", got, err)
	}
}

func TestHostsNamesThePodAtEachAddress(t *testing.T) {
	got, err := Hosts("web-0", []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")})
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"127.0.0.1\tlocalhost", "10.0.0.7\tweb-0", "fd00::7\tweb-0"}
	for _, line := range lines {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in\n%s", line, got)
		}
	}
}

func TestValuesThatWouldBecomeMoreLinesAreRefused(t *testing.T) {
	for name, f := range map[string]func() (string, error){
		"server":   func() (string, error) { return ResolvConf(&api.DNS{Servers: []string{"1.1.1.1\noptions debug"}}) },
		"search":   func() (string, error) { return ResolvConf(&api.DNS{Searches: []string{"a b"}}) },
		"hostname": func() (string, error) { return Hostname("a\nb") },
		"hosts":    func() (string, error) { return Hosts("x\n2.2.2.2 y", nil) },
	} {
		if got, err := f(); err == nil {
			t.Errorf("%s: accepted as %q", name, got)
		}
	}
}
