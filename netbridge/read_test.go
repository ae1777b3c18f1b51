package netbridge

import (
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"krun.dev/krunpod/agent/api"
)

var testMAC = net.HardwareAddr{0x0a, 0x58, 0x0a, 0x09, 0, 2}

func cidr(s string) *net.IPNet {
	ip, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return &net.IPNet{IP: ip, Mask: n.Mask}
}

func TestAddressesTakenOver(t *testing.T) {
	for _, tc := range []struct {
		name  string
		addr  string
		flags int
		want  bool
	}{
		{"IPv4", "10.9.0.2/24", unix.IFA_F_PERMANENT, true},
		{"IPv4 with a lifetime", "10.9.0.2/24", 0, true},
		{"IPv4 secondary", "10.9.0.3/24", unix.IFA_F_SECONDARY, true},
		{"IPv6", "fd09::2/64", unix.IFA_F_PERMANENT, true},
		{"IPv6 tentative", "fd09::2/64", unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE, true},
		{"IPv6 duplicate", "fd09::2/64", unix.IFA_F_PERMANENT | unix.IFA_F_DADFAILED, false},
		{"IPv6 from a router", "fd09::a:b/64", unix.IFA_F_MANAGETEMPADDR, false},
		{"link-local of the hardware address", "fe80::858:aff:fe09:2/64", unix.IFA_F_PERMANENT, true},
		{"link-local set by CNI", "fe80::2/64", unix.IFA_F_PERMANENT, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := takesOver(netlink.Addr{IPNet: cidr(tc.addr), Flags: tc.flags}); got != tc.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestRoutesTranslated(t *testing.T) {
	const link = 7
	for _, tc := range []struct {
		name  string
		route netlink.Route
		want  *api.Route // nil: not carried
	}{
		{"default",
			netlink.Route{Family: 2, Dst: cidr("0.0.0.0/0"), Gw: net.IP{10, 9, 0, 1}, Type: 1, Protocol: 3},
			&api.Route{Gateway: "10.9.0.1", Type: 1, Protocol: 3, Family: 4}},
		{"IPv6 default by link-local",
			netlink.Route{Family: 10, Dst: cidr("::/0"), Gw: net.ParseIP("fe80::1"), Priority: 1024, Type: 1},
			&api.Route{Gateway: "fe80::1", Metric: 1024, Type: 1, Family: 6}},
		{"half of everything is no default",
			netlink.Route{Family: 2, Dst: cidr("0.0.0.0/1"), Gw: net.IP{10, 9, 0, 1}},
			&api.Route{Destination: "0.0.0.0/1", Gateway: "10.9.0.1", Family: 4}},
		{"scope, source, metric, MTU",
			netlink.Route{Family: 2, Dst: cidr("10.0.0.0/8"), Scope: 253, Src: net.IP{10, 9, 0, 2}, Priority: 50, MTU: 1400},
			&api.Route{Destination: "10.0.0.0/8", Scope: 253, Source: "10.9.0.2", Metric: 50, Mtu: 1400, Family: 4}},
		{"onlink, without the state flags",
			netlink.Route{Family: 2, Dst: cidr("10.0.0.0/8"), Gw: net.IP{1, 1, 1, 1}, Flags: unix.RTNH_F_ONLINK | unix.RTNH_F_LINKDOWN},
			&api.Route{Destination: "10.0.0.0/8", Gateway: "1.1.1.1", Flags: unix.RTNH_F_ONLINK, Family: 4}},
		{"IPv4 through an IPv6 neighbour",
			netlink.Route{Family: 2, Dst: cidr("0.0.0.0/0"), Via: &netlink.Via{AddrFamily: 10, Addr: net.ParseIP("fe80::1")}},
			&api.Route{Gateway: "fe80::1", Family: 4}},
		{"connected", // carried: it takes the place of the one that the guest's kernel makes
			netlink.Route{Family: 2, Dst: cidr("10.9.0.0/24"), Protocol: unix.RTPROT_KERNEL, Scope: 253},
			&api.Route{Destination: "10.9.0.0/24", Protocol: 2, Scope: 253, Family: 4}},
		{"IPv6 link-local prefix", netlink.Route{Family: 10, Dst: cidr("fe80::/64"), Protocol: unix.RTPROT_KERNEL}, nil},
		{"IPv6 from a router", netlink.Route{Family: 10, Dst: cidr("::/0"), Gw: net.ParseIP("fe80::1"), Protocol: unix.RTPROT_RA}, nil},
		{"another interface's", netlink.Route{Family: 2, Dst: cidr("10.0.0.0/8"), LinkIndex: 9}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.route.LinkIndex == 0 {
				tc.route.LinkIndex = link
			}
			iface, err := translate(&netlink.LinkAttrs{Index: link, HardwareAddr: testMAC}, nil, []netlink.Route{tc.route}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got *api.Route
			if len(iface.Routes) > 0 {
				got = iface.Routes[0]
			}
			if !proto.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestRouteOfSeveralHopsIsRefused(t *testing.T) {
	r := netlink.Route{Family: 2, Dst: cidr("10.0.0.0/8"), MultiPath: []*netlink.NexthopInfo{{LinkIndex: 7}, {LinkIndex: 8}}}
	_, err := translate(&netlink.LinkAttrs{Index: 7}, nil, []netlink.Route{r}, nil)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "10.0.0.0/8") {
		t.Errorf("error %v", err)
	}
}

func TestNeighboursTakenOver(t *testing.T) {
	n := func(ip string, state, flags int) netlink.Neigh {
		return netlink.Neigh{LinkIndex: 7, IP: net.ParseIP(ip), State: state, Flags: flags, HardwareAddr: testMAC}
	}
	iface, err := translate(&netlink.LinkAttrs{Index: 7}, nil, nil, []netlink.Neigh{
		n("10.9.0.1", netlink.NUD_PERMANENT, 0),
		n("10.9.0.3", netlink.NUD_REACHABLE, 0),
		n("10.9.0.4", netlink.NUD_PERMANENT, netlink.NTF_PROXY),
		n("10.9.0.5", netlink.NUD_PERMANENT, pinnedFlags),
		n("224.0.0.1", netlink.NUD_PERMANENT, 0),
		n("fd09::1", netlink.NUD_PERMANENT, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range iface.Neighbours {
		got = append(got, n.Ip)
	}
	if want := []string{"10.9.0.1", "fd09::1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("neighbours %v, want %v", got, want)
	}
}

func TestInterfacesRefusedByName(t *testing.T) {
	base := func() netlink.LinkAttrs {
		return netlink.LinkAttrs{
			Index: 3, Name: "net7", Flags: net.FlagUp, EncapType: "ether", HardwareAddr: testMAC, NetNsID: -1,
		}
	}
	with := func(f func(*netlink.LinkAttrs)) netlink.LinkAttrs { a := base(); f(&a); return a }
	parent := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 2, Name: "eth0"}} // down
	for name, l := range map[string]netlink.Link{
		"ipvlan":       &netlink.IPVlan{LinkAttrs: base()},
		"tap":          &netlink.Tuntap{LinkAttrs: base()},
		"wireguard":    &netlink.Wireguard{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.EncapType, a.HardwareAddr = "none", nil })},
		"infiniband":   &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.HardwareAddr = make([]byte, 20) })},
		"netkit L3":    &netlink.GenericLink{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.HardwareAddr = make([]byte, 6) }), LinkType: "netkit"},
		"no ARP":       &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags = unix.IFF_NOARP })},
		"VLAN on eth0": &netlink.Vlan{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.ParentIndex = 2 })},
	} {
		if _, err := selectLinks([]netlink.Link{parent, l}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "net7") {
			t.Errorf("%s: %v", name, err)
		}
	}
	twin := with(func(a *netlink.LinkAttrs) { a.Index, a.Name = 4, "net8" })
	_, err := selectLinks([]netlink.Link{&netlink.Device{LinkAttrs: base()}, &netlink.Device{LinkAttrs: twin}})
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("two interfaces with one hardware address: %v", err)
	}
	onNode := with(func(a *netlink.LinkAttrs) { a.ParentIndex, a.NetNsID = 2, 0 })
	if _, err := selectLinks([]netlink.Link{parent, &netlink.Vlan{LinkAttrs: onNode}}); err != nil {
		t.Errorf("VLAN on an interface of the node: %v", err)
	}
}

