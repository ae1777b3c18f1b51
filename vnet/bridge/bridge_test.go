package bridge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/dns"
	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
	"krun.dev/krunpod/vnet/vnettest"
)

// families runs a test with the addresses of the node and the guest.
func families(t *testing.T, test func(t *testing.T, node, guest string)) {
	t.Run("IPv4", func(t *testing.T) { test(t, netlab.Node4, netlab.Guest4) })
	t.Run("IPv6", func(t *testing.T) { test(t, netlab.Node6, netlab.Guest6) })
}

// Enough data for segments of 64 KiB, whose checksums are left to do.
func TestDataArrivesWholeInBothDirections(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		b := l.join("")
		data := make([]byte, 4<<20)
		rand.NewChaCha8([32]byte{1}).Read(data)
		want := sha256.Sum256(data)
		check := func(r io.Reader, what string) {
			h := sha256.New()
			if _, err := io.Copy(h, r); err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("%s: not what was sent (%v)", what, err)
			}
		}
		received := make(chan struct{})
		l.Listen(l.Node, netlab.At(node, 80), func(c net.Conn) {
			c.Write(data)
			c.(*net.TCPConn).CloseWrite()
			check(c, "to the node")
			close(received)
		})
		c, err := l.Dial(l.Guest, "tcp", netlab.At(node, 80))
		netlab.Must(t, err)
		check(c, "to the guest")
		_, err = c.Write(data)
		netlab.Must(t, err)
		c.Close()
		<-received
		if frames := b.Stats().Firewall.FromGuest.Frames; frames > uint64(len(data)/netlab.MTU) {
			t.Errorf("%d frames from the guest: segments do not cross whole", frames)
		}
	})
}

func TestTheGuestIsReachedFromTheNode(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		l.join("allow ingress tcp any 8080")
		l.Listen(l.Guest, netlab.At(guest, 8080), func(c net.Conn) { io.WriteString(c, "hello") })
		l.Listen(l.Guest, netlab.At(guest, 22), func(c net.Conn) { io.WriteString(c, "secret") })
		c, err := l.Dial(l.Node, "tcp", netlab.At(guest, 8080))
		netlab.Must(t, err)
		if text, err := io.ReadAll(c); err != nil || string(text) != "hello" {
			t.Errorf("%q, %v", text, err)
		}
		if _, err := l.Dial(l.Node, "tcp", netlab.At(guest, 22)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a port that is not allowed: %v", err)
		}
	})
}

func TestARefusedProgramFailsAtOnce(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		b := l.join("allow egress tcp any 80")
		l.Listen(l.Node, netlab.At(node, 443), func(c net.Conn) {})
		start := time.Now()
		if _, err := l.Dial(l.Guest, "tcp", netlab.At(node, 443)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("TCP: %v", err)
		}
		c, err := l.Dial(l.Guest, "udp", netlab.At(node, 9))
		netlab.Must(t, err)
		_, err = c.Write([]byte("x"))
		netlab.Must(t, err)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) {
			t.Errorf("UDP: %v", err)
		}
		if d := time.Since(start); d > netlab.Patience/2 {
			t.Errorf("it took %v", d)
		}
		if s := b.Stats().Firewall.FromGuest; s.Dropped[firewall.Refused] != 2 || s.Answered != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// resolver is the vnet's, with the nameserver of the node.
func (l *lab) resolver(p *policy.Policy, o *firewall.Openings) Resolver {
	l.Helper()
	var udp net.PacketConn
	l.Node.In(func() (err error) { udp, err = net.ListenPacket("udp", netlab.At(netlab.Node4, 53)); return err })
	l.Cleanup(func() { udp.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(nodeDNS(buf[:n]), from)
		}
	}()
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		l.Node.In(func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, address)
			return nil
		})
		return conn, err
	}
	return dns.New(dns.Config{
		Names: p.NameSet(), Openings: o,
		Upstream: dns.NewServers([]netip.AddrPort{netip.MustParseAddrPort(netlab.At(netlab.Node4, 53))}, dial),
	})
}

// nodeDNS says that every name is the node.
func nodeDNS(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	m.Response, m.Additionals = true, nil
	switch q.Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(netlab.Node4).As4()}}}
	case dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(netlab.Node6).As16()}}}
	}
	reply, _ := m.Pack()
	return reply
}

