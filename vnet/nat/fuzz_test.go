package nat

import (
	"bytes"
	"testing"

	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/vnettest"
)

// FuzzFrame writes frames of any shape, as no firewall would let pass. What comes back is well-formed and for the guest, and what the
// stack keeps of them has a bound.
func FuzzFrame(f *testing.F) {
	c := gateway.Config{}
	self := vnettest.Host{MAC: gateway.GuestMAC, Addr: c.Guest().Addr()}
	router := vnettest.Host{MAC: gateway.MAC, Addr: c.Address().Addr()}
	away := vnettest.Host{MAC: gateway.MAC, Addr: vnettest.Peer4.Addr}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 60))
	f.Add(append(append(bytes.Clone(gateway.MAC[:]), gateway.GuestMAC[:]...), 8, 0, 0x45, 0, 0, 20))
	f.Add(append(append(bytes.Clone(gateway.MAC[:]), gateway.GuestMAC[:]...), 8, 6, 0, 1))
	for _, frame := range [][]byte{
		vnettest.ARP(f, self.MAC, packet.ARPRequest, self, router),
		vnettest.IP(f, self, router, vnettest.Echo(self, 1, false)...),
		vnettest.IP(f, self, away, vnettest.TCP(4000, 80, "S")),
		vnettest.IP(f, self, router, vnettest.TCP(4000, 80, "A"), vnettest.Data("x")),
		vnettest.IP(f, self, away, vnettest.UDP(4000, 80), vnettest.Data("x")),
		vnettest.IP(f, self, router, vnettest.UDP(68, 67), vnettest.Data("x")),
		vnettest.Fragments(f, vnettest.IP(f, self, away, vnettest.UDP(1, 2), vnettest.Data("0123456789abcdef")), 1, 16)[0],
	} {
		f.Add(frame)
	}
	g, err := Open(c, nil)
	must(f, err)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if n, err := g.Write(frame); n != len(frame) || err != nil {
			t.Fatal(n, err)
		}
		for out := g.link.Read(); out != nil; out = g.link.Read() {
			data := out.ToView().AsSlice()
			var p packet.Packet
			if reason := packet.Parse(data, &p); reason != packet.WellFormed {
				t.Errorf("the guest gets a %v: %x", reason, data)
			}
			if p.Source != gateway.MAC {
				t.Errorf("the guest gets a frame of %x", p.Source)
			}
			out.DecRef()
		}
		if n := len(g.stack.RegisteredEndpoints()) + len(g.stack.CleanupEndpoints()); n > maxConnections+maxSessions+10 {
			t.Errorf("%d endpoints", n)
		}
	})
}
