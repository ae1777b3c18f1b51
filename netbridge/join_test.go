package netbridge

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"krun.dev/krunpod/agent/api"
)

func TestJoinReportsWhatTheGuestTakesOver(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	gw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	eth0 := l.pod.Link("eth0").Attrs()
	must(t, l.pod.NeighSet(&netlink.Neigh{
		LinkIndex: eth0.Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("10.9.0.1"), HardwareAddr: gw,
	}))
	got := l.join().Interfaces
	if len(got) != 1 || got[0].Tap != "krun0" {
		t.Fatalf("interfaces %+v", got)
	}
	want := &api.Interface{
		Name: "eth0", Mac: eth0.HardwareAddr, Mtu: 1450,
		Addresses: []string{"10.9.0.2/24", "fd09::2/64", linkLocal(eth0.HardwareAddr)},
		Routes: []*api.Route{
			{Destination: "10.9.0.0/24", Source: "10.9.0.2", Scope: unix.RT_SCOPE_LINK, Type: 1, Protocol: 2, Family: 4},
			{Destination: "fd09::/64", Metric: 256, Type: 1, Protocol: 2, Family: 6},
			{Gateway: "10.9.0.1", Type: 1, Protocol: 3, Family: 4},
			{Gateway: "fd09::1", Metric: 1024, Type: 1, Protocol: 3, Family: 6},
		},
		Neighbours: []*api.Neighbour{{Ip: "10.9.0.1", Mac: gw, State: netlink.NUD_PERMANENT}},
	}
	if !proto.Equal(got[0].Interface, want) {
		t.Errorf("got  %v\nwant %v", got[0].Interface, want)
	}
	tap := l.pod.Link("krun0").Attrs()
	if tap.MTU != 1450 || tap.TxQLen != tapQueue || tap.Flags&net.FlagUp == 0 {
		t.Errorf("tap: MTU %d, queue %d, flags %s", tap.MTU, tap.TxQLen, tap.Flags)
	}
}

// Calico: an address of its own, a gateway that is in no subnet.
func TestJoinOnlinkGateway(t *testing.T) {
	l := newLab(t)
	l.veth("eth0", "veth0", 1500)
	l.pod.Addr("eth0", "192.168.7.9/32")
	l.pod.Route("eth0", "169.254.1.1/32", "", 0)
	l.pod.Route("eth0", "0.0.0.0/0", "169.254.1.1", 0)
	l.pod.Route("eth0", "10.0.0.0/8", "198.51.100.1", netlink.FLAG_ONLINK)
	iface := l.join().Interfaces[0].Interface
	var got []string
	for _, r := range iface.Routes {
		if r.Family == 4 {
			got = append(got, strings.TrimSpace(r.Destination+" via "+r.Gateway+map[uint32]string{4: " onlink"}[r.Flags]))
		}
	}
	want := []string{"169.254.1.1/32 via", "10.0.0.0/8 via 198.51.100.1 onlink", "via 169.254.1.1"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("routes %q, want %q", got, want)
	}
}

func TestJoinTwoInterfaces(t *testing.T) {
	l := newLab(t)
	l.veth("net1", "veth1", 9000) // made before eth0
	l.veth("eth0", "veth0", 1500)
	l.veth("down", "veth2", 1500)
	must(t, l.pod.LinkSetDown(l.pod.Link("down")))
	l.pod.Addr("net1", "10.1.0.2/24")
	l.pod.Addr("eth0", "10.9.0.2/24")
	l.node.Addr("veth1", "10.1.0.1/24")
	b := l.join()
	if len(b.Interfaces) != 2 || b.Interfaces[0].Interface.Name != "eth0" || b.Interfaces[1].Interface.Name != "net1" {
		t.Fatalf("interfaces %+v", b.Interfaces)
	}
	net1 := b.Interfaces[1].Interface
	if a := net1.Addresses; !reflect.DeepEqual(a, []string{"10.1.0.2/24", linkLocal(net1.Mac)}) {
		t.Errorf("addresses of net1: %v", a)
	}
	g := l.attach(b.Interfaces[1])
	c := l.pinger("ip4:icmp", "10.1.0.1")
	_, err := c.WriteTo([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: net.ParseIP("10.1.0.2")})
	must(t, err)
	g.until(false, func(_, f []byte) bool { return isICMP(f, 8) })
}