func TestANameOpensItsAddressAndPort(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		l.join("allow egress api.example.org 443")
		l.Listen(l.Node, netlab.At(node, 443), func(c net.Conn) { io.WriteString(c, "hello") })
		l.Listen(l.Node, netlab.At(node, 80), func(c net.Conn) {})
		if _, err := l.Dial(l.Guest, "tcp", netlab.At(node, 443)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("before the name is asked for: %v", err)
		}
		client := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
			return l.Dial(l.Guest, network, netlab.At(node, 53))
		}}
		kind := map[bool]string{true: "ip4", false: "ip6"}[node == netlab.Node4]
		if addrs, err := client.LookupNetIP(t.Context(), kind, "evil.example.com"); err == nil {
			t.Errorf("another name is %v", addrs)
		}
		addrs, err := client.LookupNetIP(t.Context(), kind, "api.example.org")
		if err != nil || len(addrs) != 1 || addrs[0].String() != node {
			t.Fatalf("%v %v", addrs, err)
		}
		c, err := l.Dial(l.Guest, "tcp", netlab.At(node, 443))
		netlab.Must(t, err)
		if text, _ := io.ReadAll(c); string(text) != "hello" {
			t.Errorf("%q", text)
		}
		for _, port := range []int{80, 53, 853} {
			if _, err := l.Dial(l.Guest, "tcp", netlab.At(node, port)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("port %d: %v", port, err)
			}
		}
	})
}

// raw is a packet socket in a namespace.
func (l *lab) raw(ns *netlab.NS, name string) *os.File {
	l.Helper()
	var f *os.File
	ns.In(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ns.Link(name).Attrs().Index})
	})
	l.Cleanup(func() { f.Close() })
	netlab.Must(l, f.SetDeadline(time.Now().Add(netlab.Patience)))
	return f
}

// tagged puts a VLAN tag into a frame.
func tagged(frame []byte) []byte {
	return append(append(append([]byte(nil), frame[:12]...), 0x81, 0, 0, 5), frame[12:]...)
}

func TestFramesOfAnotherNetworkOrStationDoNotLeave(t *testing.T) {
	l := newLab(t)
	l.join("")
	me := vnettest.Host{MAC: packet.MAC(l.MAC), Addr: netip.MustParseAddr(netlab.Guest4)}
	everybody := vnettest.Host{MAC: packet.MAC{255, 255, 255, 255, 255, 255}, Addr: netip.MustParseAddr(netlab.Node4)}
	question := vnettest.ARP(t, me.MAC, packet.ARPRequest, me, everybody)
	gateway := vnettest.Host{MAC: packet.MAC(l.MAC), Addr: netip.MustParseAddr(netlab.Node4)}
	stranger := vnettest.Host{MAC: packet.MAC{2, 9, 9, 9, 9, 9}, Addr: me.Addr}
	wire, out := l.raw(l.Node, "veth0"), l.raw(l.Guest, "eth0")
	for _, frame := range [][]byte{
		tagged(vnettest.ARP(t, me.MAC, packet.ARPRequest, me, vnettest.Host{MAC: everybody.MAC, Addr: netip.MustParseAddr("10.9.0.77")})),
		vnettest.ARP(t, me.MAC, packet.ARPReply, gateway, everybody),
		vnettest.IP(t, stranger, everybody, vnettest.UDP(1, 2)),
		vnettest.Frame(t, vnettest.Ethernet(me, everybody, layers.EthernetTypePPPoEDiscovery), gopacket.Payload("x")),
		question, // the last, and the only one that leaves
	} {
		_, err := out.Write(frame)
		netlab.Must(t, err)
	}
	buf := make([]byte, 2000)
	for {
		n, err := wire.Read(buf)
		netlab.Must(t, err)
		if bytes.Equal(buf[:n], question) {
			return
		}
		if buf[0] != 0x33 { // the guest's kernel speaks to groups of IPv6 unasked
			t.Errorf("on the wire: %x", buf[:n])
		}
	}
}

