package bridge

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
)

// lab is a node, a pod and a guest, each a network namespace. The guest's is that of a kernel behind a NIC: its eth0 is
// joined to the pod's krun0 by a cable, and has the addresses and the hardware address of the pod's eth0, which has a
// cable to the node.
//
//	node veth0 ──── eth0 pod krun0 ──── eth0 guest
type lab struct {
	testing.TB
	node, pod, guest *netlab.NS
	mac              packet.MAC
}

// The addresses of the node and the guest.
const (
	node4, guest4 = "10.9.0.1", "10.9.0.2"
	node6, guest6 = "fd09::1", "fd09::2"
	labMTU        = 1450
	patience      = 5 * time.Second
)

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{TB: t, node: netlab.New(t), pod: netlab.New(t), guest: netlab.New(t)}
	l.cable(l.node, "veth0", l.pod, "eth0")
	l.cable(l.guest, "eth0", l.pod, "krun0")
	mac := l.pod.Link("eth0").Attrs().HardwareAddr
	l.mac = packet.MAC(mac)
	eth0 := l.guest.Link("eth0")
	netlab.Must(t, l.guest.LinkSetDown(eth0))
	netlab.Must(t, l.guest.LinkSetHardwareAddr(eth0, mac))
	netlab.Must(t, l.guest.LinkSetUp(eth0))
	l.pod.Set("net/ipv6/conf/krun0/disable_ipv6", "1")
	l.node.Addr("veth0", node4+"/24")
	l.node.Addr("veth0", node6+"/64")
	for _, ns := range []*netlab.NS{l.pod, l.guest} {
		ns.Addr("eth0", guest4+"/24")
		ns.Addr("eth0", guest6+"/64")
	}
	return l
}

func (l *lab) cable(ns *netlab.NS, name string, peer *netlab.NS, peerName string) {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, labMTU
	netlab.Must(l, ns.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.FD)}))
	netlab.Must(l, ns.LinkSetUp(ns.Link(name)))
	netlab.Must(l, peer.LinkSetMTU(peer.Link(peerName), labMTU))
	netlab.Must(l, peer.LinkSetUp(peer.Link(peerName)))
}

// silence keeps the frames on an interface of the pod from its kernel's stack. With to they go out of that one, as
// with the redirect of package netbridge.
func (l *lab) silence(name, to string) {
	l.Helper()
	index := l.pod.Link(name).Attrs().Index
	netlab.Must(l, l.pod.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}))
	verdict := asm.Instructions{asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_SHOT)), asm.Return()}
	if to != "" {
		verdict = asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(l.pod.Link(to).Attrs().Index)), asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(), asm.Return(),
		}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: verdict})
	netlab.Must(l, err)
	l.Cleanup(func() { program.Close() })
	netlab.Must(l, l.pod.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), DirectAction: true,
	}))
}

// join runs a bridge with a policy in the syntax of the annotation ("" is none) until the test's end.
func (l *lab) join(rules string, change ...func(*Config)) *Bridge {
	l.Helper()
	l.silence("eth0", "")
	l.silence("krun0", "")
	f := firewall.Config{
		MAC: l.mac, Addresses: []netip.Addr{netip.MustParseAddr(guest4), netip.MustParseAddr(guest6)},
		Openings: firewall.NewOpenings(0, nil),
	}
	if rules != "" {
		var err error
		f.Policy, err = policy.Parse(map[string]string{policy.AnnotationRules: rules})
		netlab.Must(l, err)
	}
	wall, err := firewall.New(f)
	netlab.Must(l, err)
	c := Config{Guest: "krun0", Network: "eth0", Firewall: wall}
	if f.Policy != nil && f.Policy.Names() {
		c.Resolver = l.resolver(f.Policy, f.Openings)
	}
	for _, fn := range change {
		fn(&c)
	}
	var b *Bridge
	l.pod.In(func() (err error) { b, err = Open(c); return err })
	ctx, cancel := context.WithCancel(l.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	l.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				l.Error(err)
			}
		case <-time.After(patience):
			l.Error("the bridge does not end")
		}
	})
	return b
}

// listen listens in a namespace and serves each connection.
func (l *lab) listen(ns *netlab.NS, address string, serve func(net.Conn)) {
	l.Helper()
	var listener net.Listener
	ns.In(func() (err error) { listener, err = net.Listen("tcp", address); return err })
	l.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
}

// dial connects from a namespace.
func (l *lab) dial(ns *netlab.NS, network, address string) (conn net.Conn, err error) {
	l.Helper()
	ns.In(func() error {
		d := net.Dialer{Timeout: patience}
		conn, err = d.Dial(network, address)
		return nil
	})
	if err == nil {
		netlab.Must(l, conn.SetDeadline(time.Now().Add(patience)))
		l.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// at is an address with a port.
func at(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }
