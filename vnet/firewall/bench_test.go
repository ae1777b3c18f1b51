package firewall

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	. "krun.dev/krunpod/vnet/vnettest"
)

func TestAFrameOfAConnectionDoesNotAllocate(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "allow egress any 443; deny ingress any")
		w.connect(guest, peer, 40000, 443)
		out, in := IP(t, guest, peer, TCP(40000, 443, "A"), Data("x")), IP(t, peer, guest, TCP(443, 40000, "A"), Data("x"))
		query, answer := IP(t, guest, peer, UDP(5, 443)), IP(t, peer, guest, UDP(443, 5))
		w.out(query)
		refused := IP(t, guest, peer, TCP(1, 2, "S"))
		if n := testing.AllocsPerRun(200, func() {
			w.out(out)
			w.in(in)
			w.out(query)
			w.in(answer)
			w.out(refused)
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func BenchmarkFirewall(b *testing.B) {
	many := "allow egress any 443;" + strings.Repeat("deny egress 198.51.100.0/24;", 254)
	w := newWall(b, many)
	w.connect(Guest4, Peer4, 40000, 443)
	w.connect(Guest6, Peer6, 40000, 443)
	frames := map[string][]byte{
		"established4": IP(b, Guest4, Peer4, TCP(40000, 443, "A"), Data("x")),
		"established6": IP(b, Guest6, Peer6, TCP(40000, 443, "A"), Data("x")),
		"spoofed":      IP(b, Guest4.At("10.9.0.9"), Peer4, TCP(40000, 443, "A"), Data("x")),
		"refused":      IP(b, Guest4, Peer4, TCP(40000, 80, "S")),
	}
	for _, name := range []string{"established4", "established6", "spoofed", "refused"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.out(frames[name])
			}
		})
	}
	b.Run("flood of connections", func(b *testing.B) {
		b.ReportAllocs()
		frame := IP(b, Guest4, Peer4, UDP(1, 443))
		n := 0
		for b.Loop() {
			n++
			frame[34], frame[35] = byte(n>>8), byte(n)|1
			w.out(frame)
		}
	})
}

// BenchmarkConnections has as many connections as a busy pod, each frame of another one.
func BenchmarkConnections(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWall(b, "")
			frames := make([][]byte, n)
			for i := range frames {
				peer := Peer4
				peer.Addr = netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
				w.connect(Guest4, peer, 40000, 443)
				frames[i] = IP(b, Guest4, peer, TCP(40000, 443, "A"))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w.out(frames[i])
				i = (i + 1) % n
			}
		})
	}
}
