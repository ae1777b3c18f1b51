package netbridge

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// readInterfaces reads what the guest takes over from each of links: one dump for all of each kind.
func readInterfaces(h *netlink.Handle, links []netlink.Link) ([]*api.Interface, error) {
	addrs, err := Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var routes []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		r, err := Dump(func() ([]netlink.Route, error) { return h.RouteListFiltered(family, &netlink.Route{}, 0) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		routes = append(routes, r...)
	}
	neighs, err := Dump(func() ([]netlink.Neigh, error) { return h.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	ifaces := make([]*api.Interface, len(links))
	for i, l := range links {
		if ifaces[i], err = translate(l.Attrs(), addrs, routes, neighs); err != nil {
			return nil, fmt.Errorf("interface %s: %w", l.Attrs().Name, err)
		}
	}
	return ifaces, nil
}

// translate turns what the kernel says of one link into the agent's terms.
func translate(link *netlink.LinkAttrs, addrs []netlink.Addr, routes []netlink.Route, neighs []netlink.Neigh) (
	*api.Interface, error) {
	iface := &api.Interface{Name: link.Name, Mac: slices.Clone(link.HardwareAddr), Mtu: uint32(link.MTU)}
	for _, a := range addrs {
		if a.LinkIndex == link.Index && takesOver(a) {
			iface.Addresses = append(iface.Addresses, a.IPNet.String())
		}
	}
	for _, r := range routes {
		if !concerns(r, link.Index) || guestMakes(r) {
			continue
		}
		route, err := translateRoute(r)
		if err != nil {
			return nil, err
		}
		iface.Routes = append(iface.Routes, route)
	}
	slices.SortStableFunc(iface.Routes, byReach)
	for _, n := range neighs {
		if n.LinkIndex == link.Index && n.State&unix.NUD_PERMANENT != 0 && n.Flags&netlink.NTF_PROXY == 0 && !isPinned(n) &&
			len(n.HardwareAddr) == 6 && len(n.IP) != 0 && !n.IP.IsMulticast() {
			iface.Neighbours = append(iface.Neighbours, &api.Neighbour{
				Ip: n.IP.String(), Mac: slices.Clone(n.HardwareAddr), State: uint32(n.State),
			})
		}
	}
	return iface, nil
}

// takesOver reports whether the guest must be given address a. It makes those that a router advertises by itself.
func takesOver(a netlink.Addr) bool {
	if a.IPNet == nil || a.Flags&unix.IFA_F_DADFAILED != 0 {
		return false
	}
	return a.IP.To4() != nil || a.Flags&unix.IFA_F_PERMANENT != 0
}

// concerns reports whether a route leads through link, if only with one of its hops.
func concerns(r netlink.Route, link int) bool {
	return r.LinkIndex == link ||
		slices.ContainsFunc(r.MultiPath, func(hop *netlink.NexthopInfo) bool { return hop.LinkIndex == link })
}

// guestMakes reports whether the guest's kernel makes the route by itself: the prefix of link-local addresses, and
// what routers advertise. The connected routes of other addresses are not among them: CNI plugins such as ptp replace
// these, so the guest gets those that the namespace has.
func guestMakes(r netlink.Route) bool {
	if r.Family != netlink.FAMILY_V6 {
		return false
	}
	if r.Protocol == unix.RTPROT_RA || r.Type == unix.RTN_MULTICAST {
		return true
	}
	return r.Protocol == unix.RTPROT_KERNEL && r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast()
}

func translateRoute(r netlink.Route) (*api.Route, error) {
	if len(r.MultiPath) > 0 || r.Encap != nil || r.MPLSDst != nil || r.NewDst != nil {
		return nil, fmt.Errorf("route to %s: %w: it has several hops or an encapsulation: "+
			"give the pod a route with one plain gateway", r.Dst, ErrUnsupported)
	}
	route := &api.Route{
		Scope:    uint32(r.Scope),
		Metric:   uint32(r.Priority),
		Mtu:      uint32(r.MTU),
		Flags:    uint32(r.Flags) & unix.RTNH_F_ONLINK,
		Type:     uint32(r.Type),
		Protocol: uint32(r.Protocol),
		Family:   4,
	}
	if r.Family == netlink.FAMILY_V6 {
		route.Family = 6
	}
	if r.Dst != nil && !isDefault(r.Dst) {
		route.Destination = r.Dst.String()
	}
	if len(r.Gw) != 0 {
		route.Gateway = r.Gw.String()
	} else if via, ok := r.Via.(*netlink.Via); ok {
		route.Gateway = via.Addr.String() // an IPv4 route through an IPv6 neighbour, RTA_VIA
	}
	if len(r.Src) != 0 {
		route.Source = r.Src.String()
	}
	return route, nil
}

func isDefault(dst *net.IPNet) bool {
	ones, _ := dst.Mask.Size()
	return ones == 0 && dst.IP.IsUnspecified()
}

// byReach orders routes so that each gateway is reachable when its route is added: first those without a gateway, the
// default routes last.
func byReach(x, y *api.Route) int { return cmp.Compare(reach(x), reach(y)) }

func reach(r *api.Route) int {
	switch {
	case r.Gateway == "":
		return 0
	case r.Destination != "":
		return 1
	}
	return 2
}
