package netbridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (l *lab) join() *Bridge {
	l.Helper()
	b, err := Join(context.Background(), l.pod.Path, nil)
	must(l, err)
	return b
}

// pinger is an ICMP socket of the node.
func (l *lab) pinger(network, addr string) (c net.PacketConn) {
	l.Helper()
	l.node.In(func() (err error) {
		c, err = net.ListenPacket(network, addr)
		return err
	})
	l.Cleanup(func() { c.Close() })
	return c
}

func TestNodePingsGuest(t *testing.T) {
	for _, tc := range []struct {
		name, network, listen, guest string
		request, reply               byte
	}{
		{"IPv4", "ip4:icmp", "10.9.0.1", "10.9.0.2", 8, 0},
		{"IPv6", "ip6:ipv6-icmp", "fd09::1", "fd09::2", 128, 129},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			l.bridgePod()
			g := l.attach(l.join().Interfaces[0])
			c := l.pinger(tc.network, tc.listen)
			echo := []byte{tc.request, 0, 0, 0, 0x12, 0x34, 0, 1, 'k', 'r', 'u', 'n'}
			binary.BigEndian.PutUint16(echo[2:], checksum(0, echo))
			_, err := c.WriteTo(echo, &net.IPAddr{IP: net.ParseIP(tc.guest)})
			must(t, err)
			_, request := g.until(false, func(_, f []byte) bool { return isICMP(f, 8) || isICMP6(f, 128) })
			g.answer(request, true)
			must(t, c.SetReadDeadline(time.Now().Add(patience)))
			buf := make([]byte, 1500)
			for {
				n, _, err := c.ReadFrom(buf)
				must(t, err)
				if n >= len(echo) && buf[0] == tc.reply && bytes.Equal(buf[4:n], echo[4:]) {
					return
				}
			}
		})
	}
}

func TestGuestPingsNode(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		l := newLab(t)
		l.bridgePod()
		g := l.attach(l.join().Interfaces[0])
		gw := netip.MustParseAddr("10.9.0.1")
		request := arp(1, g.mac, g.ip4, make(net.HardwareAddr, 6), gw)
		copy(request, broadcast)
		reply := g.ask(request, func(f []byte) bool { return isARP(f, 2) && bytes.Equal(f[28:32], gw.AsSlice()) })
		echo := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
		binary.BigEndian.PutUint16(echo[2:], checksum(0, echo))
		g.write(nil, ip4(g.mac, reply[6:12], g.ip4, gw, 1, echo))
		g.until(true, func(_, f []byte) bool { return isICMP(f, 0) })
	})
	t.Run("IPv6", func(t *testing.T) {
		l := newLab(t)
		l.bridgePod()
		g := l.attach(l.join().Interfaces[0])
		gw := netip.MustParseAddr("fd09::1")
		body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, gw.AsSlice()...)
		body = append(append(body, 1, 1), g.mac...)
		solicited := []byte{0x33, 0x33, 0xff, 0, 0, 1}
		question := ip6(g.mac, solicited, g.ip6, netip.MustParseAddr("ff02::1:ff00:1"), 58, body, 2)
		adv := g.ask(question, func(f []byte) bool { return isICMP6(f, 136) })
		echo := []byte{128, 0, 0, 0, 0x12, 0x34, 0, 1}
		g.write(nil, ip6(g.mac, adv[6:12], g.ip6, gw, 58, echo, 2))
		g.until(true, func(_, f []byte) bool { return isICMP6(f, 129) })
	})
}

