package netlab

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NS is a network namespace, bound in a directory of the test until its end.
type NS struct {
	testing.TB
	Path string
	FD   netns.NsHandle
	*netlink.Handle
}

// New makes a namespace whose loopback is up; it skips the test where that cannot be.
func New(t testing.TB) *NS {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	ns := &NS{TB: t, Path: filepath.Join(t.TempDir(), "kpnet")}
	Must(t, os.WriteFile(ns.Path, nil, 0o400))
	onThread(t, func() (err error) {
		if ns.FD, err = netns.New(); err != nil {
			return err
		}
		if ns.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", ns.Path, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() {
		ns.Handle.Close()
		ns.FD.Close()
		if err := unix.Unmount(ns.Path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			t.Error(err) // EINVAL, ENOENT: the test did it
		}
	})
	ns.Set("net/ipv6/conf/default/accept_dad", "0") // addresses are of use at once
	lo, err := ns.LinkByName("lo")
	Must(t, err)
	Must(t, ns.LinkSetUp(lo))
	return ns
}

// onThread runs fn on a thread that may change its namespace and ends afterwards.
func onThread(t testing.TB, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			defer home.Close()
			err = fn()
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}
		done <- err
	}()
	Must(t, <-done)
}

// In runs fn on a thread in the namespace; sockets and files it opens stay there.
func (ns *NS) In(fn func() error) {
	ns.Helper()
	onThread(ns.TB, func() error {
		if err := netns.Set(ns.FD); err != nil {
			return err
		}
		return fn()
	})
}

// Set sets the kernel parameter key (below /proc/sys) to value.
func (ns *NS) Set(key, value string) {
	ns.Helper()
	ns.In(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

// Link finds an interface.
func (ns *NS) Link(name string) netlink.Link {
	ns.Helper()
	l, err := ns.LinkByName(name)
	Must(ns.TB, err)
	return l
}

// Addr gives an interface an address, which is of use at once.
func (ns *NS) Addr(link, cidr string) {
	ns.Helper()
	a, err := netlink.ParseAddr(cidr)
	Must(ns.TB, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	Must(ns.TB, ns.AddrAdd(ns.Link(link), a))
}

// Route adds a route; without gw it is on the link.
func (ns *NS) Route(link, dst, gw string, flags netlink.NextHopFlag) {
	ns.Helper()
	r := &netlink.Route{LinkIndex: ns.Link(link).Attrs().Index, Gw: net.ParseIP(gw), Flags: int(flags)}
	if gw == "" {
		r.Scope = netlink.SCOPE_LINK
	}
	_, d, err := net.ParseCIDR(dst)
	Must(ns.TB, err)
	r.Dst = d
	Must(ns.TB, ns.RouteAdd(r))
}

// Must ends the test after an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