// The guest's kernel may leave any checksum to the device: one whose field is the port would be written after the verdict.
func TestAnOffloadThatChangesWhatWasJudgedDoesNotLeave(t *testing.T) {
	l := newLab(t)
	b := l.join("")
	me := vnettest.Host{MAC: packet.MAC(l.MAC), Addr: netip.MustParseAddr(netlab.Guest4)}
	node := vnettest.Host{MAC: packet.MAC(l.Node.Link("veth0").Attrs().HardwareAddr), Addr: netip.MustParseAddr(netlab.Node4)}
	wire, out := l.raw(l.Node, "veth0"), l.raw(l.Guest, "eth0")
	raw, err := out.SyscallConn()
	netlab.Must(t, err)
	netlab.Must(t, raw.Control(func(fd uintptr) {
		netlab.Must(t, unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	}))
	send := func(payload string, field uint16) {
		const udpHeader = 34
		header := []byte{unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, 0, 0, 0, 0, 0}
		header = binary.NativeEndian.AppendUint16(header, udpHeader)
		header = binary.NativeEndian.AppendUint16(header, field)
		_, err := out.Write(append(header, vnettest.IP(t, me, node, vnettest.UDP(1000, 2000), vnettest.Data(payload))...))
		netlab.Must(t, err)
	}
	send("over the port", 2)
	send("as it should be", 6) // the last
	buf := make([]byte, 2000)
	for {
		n, err := wire.Read(buf)
		netlab.Must(t, err)
		if bytes.HasSuffix(buf[:n], []byte("as it should be")) {
			break
		}
		if bytes.HasSuffix(buf[:n], []byte("over the port")) {
			t.Errorf("on the wire: %x", buf[:n])
		}
	}
	if n := b.Stats().Firewall.FromGuest.Malformed[packet.BadOffload]; n != 1 {
		t.Errorf("%d frames are counted", n)
	}
}

func TestTheEndOfABridge(t *testing.T) {
	l := newLab(t)
	b := l.join("")
	l.Listen(l.Node, netlab.At(netlab.Node4, 80), func(c net.Conn) { io.WriteString(c, "hello") })
	_, err := l.Dial(l.Guest, "tcp", netlab.At(netlab.Node4, 80))
	netlab.Must(t, err)
	netlab.Must(t, b.Close())
	l.Guest.In(func() error {
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		if c, err := d.Dial("tcp", netlab.At(netlab.Node4, 80)); err == nil {
			c.Close()
			t.Error("without the bridge, frames pass")
		}
		return nil
	})
}

// A program that sends many datagrams with one call hands the kernel one that is cut later (udp(7), UDP_SEGMENT).
func TestDatagramsInOneSegment(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		l.join("allow ingress udp any 9")
		var in net.PacketConn
		l.Guest.In(func() (err error) { in, err = net.ListenPacket("udp", netlab.At(guest, 9)); return err })
		defer in.Close()
		out, err := l.Dial(l.Node, "udp", netlab.At(guest, 9))
		netlab.Must(t, err)
		raw, err := out.(*net.UDPConn).SyscallConn()
		netlab.Must(t, err)
		netlab.Must(t, raw.Control(func(fd uintptr) {
			netlab.Must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000))
		}))
		const datagrams = 20
		_, err = out.Write(make([]byte, 1000*datagrams))
		netlab.Must(t, err)
		netlab.Must(t, in.SetReadDeadline(time.Now().Add(netlab.Patience)))
		buf := make([]byte, 2000)
		for i := range datagrams {
			if n, _, err := in.ReadFrom(buf); err != nil || n != 1000 {
				t.Fatalf("datagram %d: %d bytes, %v", i, n, err)
			}
		}
	})
}

func TestAnInterfaceThatWasDownGoesOn(t *testing.T) {
	l := newLab(t)
	l.join("")
	l.Listen(l.Node, netlab.At(netlab.Node4, 80), func(c net.Conn) { io.WriteString(c, "hello") })
	krun0 := l.Pod.Pod.Link("krun0")
	netlab.Must(t, l.Pod.Pod.LinkSetDown(krun0))
	netlab.Must(t, l.Pod.Pod.LinkSetUp(krun0))
	c, err := l.Dial(l.Guest, "tcp", netlab.At(netlab.Node4, 80))
	netlab.Must(t, err)
	if text, _ := io.ReadAll(c); string(text) != "hello" {
		t.Errorf("%q", text)
	}
}

func TestInterfaceThatIsNotThere(t *testing.T) {
	newLab(t).Pod.Pod.In(func() error {
		if p, err := Interface("eth9"); err == nil || p != nil || !strings.Contains(err.Error(), "eth9") {
			t.Errorf("%v", err)
		}
		return nil
	})
}