func TestJoinWithoutInterfaces(t *testing.T) {
	l := newLab(t)
	if b := l.join(); len(b.Interfaces) != 0 {
		t.Errorf("interfaces %+v", b.Interfaces)
	}
}

func TestJoinMacvlan(t *testing.T) {
	l := newLab(t)
	l.veth("unused", "veth0", 1500)
	must(t, l.pod.LinkDel(l.pod.Link("unused")))
	l.veth2(t, "lan0", "lan1")
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = "eth0", l.node.Link("lan0").Attrs().Index, netlink.NsFd(l.pod.FD)
	if err := l.node.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		t.Skip("this kernel has no macvlan: ", err)
	}
	must(t, l.pod.LinkSetUp(l.pod.Link("eth0")))
	l.pod.Addr("eth0", "10.9.0.2/24")
	l.node.Addr("lan1", "10.9.0.1/24")
	g := l.attach(l.join().Interfaces[0])
	c := l.pinger("ip4:icmp", "10.9.0.1")
	_, err := c.WriteTo([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: net.ParseIP("10.9.0.2")})
	must(t, err)
	g.until(false, func(_, f []byte) bool { return isICMP(f, 8) })
}

// veth2 makes a pair of interfaces on the node.
func (l *lab) veth2(t *testing.T, a, b string) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	must(t, l.node.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}))
	must(t, l.node.LinkSetUp(l.node.Link(a)))
	must(t, l.node.LinkSetUp(l.node.Link(b)))
}

func TestLeaveRestoresTheNamespace(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.veth("net1", "veth1", 9000)
	before := l.pod.state()
	b := l.join()
	if l.pod.state() == before {
		t.Fatal("Join changed nothing")
	}
	g := l.attach(b.Interfaces[0]) // a runner that is on its way out
	data, err := json.Marshal(b)
	must(t, err)
	restored := new(Bridge)
	must(t, json.Unmarshal(data, restored))
	for range 2 {
		must(t, Leave(context.Background(), l.pod.Path, restored))
		if after := l.pod.state(); after != before {
			t.Errorf("after Leave:\n%s\nbefore Join:\n%s", after, before)
		}
	}
	g.tap.Close()
	if b := l.join(); b.Interfaces[0].Tap != "krun0" {
		t.Errorf("second Join: tap %s", b.Interfaces[0].Tap)
	}
}

func TestLeaveWithoutState(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.pod.Set("net/ipv6/conf/eth0/router_solicitations", "0")
	before := l.pod.state()
	l.join()
	must(t, Leave(context.Background(), l.pod.Path, nil))
	if after := l.pod.state(); after != before {
		t.Errorf("after Leave:\n%s\nbefore Join:\n%s", after, before)
	}
}

func TestLeaveWithoutStateSparesAMicroVM(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.attach(l.join().Interfaces[0])
	joined := l.pod.state()
	must(t, Leave(context.Background(), l.pod.Path, nil))
	if after := l.pod.state(); after != joined {
		t.Errorf("after Leave:\n%s\nbefore:\n%s", after, joined)
	}
}

func TestLeaveOnWhatHasVanished(t *testing.T) {
	ctx := context.Background()
	t.Run("interface", func(t *testing.T) {
		l := newLab(t)
		l.bridgePod()
		b := l.join()
		must(t, l.pod.LinkDel(l.pod.Link("eth0")))
		must(t, Leave(ctx, l.pod.Path, b))
		if _, err := l.pod.LinkByName("krun0"); err == nil {
			t.Error("the tap is still there")
		}
	})
	t.Run("namespace", func(t *testing.T) {
		l := newLab(t)
		l.bridgePod()
		b := l.join()
		must(t, unix.Unmount(l.pod.Path, unix.MNT_DETACH))
		must(t, os.Remove(l.pod.Path))
		must(t, Leave(ctx, l.pod.Path, b))
	})
	t.Run("namespace unmounted", func(t *testing.T) {
		l := newLab(t)
		b := l.join()
		must(t, unix.Unmount(l.pod.Path, unix.MNT_DETACH))
		must(t, Leave(ctx, l.pod.Path, b))
	})
	t.Run("another namespace at the path", func(t *testing.T) {
		l, other := newLab(t), newLab(t)
		l.bridgePod()
		other.bridgePod()
		b := l.join()
		other.join()
		must(t, Leave(ctx, other.pod.Path, b))
		other.pod.Link("krun0")
	})
}

