package netbridge

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firstName is the interface that becomes the guest's first NIC: the one the kubelet and the pod's status mean.
const firstName = "eth0"

// selectLinks picks the interfaces that the guest takes over, in the guest's order, and refuses by name one whose
// frames cannot be handed on.
func selectLinks(links []netlink.Link) ([]netlink.Link, error) {
	var picked []netlink.Link
	for _, l := range links {
		a := l.Attrs()
		// A port of a bridge or bond of the namespace has no addresses; its master has.
		if a.Flags&net.FlagLoopback != 0 || a.Flags&net.FlagUp == 0 || a.MasterIndex != 0 {
			continue
		}
		if reason := refusal(l, links); reason != "" {
			return nil, fmt.Errorf("interface %s (%s): %w: %s", a.Name, l.Type(), ErrUnsupported, reason)
		}
		for _, p := range picked {
			if slices.Equal(p.Attrs().HardwareAddr, a.HardwareAddr) {
				return nil, fmt.Errorf("interfaces %s and %s: %w: both have hardware address %s, by which the guest "+
					"tells them apart", p.Attrs().Name, a.Name, ErrUnsupported, a.HardwareAddr)
			}
		}
		picked = append(picked, l)
	}
	slices.SortStableFunc(picked, func(x, y netlink.Link) int {
		return cmp.Or(rank(x)-rank(y), x.Attrs().Index-y.Attrs().Index)
	})
	return picked, nil
}

func rank(l netlink.Link) int {
	if l.Attrs().Name == firstName {
		return 0
	}
	return 1
}

// refusal says why l cannot be joined and what to do about it; it is empty if l can.
func refusal(l netlink.Link, links []netlink.Link) string {
	a := l.Attrs()
	switch l.Type() {
	case "ipvlan", "ipvtap":
		return "it shares its parent's hardware address: use macvlan, bridge or ptp"
	case "tun", "tuntap", "macvtap":
		return "its frames go to a process: use macvlan, bridge or ptp"
	}
	if a.EncapType != "ether" || len(a.HardwareAddr) != 6 {
		return "it is no Ethernet interface: give the pod an Ethernet one"
	}
	if a.RawFlags&unix.IFF_NOARP != 0 || allZero(a.HardwareAddr) {
		return "it carries no link layer (ARP is off), as netkit in L3 mode: configure CNI for veth or netkit-l2"
	}
	if a.ParentIndex != 0 && a.ParentIndex != a.Index && a.NetNsID == -1 {
		for _, parent := range links {
			if parent.Attrs().Index == a.ParentIndex {
				return "its parent " + parent.Attrs().Name + " is in the same namespace and gets its frames: " +
					"let CNI make it on an interface of the node"
			}
		}
	}
	return ""
}

func allZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 })
}

// attached reports whether a process holds the tap l: only then it has a carrier (tun_attach, drivers/net/tun.c).
func attached(l netlink.Link) bool {
	return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}
