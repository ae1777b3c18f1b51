package bridge

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// lab is a pod whose interfaces a bridge joins.
type lab struct{ *netlab.Pod }

func newLab(t testing.TB) *lab {
	t.Helper()
	return &lab{netlab.NewPod(t)}
}

// join runs a bridge with a policy in the syntax of the annotation ("" is none) until the test's end.
func (l *lab) join(rules string, change ...func(*Config)) *Bridge {
	l.Helper()
	return l.joinTo("krun0", rules, change...)
}

// joinTo is join with another interface before the guest.
func (l *lab) joinTo(guest, rules string, change ...func(*Config)) *Bridge {
	l.Helper()
	l.Silence("eth0", "")
	l.Silence("krun0", "")
	f := firewall.Config{
		MAC: packet.MAC(l.MAC), Addresses: []netip.Addr{netip.MustParseAddr(netlab.Guest4), netip.MustParseAddr(netlab.Guest6)},
		Openings: firewall.NewOpenings(0, nil),
	}
	if rules != "" {
		var err error
		f.Policy, err = policy.Parse(map[string]string{policy.AnnotationRules: rules})
		netlab.Must(l, err)
	}
	wall, err := firewall.New(f)
	netlab.Must(l, err)
	c := Config{Firewall: wall}
	if f.Policy != nil && f.Policy.Names() {
		c.Resolver = l.resolver(f.Policy, f.Openings)
	}
	for _, fn := range change {
		fn(&c)
	}
	var b *Bridge
	l.Pod.Pod.In(func() (err error) {
		if c.Guest, err = Interface(guest); err != nil {
			return err
		}
		if c.Network, err = Interface("eth0"); err != nil {
			return err
		}
		b, err = New(c)
		return err
	})
	ctx, cancel := context.WithCancel(l.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	l.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				l.Error(err)
			}
		case <-time.After(netlab.Patience):
			l.Error("the bridge does not end")
		}
	})
	return b
}
