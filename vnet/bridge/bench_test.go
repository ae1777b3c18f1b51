package bridge

import (
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/firewall"
	. "krun.dev/krunpod/vnet/vnettest"
)

// ends are the two ends of a socket pair of a kind.
func ends(t testing.TB, kind int) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	netlab.Must(t, err)
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		conns[i], err = net.FileConn(f)
		netlab.Must(t, err)
		f.Close()
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// crossing sends a frame of a flow from a guest's stream to the network, and one back, with each call of its result.
func crossing(t testing.TB) (once func()) {
	t.Helper()
	wall, err := firewall.New(firewall.Config{MAC: Guest4.MAC, Addresses: []netip.Addr{Guest4.Addr}})
	netlab.Must(t, err)
	guest, ours := ends(t, unix.SOCK_STREAM)
	network, theirs := ends(t, unix.SOCK_SEQPACKET)
	b, err := New(Config{Guest: Stream("guest", ours), Network: Messages("network", theirs), Firewall: wall})
	netlab.Must(t, err)
	go b.Run(t.Context())
	out, in := framed(IP(t, Guest4, Peer4, UDP(1000, 2000), Data("out"))), IP(t, Peer4, Guest4, UDP(2000, 1000), Data("in"))
	buf := make([]byte, maxFrame)
	return func() {
		_, err := guest.Write(out)
		netlab.Must(t, err)
		_, err = network.Read(buf)
		netlab.Must(t, err)
		_, err = network.Write(in)
		netlab.Must(t, err)
		_, err = io.ReadFull(guest, buf[:lengthSize+len(in)])
		netlab.Must(t, err)
	}
}

func TestAFrameThatCrossesDoesNotAllocate(t *testing.T) {
	once := crossing(t)
	once()
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations for a frame out and one in", n)
	}
}

// Between interfaces all of the process is counted, kernel's namespaces and TCP's ends included: it is far less than one a frame.
func TestAFrameBetweenInterfacesDoesNotAllocate(t *testing.T) {
	l := newLab(t)
	b := l.join("allow egress tcp any 80")
	l.Listen(l.Node, netlab.At(netlab.Node4, 80), func(c net.Conn) { io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 10)) })
	c, err := l.Dial(l.Guest, "tcp", netlab.At(netlab.Node4, 80))
	netlab.Must(t, err)
	one := []byte{1}
	var before, after runtime.MemStats
	start := b.Stats().Firewall.FromGuest.Frames
	runtime.ReadMemStats(&before)
	for range 1000 {
		_, err = c.Write(one)
		netlab.Must(t, err)
		_, err = io.ReadFull(c, one)
		netlab.Must(t, err)
	}
	runtime.ReadMemStats(&after)
	frames, allocs := b.Stats().Firewall.FromGuest.Frames-start, after.Mallocs-before.Mallocs
	if frames < 1000 || allocs > frames/10 {
		t.Errorf("%d allocations for %d frames out, and as many in", allocs, frames)
	}
}

func BenchmarkFrames(b *testing.B) {
	once := crossing(b)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkThroughput sends by TCP from the guest to the node, and back: redirected in the kernel, and over the bridge.
func BenchmarkThroughput(b *testing.B) {
	for _, way := range []struct {
		name string
		join func(l *lab)
	}{
		{"redirect", func(l *lab) { l.Silence("eth0", "krun0"); l.Silence("krun0", "eth0") }},
		{"bridge", func(l *lab) { l.join("") }},
		{"bridge with policy", func(l *lab) { l.join("allow egress tcp any 80; deny ingress udp any") }},
	} {
		for _, dir := range []string{"out", "in"} {
			for _, addr := range []string{netlab.Node4, netlab.Node6} {
				family := map[string]string{netlab.Node4: "IPv4", netlab.Node6: "IPv6"}[addr]
				b.Run(way.name+"/"+dir+"/"+family, func(b *testing.B) {
					l := newLab(b)
					way.join(l)
					throughput(b, l, addr, dir == "out")
				})
			}
		}
	}
}

func throughput(b *testing.B, l *lab, addr string, out bool) {
	const chunk = 1 << 20
	data := make([]byte, chunk)
	l.Listen(l.Node, netlab.At(addr, 80), func(c net.Conn) {
		if out {
			io.Copy(io.Discard, c)
			return
		}
		for {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	})
	c, err := l.Dial(l.Guest, "tcp", netlab.At(addr, 80))
	netlab.Must(b, err)
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		if out {
			_, err = c.Write(data)
		} else {
			_, err = io.ReadFull(c, data)
		}
		netlab.Must(b, err)
	}
}

// BenchmarkRoundTrip asks and answers one byte.
func BenchmarkRoundTrip(b *testing.B) {
	for _, way := range []struct {
		name string
		join func(l *lab)
	}{
		{"redirect", func(l *lab) { l.Silence("eth0", "krun0"); l.Silence("krun0", "eth0") }},
		{"bridge", func(l *lab) { l.join("") }},
	} {
		b.Run(way.name, func(b *testing.B) {
			l := newLab(b)
			way.join(l)
			l.Listen(l.Node, netlab.At(netlab.Node4, 80), func(c net.Conn) { io.Copy(c, c) })
			c, err := l.Dial(l.Guest, "tcp", netlab.At(netlab.Node4, 80))
			netlab.Must(b, err)
			one := []byte{1}
			b.ReportAllocs()
			for b.Loop() {
				_, err = c.Write(one)
				netlab.Must(b, err)
				_, err = io.ReadFull(c, one)
				netlab.Must(b, err)
			}
		})
	}
}
