package netbridge

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// lab is a node and a pod, each a network namespace, with the interfaces that a CNI plugin would have made.
type lab struct {
	testing.TB
	node, pod *testNS
}

// testNS is a network namespace bound in a directory of the test.
type testNS struct {
	testing.TB
	path   string
	handle netns.NsHandle
	*netlink.Handle
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and taps need root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("taps need /dev/net/tun: ", err)
	}
	return &lab{TB: t, node: newNS(t), pod: newNS(t)}
}

func newNS(t testing.TB) *testNS {
	t.Helper()
	ns := &testNS{TB: t, path: filepath.Join(t.TempDir(), "kpnet")}
	must(t, os.WriteFile(ns.path, nil, 0o400))
	onThread(t, func() (err error) {
		if ns.handle, err = netns.New(); err != nil {
			return err
		}
		if ns.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", ns.path, "", unix.MS_BIND, "")
	})
	t.Cleanup(func() {
		ns.Handle.Close()
		ns.handle.Close()
		if err := unix.Unmount(ns.path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			t.Error(err) // EINVAL, ENOENT: the test did it
		}
	})
	ns.set("net/ipv6/conf/default/accept_dad", "0") // addresses are of use at once
	lo, err := ns.LinkByName("lo")
	must(t, err)
	must(t, ns.LinkSetUp(lo))
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
	must(t, <-done)
}

// in runs fn on a thread in the namespace; sockets and files it opens stay there.
func (ns *testNS) in(fn func() error) {
	ns.Helper()
	onThread(ns.TB, func() error {
		if err := netns.Set(ns.handle); err != nil {
			return err
		}
		return fn()
	})
}

// set sets the kernel parameter key (below /proc/sys) to value.
func (ns *testNS) set(key, value string) {
	ns.Helper()
	ns.in(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
}

func (ns *testNS) link(name string) netlink.Link {
	ns.Helper()
	l, err := ns.LinkByName(name)
	must(ns.TB, err)
	return l
}

func (ns *testNS) addr(link, cidr string) {
	ns.Helper()
	a, err := netlink.ParseAddr(cidr)
	must(ns.TB, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	must(ns.TB, ns.AddrAdd(ns.link(link), a))
}

func (ns *testNS) route(link, dst, gw string, flags netlink.NextHopFlag) {
	ns.Helper()
	r := &netlink.Route{LinkIndex: ns.link(link).Attrs().Index, Gw: net.ParseIP(gw), Flags: int(flags)}
	if gw == "" {
		r.Scope = netlink.SCOPE_LINK
	}
	_, d, err := net.ParseCIDR(dst)
	must(ns.TB, err)
	r.Dst = d
	must(ns.TB, ns.RouteAdd(r))
}

// veth makes interface pod in the pod and its peer on the node, both up.
func (l *lab) veth(pod, node string, mtu int) {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = node, mtu
	must(l, l.node.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: pod, PeerNamespace: netlink.NsFd(l.pod.handle)}))
	must(l, l.node.LinkSetUp(l.node.link(node)))
	must(l, l.pod.LinkSetMTU(l.pod.link(pod), mtu))
	must(l, l.pod.LinkSetUp(l.pod.link(pod)))
}

// bridgePod is what the CNI plugin bridge makes: a bridge on the node with the gateway's addresses, a veth in it.
func (l *lab) bridgePod() {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "kpbr0"
	must(l, l.node.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	l.veth("eth0", "veth0", 1450)
	must(l, l.node.LinkSetMaster(l.node.link("veth0"), l.node.link("kpbr0")))
	must(l, l.node.LinkSetUp(l.node.link("kpbr0")))
	l.node.addr("kpbr0", "10.9.0.1/24")
	l.node.addr("kpbr0", "fd09::1/64")
	l.pod.addr("eth0", "10.9.0.2/24")
	l.pod.addr("eth0", "fd09::2/64")
	l.pod.route("eth0", "0.0.0.0/0", "10.9.0.1", 0)
	l.pod.route("eth0", "::/0", "fd09::1", 0)
}

// carrier follows the peer's state a moment later.
const carrier = unix.IFF_RUNNING | unix.IFF_LOWER_UP

// state describes all that Join may change in the pod's namespace.
func (ns *testNS) state() string {
	ns.Helper()
	var b strings.Builder
	links, err := ns.LinkList()
	must(ns.TB, err)
	for _, l := range links {
		a := l.Attrs()
		fmt.Fprintf(&b, "link %d %s %s mtu %d flags %x %s\n", a.Index, a.Name, l.Type(), a.MTU, a.RawFlags&^carrier, a.HardwareAddr)
		for _, q := range ns.qdiscs(a.Name) {
			fmt.Fprintf(&b, "  qdisc %s\n", q)
		}
		ns.in(func() error {
			rs, err := os.ReadFile(routerSolicitations(a.Name))
			fmt.Fprintf(&b, "  solicitations %s", rs)
			return err
		})
	}
	addrs, err := ns.AddrList(nil, netlink.FAMILY_ALL)
	must(ns.TB, err)
	for _, a := range addrs {
		fmt.Fprintf(&b, "addr %d %s\n", a.LinkIndex, a.IPNet)
	}
	routes, err := ns.RouteList(nil, netlink.FAMILY_ALL)
	must(ns.TB, err)
	for _, r := range routes {
		fmt.Fprintf(&b, "route %s\n", r)
	}
	return b.String()
}

// qdiscs lists the kinds of the link's qdiscs and its ingress filters.
func (ns *testNS) qdiscs(link string) (res []string) {
	ns.Helper()
	l := ns.link(link)
	list, err := ns.QdiscList(l)
	must(ns.TB, err)
	for _, q := range list {
		res = append(res, q.Type())
	}
	filters, err := ns.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	if err != nil && !gone(err) {
		ns.Fatal(err)
	}
	for _, f := range filters {
		res = append(res, fmt.Sprintf("filter %s %d", f.Type(), f.Attrs().Priority))
	}
	return res
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
