package gateway

import (
	"errors"
	"fmt"
	"net/netip"

	"krun.dev/krunpod/vnet/packet"
)

// Config is one such network. The zero value is one without forwards.
type Config struct {
	// Subnet is the network's, of IPv4; the zero value is DefaultSubnet. Its first address is the gateway's, its second the guest's.
	Subnet netip.Prefix `json:"subnet,omitzero"`
	// Forwards lead from the host to the guest.
	Forwards []Forward `json:"forwards,omitempty"`
}

// DefaultSubnet is that of gvproxy, which people who forward ports to a VM know.
var DefaultSubnet = netip.MustParsePrefix("192.168.127.0/24")

// MTU is the guest's, in bytes: its frames leave for sockets of the host, whose own paths are seldom wider.
const MTU = 1500

// The hardware addresses are locally administered; each network has one guest, so they are the same in all.
var (
	MAC      = packet.MAC{0x02, 'k', 'r', 'u', 'n', 1}
	GuestMAC = packet.MAC{0x02, 'k', 'r', 'u', 'n', 2}
)

// longestPrefix leaves room for the network, the gateway, the guest and the broadcast address.
const longestPrefix = 30

// Validate reports what cannot be used.
func (c *Config) Validate() error {
	p := c.subnet()
	switch {
	case !p.IsValid() || !p.Addr().Is4() || p.Bits() > longestPrefix || p.Bits() == 0:
		return fmt.Errorf("subnet: %s is not one of IPv4 with room for two, such as %s", c.Subnet, DefaultSubnet)
	case p.Masked() != p:
		return fmt.Errorf("subnet: %s is an address in %s", p, p.Masked())
	case p.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) || p.Overlaps(netip.MustParsePrefix("224.0.0.0/3")) ||
		p.Overlaps(netip.MustParsePrefix("0.0.0.0/8")):
		return fmt.Errorf("subnet: %s has addresses that no station may have", p)
	}
	seen := map[string]bool{}
	for _, f := range c.Forwards {
		if err := f.validate(); err != nil {
			return fmt.Errorf("forward %s: %w", f, err)
		}
		at := f.Protocol + f.Listen.String()
		if seen[at] {
			return fmt.Errorf("forward %s: %w", f, errors.New("another one listens there"))
		}
		seen[at] = true
	}
	return nil
}

func (c *Config) subnet() netip.Prefix {
	if c.Subnet == (netip.Prefix{}) {
		return DefaultSubnet
	}
	return c.Subnet
}

// Address is the gateway's, with the length of its subnet.
func (c *Config) Address() netip.Prefix {
	p := c.subnet()
	return netip.PrefixFrom(p.Addr().Next(), p.Bits())
}

// Guest is the guest's address, with the length of its subnet.
func (c *Config) Guest() netip.Prefix {
	p := c.subnet()
	return netip.PrefixFrom(p.Addr().Next().Next(), p.Bits())
}
