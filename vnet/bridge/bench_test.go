package bridge

import (
	"io"
	"net"
	"testing"

	"krun.dev/krunpod/test/netlab"
)

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
			for b.Loop() {
				_, err = c.Write(one)
				netlab.Must(b, err)
				_, err = io.ReadFull(c, one)
				netlab.Must(b, err)
			}
		})
	}
}
