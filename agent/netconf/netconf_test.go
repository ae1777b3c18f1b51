package netconf

import (
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

func TestRequestsThatCannotBeAreRefusedBeforeAnyChange(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	for name, in := range map[string][]*api.Interface{
		"no name":       {{Mac: mac}},
		"long name":     {{Name: "abcdefghijklmnop", Mac: mac}},
		"short mac":     {{Name: "a", Mac: mac[:5]}},
		"twice":         {{Name: "a", Mac: mac}, {Name: "a", Mac: mac}},
		"address":       {{Name: "a", Mac: mac, Addresses: []string{"10.0.0.1"}}},
		"route family":  {{Name: "a", Mac: mac, Routes: []*api.Route{{}}}},
		"mixed family":  {{Name: "a", Mac: mac, Routes: []*api.Route{{Family: 4, Destination: "fd00::/64"}}}},
		"gateway":       {{Name: "a", Mac: mac, Routes: []*api.Route{{Family: 4, Gateway: "x"}}}},
		"neighbour":     {{Name: "a", Mac: mac, Neighbours: []*api.Neighbour{{Ip: "x", Mac: mac}}}},
		"neighbour mac": {{Name: "a", Mac: mac, Neighbours: []*api.Neighbour{{Ip: "1.1.1.1"}}}},
	} {
		if _, err := planAll(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDefaultRoutesOfBothFamilies(t *testing.T) {
	for family, want := range map[uint32]string{4: "0.0.0.0/0", 6: "::/0"} {
		r, err := planRoute(&api.Route{Family: family})
		if err != nil || r.Dst.String() != want {
			t.Errorf("family %d: %v, %v", family, r, err)
		}
	}
}

// inNetns runs the test in a network namespace of its own, with veth links eth0 and eth1, whose peers are up.
func inNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test's goroutine
	ns, err := netns.New()
	if err != nil {
		t.Skipf("needs the right to make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	for i, name := range []string{"eth0", "eth1"} {
		peer := "peer-" + name
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac(i)}, PeerName: peer}
		if err := netlink.LinkAdd(link); err != nil {
			t.Skipf("add a veth link: %v", err)
		}
		if p, err := netlink.LinkByName(peer); err != nil {
			t.Fatal(err)
		} else if err := netlink.LinkSetUp(p); err != nil {
			t.Fatal(err)
		}
	}
}

func mac(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(i)} }

func TestInterfacesTakeOverThePodsNetwork(t *testing.T) {
	inNetns(t)
	if err := Loopback(); err != nil {
		t.Fatal(err)
	}
	if lo, err := netlink.LinkByName("lo"); err != nil || lo.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("lo is not up: %v, %v", lo, err)
	}
	err := Configure([]*api.Interface{
		{Name: "eth1", Mac: mac(0), Mtu: 1400, Addresses: []string{"10.1.0.2/32", "fd00::2/64", "fe80::ff:fe00:0/64"}, Routes: []*api.Route{
			{Family: 4, Gateway: "169.254.1.1"}, // as Calico: the gateway is reachable by the next route
			{Family: 4, Destination: "169.254.1.1/32", Scope: uint32(netlink.SCOPE_LINK)},
			{Family: 6, Gateway: "fd00::1", Metric: 7},
			{Family: 4, Destination: "10.8.0.0/16", Gateway: "fe80::1"}, // RFC 5549, as some networks that have no IPv4 of their own
			{Family: 4, Destination: "10.7.0.0/16", Gateway: "10.99.0.1", Flags: unix.RTNH_F_ONLINK, Table: 100},
		}, Neighbours: []*api.Neighbour{{Ip: "169.254.1.1", Mac: mac(9)}}},
		{Name: "eth0", Mac: mac(1), Addresses: []string{"10.2.0.2/24"}, Routes: []*api.Route{
			{Family: 4, Destination: "10.2.0.0/24", Source: "10.2.0.2", Scope: uint32(netlink.SCOPE_LINK), Protocol: 2},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	if a := link.Attrs(); !slices.Equal(a.HardwareAddr, mac(0)) || a.MTU != 1400 {
		t.Errorf("eth1 is %s with MTU %d", a.HardwareAddr, a.MTU)
	}
	routes := routeText(t, link, unix.RT_TABLE_MAIN)
	for _, want := range []string{"0.0.0.0/0 169.254.1.1", "169.254.1.1/32 <nil>", "::/0 fd00::1", "10.8.0.0/16 fe80::1"} {
		if !strings.Contains(routes, want+"\n") {
			t.Errorf("no route %q in\n%s", want, routes)
		}
	}
	if got := routeText(t, link, 100); got != "10.7.0.0/16 10.99.0.1\n" {
		t.Errorf("table 100: %q", got)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil || len(addrs) != 2 {
		t.Errorf("IPv6 addresses: %v, %v", addrs, err)
	}
	local := routeText(t, link, unix.RT_TABLE_LOCAL)
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Errorf("%s is tentative", a.IP)
		}
		if want := a.IP.String() + "/128 <nil>\n"; !strings.Contains(local, want) {
			t.Errorf("no route %q in\n%s", want, local)
		}
		if want := a.IP.Mask(a.Mask).String() + "/64 <nil>\n"; !strings.Contains(routes, want) {
			t.Errorf("no route %q in\n%s", want, routes)
		}
	}
}

func routeText(t *testing.T, link netlink.Link, table int) string {
	t.Helper()
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: table}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range routes {
		gateway := r.Gw
		if via, ok := r.Via.(*netlink.Via); ok {
			gateway = via.Addr
		}
		b.WriteString(r.Dst.String() + " " + gateway.String() + "\n")
	}
	return b.String()
}

func TestMissingNICIsNamedInTheError(t *testing.T) {
	inNetns(t)
	err := Configure([]*api.Interface{{Name: "net1", Mac: mac(5)}})
	if err == nil || !strings.Contains(err.Error(), "02:00:00:00:00:05") {
		t.Error(err)
	}
}
