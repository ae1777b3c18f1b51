package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Forward is a port of the host that leads to one of the guest. Its text is [[ADDRESS:]PORT:]GUEST[/PROTOCOL]: by default the host
// listens on 127.0.0.1, at the guest's port, for TCP.
type Forward struct {
	// Protocol is "tcp" or "udp".
	Protocol string
	// Listen is where the host listens; Guest is the guest's port.
	Listen netip.AddrPort
	Guest  uint16
}

const (
	tcp = "tcp"
	udp = "udp"
	// maxForwards bounds a list, as each forward holds a socket of the host.
	maxForwards = 64
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// ParseForwards reads a list of forwards with commas between them.
func ParseForwards(text string) ([]Forward, error) {
	var list []Forward
	for _, part := range strings.Split(text, ",") {
		f, err := ParseForward(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if len(list) == maxForwards {
			return nil, fmt.Errorf("there are more than %d forwards", maxForwards)
		}
		list = append(list, f)
	}
	return list, nil
}

// ParseForward reads the text of a Forward.
func ParseForward(text string) (Forward, error) {
	rest, protocol, ok := strings.Cut(text, "/")
	if !ok {
		protocol = tcp
	}
	f := Forward{Protocol: protocol}
	host := loopback
	var err error
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		listen := rest[:i]
		rest = rest[i+1:]
		if j := strings.LastIndexByte(listen, ':'); j >= 0 {
			address := strings.TrimSuffix(strings.TrimPrefix(listen[:j], "["), "]")
			if host, err = netip.ParseAddr(address); err != nil {
				return Forward{}, bad(text, fmt.Errorf("%q is not an IP address", address))
			}
			listen = listen[j+1:]
		}
		port, err := parsePort(listen)
		if err != nil {
			return Forward{}, bad(text, err)
		}
		f.Listen = netip.AddrPortFrom(host, port)
	}
	if f.Guest, err = parsePort(rest); err != nil {
		return Forward{}, bad(text, err)
	}
	if !f.Listen.IsValid() {
		f.Listen = netip.AddrPortFrom(host, f.Guest)
	}
	if err := f.validate(); err != nil {
		return Forward{}, bad(text, err)
	}
	return f, nil
}

func bad(text string, err error) error {
	return fmt.Errorf("forward %q: %w; it is written [[ADDRESS:]PORT:]GUEST[/tcp or /udp], for example 8080:80", text, err)
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a port", text)
	}
	return uint16(n), nil
}

func (f Forward) validate() error {
	switch {
	case f.Protocol != tcp && f.Protocol != udp:
		return fmt.Errorf("%q is neither tcp nor udp", f.Protocol)
	case !f.Listen.IsValid() || f.Listen.Port() == 0 || f.Guest == 0:
		return errors.New("a port is missing")
	case f.Listen.Addr().IsMulticast():
		return fmt.Errorf("nobody can listen on %s", f.Listen.Addr())
	case f.Listen.Addr().Zone() != "" || f.Listen.Addr().Is4In6():
		return fmt.Errorf("%s is not a plain address", f.Listen.Addr())
	}
	return nil
}

// String is the whole text, without defaults.
func (f Forward) String() string { return fmt.Sprintf("%s:%d/%s", f.Listen, f.Guest, f.Protocol) }

// MarshalText is String; UnmarshalText is ParseForward.
func (f Forward) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Forward) UnmarshalText(text []byte) (err error) {
	*f, err = ParseForward(string(text))
	return err
}