func TestJoinUndoesItselfOnError(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.veth("net1", "veth1", 1500)
	// Someone else's filter in the place of ours, on the last interface.
	net1 := l.pod.Link("net1").Attrs().Index
	_, err := addClsact(l.pod.Handle, net1)
	must(t, err)
	must(t, addRedirect(l.pod.Handle, net1, net1))
	before := l.pod.state()
	_, err = Join(context.Background(), l.pod.Path, nil)
	if err == nil || !strings.Contains(err.Error(), "net1") || !strings.Contains(err.Error(), "another ingress filter") {
		t.Errorf("error %v", err)
	}
	if after := l.pod.state(); after != before {
		t.Errorf("after the failed Join:\n%s\nbefore:\n%s", after, before)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Join(ctx, l.pod.Path, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Join: %v", err)
	}
}

// A qdisc that CNI made stays, with its own filters.
func TestForeignQdiscIsKept(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	_, err := addClsact(l.pod.Handle, l.pod.Link("eth0").Attrs().Index)
	must(t, err)
	before := l.pod.state()
	b := l.join()
	must(t, Leave(context.Background(), l.pod.Path, b))
	if after := l.pod.state(); after != before {
		t.Errorf("after Leave:\n%s\nbefore Join:\n%s", after, before)
	}
}

func TestJoinAgain(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	g := l.attach(l.join().Interfaces[0])
	if _, err := Join(context.Background(), l.pod.Path, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("Join under a running microVM: %v", err)
	}
	g.tap.Close()
	b := l.join() // what the dead one left is cleared
	g = l.attach(b.Interfaces[0])
	c := l.pinger("ip4:icmp", "10.9.0.1")
	_, err := c.WriteTo([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: net.ParseIP("10.9.0.2")})
	must(t, err)
	g.until(false, func(_, f []byte) bool { return isICMP(f, 8) })
}

func TestJoinRefusesWhatIsNoPodNamespace(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, unix.Mkfifo(fifo, 0o600))
	for _, tc := range []struct{ path, message string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{file, "plain file"},
		{fifo, "plain file"},
		{dir, "plain file"},
		{"/proc/self/ns/mnt", "another type"},
		{"/proc/self/ns/net", "hostNetwork"},
	} {
		_, err := Join(context.Background(), tc.path, nil)
		if !errors.Is(err, ErrNetNS) || !strings.Contains(err.Error(), tc.message) || !strings.Contains(err.Error(), tc.path) {
			t.Errorf("%s: %v", tc.path, err)
		}
		if err := Leave(context.Background(), tc.path, nil); err != nil {
			t.Errorf("Leave of what was never joined: %v", err)
		}
	}
	if _, err := openNamespace(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a namespace no longer mounted: %v", err)
	}
}

func TestThreadsStayInTheirNamespace(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	podNS, err := os.Stat(l.pod.Path)
	must(t, err)
	for range 20 {
		must(t, Leave(context.Background(), l.pod.Path, l.join()))
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	must(t, err)
	for _, task := range tasks {
		if fi, err := os.Stat(task); err == nil && os.SameFile(fi, podNS) {
			t.Errorf("%s is the pod's", task)
		}
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	l := newLab(b)
	l.bridgePod()
	for b.Loop() {
		bridge := l.join()
		b.StopTimer()
		must(b, Leave(context.Background(), l.pod.Path, bridge))
		b.StartTimer()
	}
}
