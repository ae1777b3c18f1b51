package vnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	"krun.dev/krunpod/vnet/bridge"
	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// Vnet carries the frames of one pod.
type Vnet struct {
	links    []link
	policy   *policy.Policy
	openings *firewall.Openings
	resolver *dns.Resolver
	gateway  Gateway
}

type link struct {
	name   string
	bridge *bridge.Bridge
}

// Gateway is that of a guest without CNI's network: each Read is a frame for the guest, each Write is one of the guest.
type Gateway interface {
	io.ReadWriteCloser
	// Run serves until ctx ends, and closes it.
	Run(ctx context.Context) error
}

// Hooks are what a Vnet works with besides its Config.
type Hooks struct {
	// Refused is told of names that the guest asked for and may not know: see dns.Config.
	Refused func(name string, untold int) bool
	// Guest leads to the NIC of a guest with Config.Gateway: a stream, on which each frame comes after its length. The Vnet closes it.
	Guest net.Conn
	// Gateway opens the gateway of Config.Gateway, with Services: package nat, whose stack is not needed for anything else that uses
	// a Config.
	Gateway func(gateway.Config, gateway.Services) (Gateway, error)
	// Services answer the guest at the gateway's address, if its policy lets it connect there.
	Services gateway.Services
}

// Open opens the interfaces in the network namespace of the calling thread, or the gateway. After an error nothing is open.
func Open(c *Config, hooks Hooks) (_ *Vnet, err error) {
	v := &Vnet{openings: firewall.NewOpenings(0, nil)}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
			if hooks.Guest != nil {
				hooks.Guest.Close()
			}
		}
	}()
	if v.policy, err = c.Validate(); err != nil {
		return nil, err
	}
	if c.Gateway != nil {
		// The resolver opens addresses for the rules that the firewall has, by their indexes: both have this policy.
		v.policy = c.Gateway.Guard(v.policy, hooks.Services)
	}
	names := v.policy != nil && v.policy.Names()
	if names || c.Gateway != nil {
		config := dns.Config{
			Openings: v.openings, Refused: hooks.Refused, Upstream: dns.NewServers(c.Nameservers, new(net.Dialer).DialContext),
		}
		if names {
			config.Names = v.policy.NameSet()
		}
		v.resolver = dns.New(config)
	}
	if c.Gateway != nil {
		if err := v.openGateway(*c.Gateway, hooks); err != nil {
			return nil, err
		}
		return v, nil
	}
	for _, l := range c.Links {
		if err := v.open(l, c.Nameservers); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Dials reports whether sockets are made while it runs: by the resolver, and by a gateway.
func (v *Vnet) Dials() bool { return v.resolver != nil }

// Serves reports whether there is a gateway, which also accepts connections.
func (v *Vnet) Serves() bool { return v.gateway != nil }

func (v *Vnet) open(l Link, nameservers []netip.AddrPort) error {
	mac, err := net.ParseMAC(l.MAC)
	if err != nil {
		return err
	}
	guest, err := bridge.Interface(l.Guest)
	if err != nil {
		return err
	}
	network, err := bridge.Interface(l.Network)
	if err != nil {
		return errors.Join(err, guest.Close())
	}
	return v.join(l.Network, guest, network, firewall.Config{
		MAC: packet.MAC(mac), Addresses: l.Addresses, Policy: v.policy, Nameservers: nameservers,
	})
}

// gatewayName is what reports call the link to a gateway.
const gatewayName = "gateway"

func (v *Vnet) openGateway(c gateway.Config, hooks Hooks) (err error) {
	if hooks.Guest == nil || hooks.Gateway == nil {
		return errors.New("open the gateway: Hooks.Guest and Hooks.Gateway are needed for Config.Gateway")
	}
	if v.gateway, err = hooks.Gateway(c, hooks.Services); err != nil {
		v.gateway = nil // and no typed one
		return err
	}
	return v.join(gatewayName, bridge.Stream("guest", hooks.Guest), bridge.Messages(gatewayName, v.gateway), firewall.Config{
		MAC: gateway.GuestMAC, Addresses: []netip.Addr{c.Guest().Addr()}, Policy: v.policy, Gateway: c.Address().Addr(),
	})
}

// join adds a link; it has the ports, also after an error.
func (v *Vnet) join(name string, guest, network *bridge.Port, config firewall.Config) error {
	config.Openings = v.openings
	wall, err := firewall.New(config)
	if err != nil {
		return errors.Join(err, guest.Close(), network.Close())
	}
	c := bridge.Config{Guest: guest, Network: network, Firewall: wall}
	if v.resolver != nil {
		c.Resolver = v.resolver
	}
	b, err := bridge.New(c)
	if err != nil {
		return err
	}
	v.links = append(v.links, link{name, b})
	return nil
}

// Close closes the interfaces and the gateway of a Vnet that does not run.
func (v *Vnet) Close() error {
	var errs []error
	for _, l := range v.links {
		errs = append(errs, l.bridge.Close())
	}
	if v.gateway != nil {
		errs = append(errs, v.gateway.Close())
	}
	return errors.Join(errs...)
}

// Run carries frames until ctx ends, or one of the interfaces fails: then none is carried any more.
func (v *Vnet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(v.links)+1)
	var running sync.WaitGroup
	for i, l := range v.links {
		running.Go(func() {
			defer cancel()
			errs[i] = l.bridge.Run(ctx)
		})
	}
	if v.gateway != nil {
		running.Go(func() {
			defer cancel()
			errs[len(v.links)] = v.gateway.Run(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