func TestBridgeSurvivesJSON(t *testing.T) {
	want := &Bridge{inode: 4026532000, Interfaces: []Port{{
		Tap: "krun0",
		Interface: &api.Interface{Name: "eth0", Mac: testMAC, Mtu: 1450, Addresses: []string{"10.9.0.2/24"},
			Routes: []*api.Route{{Gateway: "10.9.0.1", Family: 4, Metric: 4294967295}}},
		host: attachment{Tap: 3, Link: 2, OwnQdisc: true, Name: "eth0", Solicitations: "-1"},
	}}}
	data, err := json.Marshal(struct{ Network *Bridge }{want})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Network *Bridge }
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	g, w := got.Network.Interfaces[0], want.Interfaces[0]
	if got.Network.inode != want.inode || g.Tap != w.Tap || g.host != w.host || !proto.Equal(g.Interface, w.Interface) {
		t.Errorf("got %+v, want %+v", got.Network, want)
	}
}

func TestAliasTellsHowToUndo(t *testing.T) {
	for _, own := range []bool{true, false} {
		if link, got, ok := parseAlias(alias(12, own)); link != 12 || got != own || !ok {
			t.Errorf("got %d %t %t", link, got, ok)
		}
	}
	for _, s := range []string{"", "krunpod", "krunpod 12", "krunpod x true", "krunpod 12 maybe", "krunpod -1 true", "lan"} {
		if _, _, ok := parseAlias(s); ok {
			t.Errorf("%q taken for ours", s)
		}
	}
}
