package vnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"

	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/policy"
)

// Config is all that one process needs. The sandbox writes it as a line of JSON to the process's standard input, which it keeps
// open for as long as the process is to live.
type Config struct {
	// Links are the pod's interfaces, in the order of the guest's NICs.
	Links []Link `json:"links,omitempty"`
	// Gateway is the network of a guest without CNI's, in place of Links. The process's descriptor GuestFile leads to the guest.
	Gateway *gateway.Config `json:"gateway,omitempty"`
	// Policy holds the annotations of the pod that say what may pass (policy.Parse); without any, everything may.
	Policy map[string]string `json:"policy,omitempty"`
	// Nameservers are the pod's, which answer for the names in Policy; they must be those of netbridge.Watch. Those of a Gateway are the
	// host's, and answer for all names if Policy has none.
	Nameservers []netip.AddrPort `json:"nameservers,omitempty"`
	// Root is an empty directory of the host that becomes the process's root (a tmpfs is mounted on it); Open does not need it.
	Root string `json:"root,omitempty"`
}

// GuestFile is the number of the descriptor that leads to the NIC of a guest with a Gateway: a stream socket, on which each frame comes
// after its length.
const GuestFile = 3

// Link is one interface of the pod, by the names of its two ends in the pod's network namespace.
type Link struct {
	// Guest is the tap, Network is CNI's.
	Guest   string `json:"guest"`
	Network string `json:"network"`
	// MAC is the guest's hardware address in colon notation, Addresses are those it may speak as.
	MAC       string       `json:"mac"`
	Addresses []netip.Addr `json:"addresses"`
}

// ReadConfig reads the line that holds a Config, and validates it; unknown fields are errors. What follows stays in the decoder's
// buffer: nothing should.
func ReadConfig(r io.Reader) (*Config, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	var c Config
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("vnet configuration: %w", err)
	}
	if _, err := c.Validate(); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(c.Root) {
		return nil, &FieldError{"root", fmt.Errorf("%q is not an absolute path", c.Root)}
	}
	return &c, nil
}

// FieldError is a value of Config that cannot be used.
type FieldError struct {
	Field  string
	Reason error
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("vnet configuration: %s: %v", e.Field, e.Reason)
}

func (e *FieldError) Unwrap() error { return e.Reason }

// Validate reports the first field that cannot be used, as a *FieldError, and returns the policy, nil for none.
func (c *Config) Validate() (*policy.Policy, error) {
	switch {
	case c.Gateway != nil && len(c.Links) > 0:
		return nil, &FieldError{"gateway", errors.New("a guest with one has no links")}
	case c.Gateway != nil:
		if err := c.Gateway.Validate(); err != nil {
			return nil, &FieldError{"gateway", err}
		}
	case len(c.Links) == 0:
		return nil, &FieldError{"links", errors.New("there are none")}
	case len(c.Links) > maxLinks:
		return nil, &FieldError{"links", fmt.Errorf("there are %d, the most is %d", len(c.Links), maxLinks)}
	}
	for i, l := range c.Links {
		field := fmt.Sprintf("links[%d]", i)
		if l.Guest == "" || l.Network == "" || l.Guest == l.Network {
			return nil, &FieldError{field, fmt.Errorf("%q and %q are not two interfaces", l.Guest, l.Network)}
		}
		if mac, err := net.ParseMAC(l.MAC); err != nil || len(mac) != 6 {
			return nil, &FieldError{field + ".mac", fmt.Errorf("%q is not a hardware address of Ethernet", l.MAC)}
		}
		for _, a := range l.Addresses {
			if !a.IsValid() {
				return nil, &FieldError{field + ".addresses", errors.New("one is empty")}
			}
		}
	}
	for _, ns := range c.Nameservers {
		if !ns.IsValid() || ns.Port() == 0 {
			return nil, &FieldError{"nameservers", fmt.Errorf("%v is not an address and a port", ns)}
		}
	}
	p, err := policy.Parse(c.Policy)
	if err != nil {
		return nil, &FieldError{"policy", err}
	}
	if p != nil && p.Names() && len(c.Nameservers) == 0 {
		return nil, &FieldError{"nameservers", errors.New("there are none, and the policy has names")}
	}
	return p, nil
}
