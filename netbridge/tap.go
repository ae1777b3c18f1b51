package netbridge

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tapPrefix = "krun"
	// tapQueue is the length in frames of the ring between kernel and libkrun (tun_net_xmit drops beyond it); with
	// segmentation offload a frame is up to 64 KiB.
	tapQueue = 1000
	// aliasPrefix marks the taps of this package; see alias.
	aliasPrefix = "krunpod "
)

// makeTap creates a persistent tap in the namespace of the calling thread, up and with the given MTU. On an error
// nothing is left.
//
// The flags are those with which libkrun opens it (krun-devices 1.19.7, virtio/net/tap.rs): TUNSETIFF on an existing
// tap compares IFF_MULTI_QUEUE and takes over the rest, so one queue. No owner is set: who is in the pod's namespace,
// the runner alone, attaches without CAP_NET_ADMIN (tun_not_capable, drivers/net/tun.c).
func makeTap(h *netlink.Handle, name string, mtu int, note string) (index int, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w: load the kernel module tun", err)
	}
	defer unix.Close(fd) // before TUNSETPERSIST this removes the tap
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("tap %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return 0, fmt.Errorf("make tap %s: TUNSETIFF: %w (CAP_NET_ADMIN is needed)", name, err)
	}
	link, err := h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find tap %s: %w", name, err)
	}
	if err := setUpTap(h, link, mtu, note); err != nil {
		return 0, fmt.Errorf("set up tap %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return 0, fmt.Errorf("keep tap %s: TUNSETPERSIST: %w", name, err)
	}
	return link.Attrs().Index, nil
}

func setUpTap(h *netlink.Handle, tap netlink.Link, mtu int, note string) error {
	name := tap.Attrs().Name
	// The pod's own kernel must not send router solicitations and the like to the guest through the tap.
	if _, err := setSysctl(disableIPv6(name), "1"); err != nil {
		return err
	}
	if err := h.LinkSetAlias(tap, note); err != nil {
		return fmt.Errorf("alias: %w", err)
	}
	if tap.Attrs().MTU != mtu {
		if err := h.LinkSetMTU(tap, mtu); err != nil {
			return fmt.Errorf("MTU %d: %w", mtu, err)
		}
	}
	if err := h.LinkSetTxQLen(tap, tapQueue); err != nil {
		return fmt.Errorf("queue length %d: %w", tapQueue, err)
	}
	if err := h.LinkSetUp(tap); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	return nil
}

// tapNames yields names krun0, krun1, … that no link has.
func tapNames(links []netlink.Link) func() string {
	taken := map[string]bool{}
	for _, l := range links {
		taken[l.Attrs().Name] = true
		for _, alt := range l.Attrs().AltNames {
			taken[alt] = true
		}
	}
	next := 0
	return func() string {
		for {
			name := tapPrefix + strconv.Itoa(next)
			next++
			if !taken[name] {
				return name
			}
		}
	}
}

// alias is the note on a tap (IFLA_IFALIAS) from which it can be undone when nothing else is known: the index of the
// interface it is joined to, and whether that one's qdisc is ours.
func alias(link int, ownQdisc bool) string {
	return fmt.Sprintf("%s%d %t", aliasPrefix, link, ownQdisc)
}

// parseAlias is the inverse of alias.
func parseAlias(s string) (link int, ownQdisc, ok bool) {
	rest, ok := strings.CutPrefix(s, aliasPrefix)
	if !ok {
		return 0, false, false
	}
	index, own, ok := strings.Cut(rest, " ")
	if !ok {
		return 0, false, false
	}
	link, err1 := strconv.Atoi(index)
	ownQdisc, err2 := strconv.ParseBool(own)
	return link, ownQdisc, err1 == nil && err2 == nil && link > 0
}

// leftover returns what the tap l says about itself; ok is false for every link not made by this package.
func leftover(l netlink.Link) (host attachment, ok bool) {
	if l.Type() != "tun" && l.Type() != "tuntap" {
		return attachment{}, false
	}
	link, own, ok := parseAlias(l.Attrs().Alias)
	return attachment{Tap: l.Attrs().Index, Link: link, OwnQdisc: own}, ok
}
