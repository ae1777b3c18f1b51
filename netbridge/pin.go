package netbridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long the next hop to a nameserver has for its answer, and how often it is looked for: a bridge of the node takes microseconds.
const (
	pinPatience = 300 * time.Millisecond
	pinEvery    = time.Millisecond
)

// pinned marks the neighbours of this package: no other is both permanent and learnt by a control plane (ip-neighbour(8),
// extern_learn).
const (
	pinnedFlags = unix.NTF_EXT_LEARNED
	known       = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE
)

// pin makes the namespace's stack keep the hardware addresses of the next hops over link to nameservers: otherwise another station of
// the link could say at any time that a hop has its own, and answer for all names. It returns the hops that did not answer.
func pin(ctx context.Context, h *netlink.Handle, link int, nameservers []netip.AddrPort) (silent []netip.Addr, err error) {
	hops, err := hopsTo(h, link, nameservers)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, pinPatience)
	defer cancel()
	for _, hop := range hops {
		n, err := resolve(ctx, h, link, hop)
		if errors.Is(err, context.DeadlineExceeded) {
			silent = append(silent, hop)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("neighbour %s: %w", hop, err)
		}
		n.State, n.Flags = unix.NUD_PERMANENT, pinnedFlags
		if err := h.NeighSet(n); err != nil {
			return nil, fmt.Errorf("keep neighbour %s: %w", hop, err)
		}
	}
	return silent, nil
}

// hopsTo are the neighbours to whom the stack gives what is for nameservers beyond link.
func hopsTo(h *netlink.Handle, link int, nameservers []netip.AddrPort) (hops []netip.Addr, err error) {
	for _, ns := range nameservers {
		routes, err := h.RouteGet(ns.Addr().Unmap().AsSlice())
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find the way to nameserver %s: %w", ns.Addr(), err)
		}
		for _, r := range routes {
			hop := ns.Addr().Unmap()
			if gw, ok := netip.AddrFromSlice(r.Gw); ok {
				hop = gw.Unmap()
			}
			if via, ok := r.Via.(*netlink.Via); ok {
				if gw, ok := netip.AddrFromSlice(via.Addr); ok {
					hop = gw
				}
			}
			if r.LinkIndex == link && !slices.Contains(hops, hop) {
				hops = append(hops, hop)
			}
		}
	}
	return hops, nil
}

// resolve has the kernel ask for a neighbour, if it does not know it.
func resolve(ctx context.Context, h *netlink.Handle, link int, hop netip.Addr) (*netlink.Neigh, error) {
	for asked := false; ; asked = true {
		n, err := neighbour(h, link, hop)
		if err != nil || n != nil {
			return n, err
		}
		if !asked {
			err := h.NeighSet(&netlink.Neigh{LinkIndex: link, IP: hop.AsSlice(), Flags: netlink.NTF_USE})
			if err != nil {
				return nil, fmt.Errorf("ask for it: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pinEvery):
		}
	}
}

// neighbour is what the stack knows of a station of the link, nil for nothing.
func neighbour(h *netlink.Handle, link int, hop netip.Addr) (*netlink.Neigh, error) {
	list, err := Dump(func() ([]netlink.Neigh, error) { return h.NeighList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	for i := range list {
		if n := &list[i]; n.IP.Equal(net.IP(hop.AsSlice())) && n.State&known != 0 && len(n.HardwareAddr) == 6 {
			return n, nil
		}
	}
	return nil, nil
}

// isPinned recognises the neighbours of pin.
func isPinned(n netlink.Neigh) bool {
	return n.State&unix.NUD_PERMANENT != 0 && n.Flags&pinnedFlags != 0
}

// unpin removes the neighbours of pin.
func unpin(h *netlink.Handle, link int) error {
	list, err := Dump(func() ([]netlink.Neigh, error) { return h.NeighList(link, netlink.FAMILY_ALL) })
	if err != nil && !gone(err) {
		return fmt.Errorf("list neighbours: %w", err)
	}
	var errs []error
	for i := range list {
		if isPinned(list[i]) {
			if err := h.NeighDel(&list[i]); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("release neighbour %s: %w", list[i].IP, err))
			}
		}
	}
	return errors.Join(errs...)
}
