package netlab

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Pod is a node, a pod and a guest, each a network namespace. The guest's is that of a kernel behind a NIC: its eth0 is
// joined to the pod's krun0 by a cable, and has the addresses and the hardware address of the pod's eth0, which has a
// cable to the node.
//
//	node veth0 ──── eth0 pod krun0 ──── eth0 guest
type Pod struct {
	testing.TB
	Node, Pod, Guest *NS
	MAC              net.HardwareAddr
}

// The addresses of the node and the guest, and the MTU of all cables.
const (
	Node4, Guest4 = "10.9.0.1", "10.9.0.2"
	Node6, Guest6 = "fd09::1", "fd09::2"
	MTU           = 1450
	// Patience bounds waiting for what comes.
	Patience = 5 * time.Second
)

// NewPod makes the namespaces; nothing connects the pod's two interfaces yet.
func NewPod(t testing.TB) *Pod {
	t.Helper()
	p := &Pod{TB: t, Node: New(t), Pod: New(t), Guest: New(t)}
	p.cable(p.Node, "veth0", p.Pod, "eth0")
	p.cable(p.Guest, "eth0", p.Pod, "krun0")
	p.MAC = p.Pod.Link("eth0").Attrs().HardwareAddr
	eth0 := p.Guest.Link("eth0")
	Must(t, p.Guest.LinkSetDown(eth0))
	Must(t, p.Guest.LinkSetHardwareAddr(eth0, p.MAC))
	Must(t, p.Guest.LinkSetUp(eth0))
	p.Pod.Set("net/ipv6/conf/krun0/disable_ipv6", "1")
	p.Node.Addr("veth0", Node4+"/24")
	p.Node.Addr("veth0", Node6+"/64")
	for _, ns := range []*NS{p.Pod, p.Guest} {
		ns.Addr("eth0", Guest4+"/24")
		ns.Addr("eth0", Guest6+"/64")
	}
	return p
}

func (p *Pod) cable(ns *NS, name string, peer *NS, peerName string) {
	p.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, MTU
	Must(p, ns.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerName, PeerNamespace: netlink.NsFd(peer.FD)}))
	Must(p, ns.LinkSetUp(ns.Link(name)))
	Must(p, peer.LinkSetMTU(peer.Link(peerName), MTU))
	Must(p, peer.LinkSetUp(peer.Link(peerName)))
}

// Silence keeps the frames on an interface of the pod from its kernel's stack. With to they go out of that one, as
// with the redirect of package netbridge.
func (p *Pod) Silence(name, to string) {
	p.Helper()
	index := p.Pod.Link(name).Attrs().Index
	Must(p, p.Pod.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}))
	verdict := asm.Instructions{asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_SHOT)), asm.Return()}
	if to != "" {
		verdict = asm.Instructions{
			asm.Mov.Imm(asm.R1, int32(p.Pod.Link(to).Attrs().Index)), asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(), asm.Return(),
		}
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: verdict})
	Must(p, err)
	p.Cleanup(func() { program.Close() })
	Must(p, p.Pod.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: program.FD(), DirectAction: true,
	}))
}

// Listen listens in a namespace and serves each connection.
func (p *Pod) Listen(ns *NS, address string, serve func(net.Conn)) {
	p.Helper()
	var listener net.Listener
	ns.In(func() (err error) { listener, err = net.Listen("tcp", address); return err })
	p.Cleanup(func() { listener.Close() })
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

// Dial connects from a namespace.
func (p *Pod) Dial(ns *NS, network, address string) (conn net.Conn, err error) {
	p.Helper()
	ns.In(func() error {
		d := net.Dialer{Timeout: Patience}
		conn, err = d.Dial(network, address)
		return nil
	})
	if err == nil {
		Must(p, conn.SetDeadline(time.Now().Add(Patience)))
		p.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// At is an address with a port.
func At(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }
