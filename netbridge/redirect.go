package netbridge

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// filterPriority is the place of the redirect among the filters of an interface: the first.
const filterPriority = 1

// clsact returns the qdisc that holds ingress filters (net/sched/sch_ingress.c).
func clsact(link int) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// addClsact makes link ready for ingress filters. An ingress or clsact qdisc that is there already is used and, own
// being false, not ours to remove.
func addClsact(h *netlink.Handle, link int) (own bool, err error) {
	err = h.QdiscAdd(clsact(link))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EEXIST):
		return false, nil
	case errors.Is(err, unix.ENOENT):
		return false, fmt.Errorf("add qdisc clsact: %w: load the kernel module sch_ingress", err)
	}
	return false, fmt.Errorf("add qdisc clsact: %w", err)
}

// addRedirect sends every frame that arrives on from out of to: matchall with the action mirred egress redirect
// (net/sched/act_mirred.c). The action steals the frame, so the namespace's own stack never sees it.
func addRedirect(h *netlink.Handle, from, to int) error {
	err := h.FilterAdd(&netlink.MatchAll{
		FilterAttrs: redirectAttrs(from), Actions: []netlink.Action{netlink.NewMirredAction(to)},
	})
	if errors.Is(err, unix.ENOENT) {
		// A kernel without matchall: a u32 filter with no key matches everything too.
		err = h.FilterAdd(&netlink.U32{
			FilterAttrs: redirectAttrs(from),
			Sel:         &nl.TcU32Sel{Flags: nl.TC_U32_TERMINAL},
			Actions:     []netlink.Action{netlink.NewMirredAction(to)},
		})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("add filter: %w: load the kernel modules cls_matchall and act_mirred", err)
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EINVAL): // EINVAL: it is of another kind
		return fmt.Errorf("add filter: %w: another ingress filter has priority %d: remove it", err, filterPriority)
	}
	return fmt.Errorf("add filter: %w", err)
}

func redirectAttrs(from int) netlink.FilterAttrs {
	return netlink.FilterAttrs{
		LinkIndex: from, Parent: netlink.HANDLE_MIN_INGRESS, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
	}
}

// delFilters removes the ingress filters of link that are ours, and no other.
func delFilters(h *netlink.Handle, link int, ours func(netlink.Filter) bool) error {
	device := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: link}}
	filters, err := Dump(func() ([]netlink.Filter, error) { return h.FilterList(device, netlink.HANDLE_MIN_INGRESS) })
	if err != nil && !gone(err) {
		return fmt.Errorf("list filters: %w", err)
	}
	for _, f := range filters {
		if !ours(f) {
			continue
		}
		if err := h.FilterDel(f); err != nil && !gone(err) {
			return fmt.Errorf("remove filter: %w", err)
		}
	}
	return nil
}

func redirectsTo(f netlink.Filter, link int) bool {
	var actions []netlink.Action
	switch f := f.(type) {
	case *netlink.MatchAll:
		actions = f.Actions
	case *netlink.U32:
		actions = f.Actions
	}
	for _, a := range actions {
		if m, ok := a.(*netlink.MirredAction); ok && m.Ifindex == link {
			return true
		}
	}
	return false
}

// gone reports whether err says that what was to be removed is not there: no such device, qdisc (ENOENT, or EINVAL
// where the device has no ingress at all: __tcf_qdisc_find) or filter.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
