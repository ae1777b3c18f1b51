package netconf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// Loopback brings lo up; the kernel gives it its addresses. By ioctl (netdevice(7)): a pod without other interfaces
// then boots without rtnetlink.
func Loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// find plans the interfaces and finds the link of each by its hardware address.
func find(ifaces []*api.Interface) ([]*plan, []netlink.Link, error) {
	plans, err := planAll(ifaces)
	if err != nil || len(plans) == 0 {
		return nil, nil, err
	}
	links, err := match(plans)
	return plans, links, err
}

// Configure finds each interface by its hardware address, names it and brings it up with what belongs to it.
func Configure(ifaces []*api.Interface) error {
	plans, links, err := find(ifaces)
	if err != nil {
		return err
	}
	if err := rename(plans, links); err != nil {
		return err
	}
	for i, p := range plans {
		if err := p.apply(links[i]); err != nil {
			return fmt.Errorf("interface %s: %w", p.name, err)
		}
	}
	return nil
}

// Move hands each interface, found by its hardware address, to the network namespace ns.
func Move(ifaces []*api.Interface, ns *os.File) error {
	plans, links, err := find(ifaces)
	if err != nil {
		return err
	}
	for i, p := range plans {
		if err := netlink.LinkSetNsFd(links[i], int(ns.Fd())); err != nil {
			return fmt.Errorf("move interface %s to the pod's network namespace: %w", p.name, err)
		}
	}
	return nil
}

func match(plans []*plan) ([]netlink.Link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]netlink.Link, len(plans))
	for i, p := range plans {
		at := slices.IndexFunc(all, func(l netlink.Link) bool { return bytes.Equal(l.Attrs().HardwareAddr, p.mac) })
		if at < 0 {
			return nil, fmt.Errorf("interface %s: the guest has no NIC with hardware address %s", p.name, p.mac)
		}
		links[i] = all[at]
	}
	return links, nil
}

// rename goes by way of names nobody has, as eth0 and eth1 may have to change places.
func rename(plans []*plan, links []netlink.Link) error {
	var pending []int
	for i, p := range plans {
		old := links[i].Attrs().Name
		if old == p.name {
			continue
		}
		if err := netlink.LinkSetDown(links[i]); err != nil {
			return fmt.Errorf("set %s down: %w", old, err)
		}
		if err := netlink.LinkSetName(links[i], fmt.Sprintf("krunpod%d", i)); err != nil {
			return fmt.Errorf("rename %s: %w", old, err)
		}
		pending = append(pending, i)
	}
	for _, i := range pending {
		if err := netlink.LinkSetName(links[i], plans[i].name); err != nil {
			return fmt.Errorf("rename %s to %s: %w", links[i].Attrs().Name, plans[i].name, err)
		}
	}
	return nil
}

func (p *plan) apply(link netlink.Link) error {
	if p.mtu != 0 && p.mtu != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, p.mtu); err != nil {
			return fmt.Errorf("set MTU %d: %w", p.mtu, err)
		}
	}
	// Before it is up: the kernel would make the link-local address, and keep it tentative for a second or two.
	for i := range p.addrs {
		if err := netlink.AddrReplace(link, &p.addrs[i]); err != nil {
			return fmt.Errorf("add address %s: %w", p.addrs[i].IPNet, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	for i := range p.neighs {
		n := p.neighs[i]
		n.LinkIndex = link.Attrs().Index
		if err := netlink.NeighSet(&n); err != nil {
			return fmt.Errorf("add neighbour %s: %w", n.IP, err)
		}
	}
	return addRoutes(p.routes, link.Attrs().Index)
}

// addRoutes adds those without a gateway first: they make the gateways reachable.
func addRoutes(routes []netlink.Route, index int) error {
	for _, viaGateway := range []bool{false, true} {
		for _, r := range routes {
			if (r.Gw != nil || r.Via != nil) != viaGateway {
				continue
			}
			r.LinkIndex = index
			err := netlink.RouteAdd(&r)
			if errors.Is(err, unix.EEXIST) { // the kernel's own for a connected network
				err = netlink.RouteReplace(&r)
			}
			if err != nil {
				return fmt.Errorf("add route %s: %w", r, err)
			}
		}
	}
	return nil
}