// The guest's kernel leaves checksums to the device, and so does the node's.
func TestChecksumsAreOffloadedBothWays(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	g := l.attach(l.join().Interfaces[0])
	var conn net.PacketConn
	l.node.In(func() (err error) {
		conn, err = net.ListenPacket("udp4", "10.9.0.1:5353")
		return err
	})
	defer conn.Close()

	_, err := conn.WriteTo([]byte("to the guest"), &net.UDPAddr{IP: g.ip4.AsSlice(), Port: 5353})
	must(t, err)
	hdr, frame := g.until(false, func(_, f []byte) bool { return bytes.HasSuffix(f, []byte("to the guest")) })
	if hdr[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 {
		t.Errorf("virtio header %x: the checksum was computed on the node", hdr)
	}

	payload := []byte("from the guest")
	node := netip.MustParseAddr("10.9.0.1")
	udp := []byte{0x14, 0xe9, 0x14, 0xe9, 0, byte(8 + len(payload)), 0, 0}
	pseudo := append(append([]byte{}, g.ip4.AsSlice()...), node.AsSlice()...)
	pseudo = append(pseudo, 0, 17, 0, byte(8+len(payload)))
	binary.BigEndian.PutUint16(udp[6:], partial(0, pseudo))
	hdr = make([]byte, vnetHdrLen)
	hdr[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.LittleEndian.PutUint16(hdr[6:], 34) // csum_start
	binary.LittleEndian.PutUint16(hdr[8:], 6)  // csum_offset
	g.write(hdr, ip4(g.mac, frame[6:12], g.ip4, node, 17, append(udp, payload...)))
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 100)
	n, _, err := conn.ReadFrom(buf)
	must(t, err)
	if string(buf[:n]) != string(payload) {
		t.Errorf("received %q", buf[:n])
	}
}

// Whatever its destination and type, a frame crosses unchanged.
func TestEveryFrameCrosses(t *testing.T) {
	l := newLab(t)
	l.veth("eth0", "veth0", 1500)
	g := l.attach(l.join().Interfaces[0])
	peer := l.node.Link("veth0").Attrs()
	wire := l.packetSocket(peer.Index)
	long := bytes.Repeat([]byte("x"), 1500)
	for _, tc := range []struct {
		name    string
		dst     net.HardwareAddr
		kind    uint16
		payload []byte
	}{
		{"broadcast", broadcast, 0x88b5, []byte("broadcast of an experimental type")},
		{"multicast", net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, 0x0800, []byte("no valid IPv4 packet at all")},
		{"stranger", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 0x88b5, []byte("for another hardware address")},
		{"one byte", broadcast, 0x88b5, []byte{1}},
		{"full", broadcast, 0x88b5, long},
		{"VLAN", broadcast, 0x8100, []byte{0, 42, 0x88, 0xb5, 'v', 'l', 'a', 'n'}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g.TB = t
			in := ethernet(peer.HardwareAddr, tc.dst, tc.kind, tc.payload)
			_, err := wire.Write(in)
			must(t, err)
			g.until(false, func(_, f []byte) bool { return bytes.Equal(f, in) })

			out := ethernet(g.mac, tc.dst, tc.kind, tc.payload)
			g.write(nil, out)
			if tc.name == "VLAN" { // a packet socket shows the frame without its tag
				out = ethernet(g.mac, tc.dst, 0x88b5, tc.payload[4:])
			}
			must(t, wire.SetReadDeadline(time.Now().Add(patience)))
			buf := make([]byte, 2000)
			for {
				n, err := wire.Read(buf)
				must(t, err)
				if bytes.Equal(buf[:n], out) {
					return
				}
			}
		})
	}
}

func (l *lab) packetSocket(link int) (f *os.File) {
	l.Helper()
	l.node.In(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0x0300) // ETH_P_ALL
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "packet")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: link})
	})
	l.Cleanup(func() { f.Close() })
	return f
}

// The addresses are still on eth0 in the namespace, but only the guest answers for them.
func TestNamespaceStaysSilent(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	b := l.join()
	tapMAC := l.pod.Link(b.Interfaces[0].Tap).Attrs().HardwareAddr
	g := l.attach(b.Interfaces[0])
	wire := l.packetSocket(l.node.Link("veth0").Attrs().Index)

	const silence = 400 * time.Millisecond
	dial := func(network, addr string) <-chan error {
		done := make(chan error, 1)
		go l.node.In(func() error {
			c, err := net.DialTimeout(network, addr, silence)
			if err == nil {
				c.Close()
				err = errors.New("the connection was accepted")
			}
			done <- err
			return nil
		})
		return done
	}
	waits := []<-chan error{
		dial("tcp4", "10.9.0.2:80"), dial("tcp6", "[fd09::2]:80"),
	}
	end := time.Now().Add(2 * silence)
	syns := 0
	for {
		_, f := g.read(end)
		if f == nil {
			break
		}
		if bytes.Equal(f[6:12], tapMAC) || bytes.Equal(f[6:12], g.mac) {
			t.Errorf("the namespace sent a frame to the guest: %x", f)
		}
		if len(f) > 60 && (f[23] == 6 || f[20] == 6) {
			syns++
		}
		g.answer(f, false)
	}
	if syns < 2 {
		t.Errorf("the guest saw %d SYNs, want one of each family", syns)
	}
	for _, w := range waits {
		var timeout net.Error
		if err := <-w; !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("dial: %v, want a timeout: nobody may refuse in the guest's place", err)
		}
	}
	must(t, wire.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	if err := onlyGuestSpoke(wire, g); err != nil {
		t.Error(err)
	}
}

// onlyGuestSpoke reads what passed the wire: from the pod's address only ARP replies and neighbour advertisements.
func onlyGuestSpoke(wire *os.File, g *guest) error {
	buf := make([]byte, 2000)
	for {
		n, err := wire.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		f := buf[:n]
		if bytes.Equal(f[6:12], g.mac) && !isARP(f, 2) && !isICMP6(f, 136) && !isICMP6(f, 143) && !isMLD(f) {
			return fmt.Errorf("the namespace sent %x", f)
		}
	}
}

// isMLD reports a multicast listener report (with a hop-by-hop header); those that CNI's addresses caused may be
// under way still.
func isMLD(f []byte) bool { return len(f) > 62 && f[12] == 0x86 && f[20] == 0 && f[62] == 143 }
