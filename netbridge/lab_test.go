package netbridge

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
)

// lab is a node and a pod, each a network namespace, with the interfaces that a CNI plugin would have made.
type lab struct {
	testing.TB
	node, pod *testNS
}

// testNS is a network namespace of the lab.
type testNS struct{ *netlab.NS }

func newNS(t testing.TB) *testNS {
	t.Helper()
	return &testNS{netlab.New(t)}
}

func must(t testing.TB, err error) {
	t.Helper()
	netlab.Must(t, err)
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

// veth makes interface pod in the pod and its peer on the node, both up.
func (l *lab) veth(pod, node string, mtu int) {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = node, mtu
	must(l, l.node.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: pod, PeerNamespace: netlink.NsFd(l.pod.FD)}))
	must(l, l.node.LinkSetUp(l.node.Link(node)))
	must(l, l.pod.LinkSetMTU(l.pod.Link(pod), mtu))
	must(l, l.pod.LinkSetUp(l.pod.Link(pod)))
}

// bridgePod is what the CNI plugin bridge makes: a bridge on the node with the gateway's addresses, a veth in it.
func (l *lab) bridgePod() {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "kpbr0"
	must(l, l.node.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	l.veth("eth0", "veth0", 1450)
	must(l, l.node.LinkSetMaster(l.node.Link("veth0"), l.node.Link("kpbr0")))
	must(l, l.node.LinkSetUp(l.node.Link("kpbr0")))
	l.node.Addr("kpbr0", "10.9.0.1/24")
	l.node.Addr("kpbr0", "fd09::1/64")
	l.pod.Addr("eth0", "10.9.0.2/24")
	l.pod.Addr("eth0", "fd09::2/64")
	l.pod.Route("eth0", "0.0.0.0/0", "10.9.0.1", 0)
	l.pod.Route("eth0", "::/0", "fd09::1", 0)
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
		ns.In(func() error {
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
	neighbours, err := ns.NeighList(0, netlink.FAMILY_ALL)
	must(ns.TB, err)
	for _, n := range neighbours {
		if n.State&netlink.NUD_PERMANENT != 0 {
			fmt.Fprintf(&b, "neighbour %d %v\n", n.LinkIndex, n)
		}
	}
	return b.String()
}

// qdiscs lists the kinds of the link's qdiscs and its ingress filters.
func (ns *testNS) qdiscs(link string) (res []string) {
	ns.Helper()
	l := ns.Link(link)
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

// linkLocal is the address that the kernel makes from a hardware address: RFC 4291, appendix A.
func linkLocal(m net.HardwareAddr) string {
	return net.IP{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}.String() + "/64"
}
