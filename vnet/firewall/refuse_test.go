package firewall

import (
	"bytes"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

// answer is the answer to a frame that must be refused, read by gopacket with its checksums verified.
func (w *wall) answer(frame []byte) gopacket.Packet {
	w.Helper()
	verdict, raw := w.FromGuest(frame, packet.Offload{}, w.buf[:])
	if verdict != Answer {
		w.Fatalf("verdict %d: %v", verdict, w.causes())
	}
	p := gopacket.NewPacket(raw, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		w.Fatal(e.Error())
	}
	for _, l := range p.Layers() {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				w.Fatal(err)
			}
		}
	}
	if err, bad := p.VerifyChecksums(); err != nil || len(bad) > 0 {
		w.Errorf("checksums: %v %v", err, bad)
	}
	ether := p.LinkLayer().(*layers.Ethernet)
	if !bytes.Equal(ether.DstMAC, frame[6:12]) || !bytes.Equal(ether.SrcMAC, frame[:6]) {
		w.Errorf("to %v from %v", ether.DstMAC, ether.SrcMAC)
	}
	return p
}

func TestARefusedTCPConnectionIsReset(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "default egress deny")
		reset := func(frame []byte) *layers.TCP {
			p := w.answer(frame)
			from, to := p.NetworkLayer().NetworkFlow().Endpoints()
			if !bytes.Equal(from.Raw(), peer.Addr.AsSlice()) || !bytes.Equal(to.Raw(), guest.Addr.AsSlice()) {
				t.Errorf("from %v to %v", from, to)
			}
			tcp := p.TransportLayer().(*layers.TCP)
			if tcp.SrcPort != 443 || tcp.DstPort != 40000 || !tcp.RST || tcp.SYN {
				t.Errorf("%+v", tcp)
			}
			return tcp
		}
		if r := reset(IP(t, guest, peer, TCP(40000, 443, "S"), Data("early"))); !r.ACK || r.Ack != 7006 || r.Seq != 0 {
			t.Errorf("to a SYN: %+v", r)
		}
		if r := reset(IP(t, guest, peer, TCP(40000, 443, "A"), Data("data"))); r.ACK || r.Seq != 9000 {
			t.Errorf("to an ACK: %+v", r)
		}
	})
}

func TestOtherRefusalsAreICMPErrors(t *testing.T) {
	families(t, func(t *testing.T, guest, peer Host) {
		w := newWall(t, "default egress deny")
		for _, frame := range [][]byte{
			IP(t, guest, peer, UDP(5, 6), gopacket.Payload(make([]byte, 1400))),
			IP(t, guest, peer, UDP(5, 6), Data("odd")), IP(t, guest, peer, Echo(guest, 3, false)...),
		} {
			p := w.answer(frame)
			raw := p.Data()
			var read packet.Packet
			if reason := packet.Parse(raw, &read); reason != packet.WellFormed {
				t.Fatal(reason)
			}
			q := read.ICMP.Quoted
			if q.From != guest.Addr || q.To != peer.Addr {
				t.Errorf("quotes %+v", q)
			}
			if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && l.TypeCode != layers.CreateICMPv4TypeCode(3, 13) {
				t.Errorf("%v", l.TypeCode)
			}
			if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && l.TypeCode != layers.CreateICMPv6TypeCode(1, 1) {
				t.Errorf("%v", l.TypeCode)
			}
		}
	})
}

func TestWhatIsNotAnswered(t *testing.T) {
	group := Host{MAC: packet.MAC{1, 0, 0x5e, 0, 0, 1}, Addr: Peer4.At("224.0.0.1").Addr}
	everybody := Host{MAC: packet.MAC{255, 255, 255, 255, 255, 255}, Addr: Peer4.At("10.9.0.255").Addr}
	for what, frame := range map[string][]byte{
		"a reset":        IP(t, Guest4, Peer4, TCP(1, 2, "R")),
		"a group":        IP(t, Guest4, group, UDP(1, 2)),
		"everybody":      IP(t, Guest4, everybody, UDP(1, 2)),
		"an ICMP error":  ICMPError(t, Guest4, Peer4, 3, 3, IP(t, Peer4, Guest4, UDP(1, 2))),
		"a later part":   Fragments(t, IP(t, Guest4, Peer4, UDP(1, 2), Data("0123456789abcdef")), 1, 16)[1],
		"a false source": IP(t, Guest4.At("10.9.0.3"), Peer4, TCP(1, 2, "S")),
	} {
		w := newWall(t, "default egress deny")
		w.want(w.out(frame), Drop, "%s", what)
	}
	w := newWall(t, "default ingress deny")
	w.want(w.in(IP(t, Peer4.At("0.0.0.0"), Guest4, UDP(1, 2))), Drop, "nobody")
	w.dropped("network", Refused)
}

func TestRefusalsAreLimited(t *testing.T) {
	w := newWall(t, "default egress deny")
	w.now = 400 * 24 * time.Hour // a pod may live long: no overflow
	syn := IP(t, Guest4, Peer4, TCP(1, 2, "S"))
	answers := func(n int) (answered int) {
		for range n {
			if w.out(syn) == Answer {
				answered++
			}
		}
		return answered
	}
	if n := answers(2 * refusalRate); n != refusalRate {
		t.Errorf("%d answers at once, want %d", n, refusalRate)
	}
	w.now += time.Second / 2
	if n := answers(refusalRate); n != refusalRate/2 {
		t.Errorf("%d answers after half a second, want %d", n, refusalRate/2)
	}
	if c := w.Stats().FromGuest; c.Dropped[Refused] != 3*refusalRate {
		t.Errorf("%d counted as refused", c.Dropped[Refused])
	}
}
