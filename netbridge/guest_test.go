package netbridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	vnetHdrLen = 12 // struct virtio_net_hdr_mrg_rxbuf
	patience   = 5 * time.Second
)

// guest is a NIC as libkrun makes it (krun-devices 1.19.7, virtio/net/tap.rs), with a tiny stack of its own.
type guest struct {
	testing.TB
	tap *os.File
	mac net.HardwareAddr
	ip4 netip.Addr
	ip6 netip.Addr
}

func (l *lab) attach(p Port) *guest {
	l.Helper()
	g := &guest{TB: l.TB, mac: p.Interface.Mac}
	for _, a := range p.Interface.Addresses {
		if ip := netip.MustParsePrefix(a).Addr(); ip.Is4() {
			g.ip4 = ip
		} else if !ip.IsLinkLocalUnicast() {
			g.ip6 = ip
		}
	}
	l.pod.In(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(p.Tap)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHdrLen); err != nil {
			return err
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
			return err
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		g.tap = os.NewFile(uintptr(fd), p.Tap)
		return nil
	})
	l.Cleanup(func() { g.tap.Close() })
	return g
}

// read returns the next frame and its virtio header, or nil after the deadline.
func (g *guest) read(deadline time.Time) (hdr, frame []byte) {
	g.Helper()
	must(g, g.tap.SetReadDeadline(deadline))
	buf := make([]byte, 65562)
	n, err := g.tap.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil
	}
	must(g, err)
	if n < vnetHdrLen+14 {
		g.Fatalf("read %d bytes from the tap", n)
	}
	return buf[:vnetHdrLen], buf[vnetHdrLen:n]
}

func (g *guest) write(hdr, frame []byte) {
	g.Helper()
	if hdr == nil {
		hdr = make([]byte, vnetHdrLen)
	}
	if _, err := g.tap.Write(append(bytes.Clone(hdr), frame...)); err != nil {
		// The tap comes up with the carrier, a moment after the attachment.
		g.Fatal("write to the tap: ", err)
	}
}

// until reads and answers frames until one matches.
func (g *guest) until(answerPing bool, match func(hdr, frame []byte) bool) (hdr, frame []byte) {
	g.Helper()
	hdr, frame = g.await(time.Now().Add(patience), answerPing, match)
	if frame == nil {
		g.Fatal("the awaited frame did not come")
	}
	return hdr, frame
}

// ask sends a frame until one that matches comes back: a bridge forwards only some time after its port came up.
func (g *guest) ask(question []byte, match func(frame []byte) bool) (frame []byte) {
	g.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		g.write(nil, question)
		_, frame = g.await(time.Now().Add(patience/25), true, func(_, f []byte) bool { return match(f) })
		if frame != nil {
			return frame
		}
	}
	g.Fatal("no answer")
	return nil
}

func (g *guest) await(deadline time.Time, answerPing bool, match func(hdr, frame []byte) bool) (hdr, frame []byte) {
	g.Helper()
	for {
		hdr, frame := g.read(deadline)
		if frame == nil || match(hdr, frame) {
			return hdr, frame
		}
		g.answer(frame, answerPing)
	}
}

// answer is the guest's stack: ARP and neighbour discovery always, echo requests if asked to.
func (g *guest) answer(frame []byte, ping bool) {
	g.Helper()
	switch {
	case isARP(frame, 1) && bytes.Equal(frame[38:42], g.ip4.AsSlice()):
		g.write(nil, arp(2, g.mac, g.ip4, net.HardwareAddr(frame[22:28]), netip.AddrFrom4([4]byte(frame[28:32]))))
	case isICMP6(frame, 135) && bytes.Equal(frame[62:78], g.ip6.AsSlice()):
		src := netip.AddrFrom16([16]byte(frame[22:38]))
		body := append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, g.ip6.AsSlice()...)
		body = append(body, 2, 1)
		body = append(body, g.mac...)
		g.write(nil, ip6(g.mac, frame[6:12], g.ip6, src, 58, body, 2))
	case ping && isICMP(frame, 8):
		body := bytes.Clone(frame[34:])
		body[0], body[2], body[3] = 0, 0, 0
		binary.BigEndian.PutUint16(body[2:], checksum(0, body))
		g.write(nil, ip4(g.mac, frame[6:12], g.ip4, netip.AddrFrom4([4]byte(frame[26:30])), 1, body))
	case ping && isICMP6(frame, 128):
		body := bytes.Clone(frame[54:])
		body[0], body[2], body[3] = 129, 0, 0
		g.write(nil, ip6(g.mac, frame[6:12], g.ip6, netip.AddrFrom16([16]byte(frame[22:38])), 58, body, 2))
	}
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func isARP(f []byte, op byte) bool {
	return len(f) >= 42 && f[12] == 8 && f[13] == 6 && f[21] == op
}

func isICMP(f []byte, kind byte) bool {
	return len(f) >= 42 && f[12] == 8 && f[13] == 0 && f[23] == 1 && f[34] == kind
}

func isICMP6(f []byte, kind byte) bool {
	return len(f) >= 62 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 58 && f[54] == kind &&
		(kind != 135 || len(f) >= 78)
}

func ethernet(src, dst []byte, kind uint16, payload []byte) []byte {
	f := append(bytes.Clone(dst), src...)
	return append(binary.BigEndian.AppendUint16(f, kind), payload...)
}

func arp(op byte, src net.HardwareAddr, srcIP netip.Addr, dst net.HardwareAddr, dstIP netip.Addr) []byte {
	p := []byte{0, 1, 8, 0, 6, 4, 0, op}
	p = append(append(p, src...), srcIP.AsSlice()...)
	p = append(append(p, dst...), dstIP.AsSlice()...)
	return ethernet(src, dst, 0x0806, p)
}

func ip4(srcMAC, dstMAC []byte, src, dst netip.Addr, proto byte, body []byte) []byte {
	h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
	binary.BigEndian.PutUint16(h[10:], checksum(0, h))
	return ethernet(srcMAC, dstMAC, 0x0800, append(h, body...))
}

// ip6 makes a frame and sets the checksum at body[sum:].
func ip6(srcMAC, dstMAC []byte, src, dst netip.Addr, proto byte, body []byte, sum int) []byte {
	pseudo := append(append([]byte{}, src.AsSlice()...), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(body)))
	pseudo = append(pseudo, 0, 0, 0, proto)
	binary.BigEndian.PutUint16(body[sum:], checksum(0, append(pseudo, body...)))
	h := []byte{0x60, 0, 0, 0, 0, 0, proto, 255}
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	return ethernet(srcMAC, dstMAC, 0x86dd, append(h, body...))
}

// checksum is the Internet checksum, RFC 1071.
func checksum(sum uint32, b []byte) uint16 { return ^partial(sum, b) }

func partial(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
