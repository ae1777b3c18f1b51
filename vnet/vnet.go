package vnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"krun.dev/krunpod/vnet/bridge"
	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// Vnet carries the frames of one pod.
type Vnet struct {
	links    []link
	policy   *policy.Policy
	openings *firewall.Openings
	resolver *dns.Resolver
}

type link struct {
	name   string
	bridge *bridge.Bridge
}

// Open opens the interfaces in the network namespace of the calling thread. refused is told of names that the guest asked for and
// may not know, of each once and not too often. After an error nothing is open.
func Open(c *Config, refused func(name string)) (_ *Vnet, err error) {
	v := &Vnet{openings: firewall.NewOpenings(0, nil)}
	if v.policy, err = c.Validate(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	if v.NeedsToDial() {
		v.resolver = dns.New(dns.Config{
			Names: v.policy.NameSet(), Openings: v.openings, Refused: refused,
			Upstream: dns.NewServers(c.Nameservers, new(net.Dialer).DialContext),
		})
	}
	for _, l := range c.Links {
		b, err := v.open(l, c.Nameservers)
		if err != nil {
			return nil, err
		}
		v.links = append(v.links, link{l.Network, b})
	}
	return v, nil
}

// NeedsToDial reports whether there is a resolver, which asks the nameservers.
func (v *Vnet) NeedsToDial() bool { return v.policy != nil && v.policy.Names() }

func (v *Vnet) open(l Link, nameservers []netip.AddrPort) (*bridge.Bridge, error) {
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return nil, err
	}
	wall, err := firewall.New(firewall.Config{
		MAC: packet.MAC(mac), Addresses: l.Addresses, Policy: v.policy, Openings: v.openings, Nameservers: nameservers,
	})
	if err != nil {
		return nil, err
	}
	c := bridge.Config{Guest: l.Guest, Network: l.Network, Firewall: wall}
	if v.resolver != nil {
		c.Resolver = v.resolver
	}
	return bridge.Open(c)
}

// Close closes the interfaces of a Vnet that does not run.
func (v *Vnet) Close() error {
	var errs []error
	for _, l := range v.links {
		errs = append(errs, l.bridge.Close())
	}
	return errors.Join(errs...)
}

// Run carries frames until ctx ends, or one of the interfaces fails: then none is carried any more.
func (v *Vnet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(v.links))
	var running sync.WaitGroup
	for i, l := range v.links {
		running.Go(func() {
			defer cancel()
			errs[i] = l.bridge.Run(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
