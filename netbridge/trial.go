package netbridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// What Trial's interface is called, and its peer, and its address (RFC 5737).
const (
	trialPeer    = "peer"
	trialAddress = "192.0.2.2/24"
)

// Trial calls f with the path of a network namespace like a pod's, with one interface as CNI would have made it, that leads
// nowhere. It is there while f runs, and only as long as this process; nothing of it is on the node.
func Trial(f func(nsPath string) error) error {
	pod, node, err := makeTrial()
	if err != nil {
		return fmt.Errorf("make a network namespace like a pod's: %w", err)
	}
	defer closeAll(pod, node)
	return f(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), pod))
}

// makeTrial makes the namespace and one in the place of the node's, which holds the other end of the interface.
func makeTrial() (pod, node netns.NsHandle, err error) {
	pod, node = netns.None(), netns.None()
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			defer home.Close()
			if pod, node, err = enterTrial(); err == nil {
				err = addTrialLink(node)
			}
			// A thread that stayed would keep the namespace, and the process's first thread does not end with its goroutine.
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}
		made <- err
	}()
	if err = <-made; err != nil {
		closeAll(pod, node)
	}
	return pod, node, err
}

// enterTrial moves the calling thread to the second of two new namespaces.
func enterTrial() (pod, node netns.NsHandle, err error) {
	if node, err = netns.New(); err != nil {
		return netns.None(), netns.None(), err
	}
	pod, err = netns.New()
	return pod, node, err
}

func closeAll(list ...netns.NsHandle) {
	for _, ns := range list {
		if ns.IsOpen() {
			ns.Close()
		}
	}
}

func addTrialLink(node netns.NsHandle) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err)
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = firstName
	if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: trialPeer, PeerNamespace: netlink.NsFd(node)}); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: load the kernel module veth", err)
		}
		return fmt.Errorf("add a veth: %w", err)
	}
	link, err := h.LinkByName(firstName)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(trialAddress)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(link, address); err != nil {
		return fmt.Errorf("add address %s: %w", trialAddress, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the veth up: %w", err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// Try joins a namespace of Trial and leaves it again: whether this node's kernel has all that a pod's network needs.
func Try(ctx context.Context, watch *Watch) error {
	return Trial(func(path string) error {
		b, err := Join(ctx, path, watch)
		if err != nil {
			return err
		}
		if len(b.Interfaces) != 1 {
			err = fmt.Errorf("%d interfaces were found where there is one", len(b.Interfaces))
		}
		return errors.Join(err, Leave(ctx, path, b))
	})
}
