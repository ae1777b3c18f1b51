package netconf

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// plan is one api.Interface in netlink's terms, without link indexes.
type plan struct {
	name   string
	mac    net.HardwareAddr
	mtu    int
	addrs  []netlink.Addr
	routes []netlink.Route
	neighs []netlink.Neigh
}

func planAll(ifaces []*api.Interface) ([]*plan, error) {
	plans := make([]*plan, 0, len(ifaces))
	names := map[string]bool{}
	for _, i := range ifaces {
		p, err := newPlan(i)
		if err != nil {
			return nil, fmt.Errorf("interface %q: %w", i.GetName(), err)
		}
		if names[p.name] {
			return nil, fmt.Errorf("interface %q is named twice", p.name)
		}
		names[p.name] = true
		plans = append(plans, p)
	}
	return plans, nil
}

func newPlan(i *api.Interface) (*plan, error) {
	if n := len(i.GetName()); n == 0 || n >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("a name has 1 to %d bytes", unix.IFNAMSIZ-1)
	}
	if len(i.GetMac()) != 6 {
		return nil, fmt.Errorf("hardware address has %d bytes, not 6", len(i.GetMac()))
	}
	p := &plan{name: i.GetName(), mac: i.GetMac(), mtu: int(i.GetMtu())}
	for _, cidr := range i.GetAddresses() {
		a, err := planAddr(cidr)
		if err != nil {
			return nil, err
		}
		p.addrs = append(p.addrs, *a)
	}
	for _, r := range i.GetRoutes() {
		route, err := planRoute(r)
		if err != nil {
			return nil, fmt.Errorf("route to %q: %w", r.GetDestination(), err)
		}
		p.routes = append(p.routes, *route)
	}
	for _, n := range i.GetNeighbours() {
		neigh, err := planNeigh(n)
		if err != nil {
			return nil, err
		}
		p.neighs = append(p.neighs, *neigh)
	}
	return p, nil
}

func planAddr(cidr string) (*netlink.Addr, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return nil, err
	}
	a := &netlink.Addr{IPNet: ipNet(prefix.Addr(), prefix.Bits())}
	if prefix.Addr().Is6() {
		// The pod's netns has done duplicate address detection; a second round would only keep the address tentative.
		a.Flags = unix.IFA_F_NODAD
	}
	return a, nil
}

func planRoute(r *api.Route) (*netlink.Route, error) {
	family, zero := netlink.FAMILY_V4, netip.IPv4Unspecified()
	switch r.GetFamily() {
	case 4:
	case 6:
		family, zero = netlink.FAMILY_V6, netip.IPv6Unspecified()
	default:
		return nil, fmt.Errorf("family %d is neither 4 nor 6", r.GetFamily())
	}
	route := &netlink.Route{
		Family: family, Dst: ipNet(zero, 0),
		Scope: netlink.Scope(r.GetScope()), Priority: int(r.GetMetric()), MTU: int(r.GetMtu()),
		Flags: int(r.GetFlags()) & unix.RTNH_F_ONLINK, // the others tell a state
		Table: int(r.GetTable()), Type: int(r.GetType()), Protocol: netlink.RouteProtocol(r.GetProtocol()),
	}
	if r.GetDestination() != "" {
		dst, err := netip.ParsePrefix(r.GetDestination())
		if err != nil {
			return nil, err
		}
		if dst.Addr().Is4() != zero.Is4() {
			return nil, fmt.Errorf("destination is not of family %d", r.GetFamily())
		}
		route.Dst = ipNet(dst.Masked().Addr(), dst.Bits())
	}
	var gateway net.IP
	for _, ip := range []struct {
		text string
		into *net.IP
	}{{r.GetGateway(), &gateway}, {r.GetSource(), &route.Src}} {
		if ip.text == "" {
			continue
		}
		a, err := netip.ParseAddr(ip.text)
		if err != nil {
			return nil, err
		}
		*ip.into = a.AsSlice()
	}
	if family == netlink.FAMILY_V4 && len(gateway) == net.IPv6len {
		route.Via = &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: gateway} // RTA_VIA, RFC 5549
	} else {
		route.Gw = gateway
	}
	return route, nil
}

func planNeigh(n *api.Neighbour) (*netlink.Neigh, error) {
	ip, err := netip.ParseAddr(n.GetIp())
	if err != nil {
		return nil, fmt.Errorf("neighbour: %w", err)
	}
	if len(n.GetMac()) != 6 {
		return nil, fmt.Errorf("neighbour %s: hardware address has %d bytes, not 6", ip, len(n.GetMac()))
	}
	state := int(n.GetState())
	if state == 0 {
		state = netlink.NUD_PERMANENT
	}
	family := netlink.FAMILY_V4
	if ip.Is6() {
		family = netlink.FAMILY_V6
	}
	return &netlink.Neigh{Family: family, IP: ip.AsSlice(), HardwareAddr: n.GetMac(), State: state}, nil
}

func ipNet(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
}
