package firewall

import (
	"encoding/binary"
	"testing"
	"time"

	"krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

// FuzzFirewall sends frames from both sides through one firewall and checks what must hold whatever they are. The input
// is a row of frames, each after its length and a byte that says from which side and when it comes.
func FuzzFirewall(f *testing.F) {
	row := func(frames ...[]byte) (data []byte) {
		for i, frame := range frames {
			data = append(binary.BigEndian.AppendUint16(data, uint16(len(frame))), byte(i&1))
			data = append(data, frame...)
		}
		return data
	}
	for _, h := range [][2]Host{{Guest4, Peer4}, {Guest6, Peer6}} {
		guest, peer := h[0], h[1]
		f.Add(row(IP(f, guest, peer, TCP(1, 443, "S")), IP(f, peer, guest, TCP(443, 1, "SA")),
			IP(f, guest, peer, TCP(1, 443, "A")), IP(f, peer, guest, TCP(443, 1, "FA")), IP(f, guest, peer, TCP(1, 443, "FA"))))
		f.Add(row(IP(f, guest, peer, TCP(1, 80, "S"))))
		f.Add(row(IP(f, guest, peer, UDP(1, 443)), ICMPError(f, peer, guest, 3, 1, IP(f, guest, peer, UDP(1, 443)))))
		f.Add(row(IP(f, guest, peer, Echo(guest, 1, false)...), IP(f, peer, guest, Echo(peer, 1, true)...)))
		parts := Fragments(f, IP(f, guest, peer, UDP(1, 443), Data("0123456789abcdef")), 3, 16)
		f.Add(row(parts[0], parts[1], parts[1]))
	}
	f.Add(row(ARP(f, Guest4.MAC, packet.ARPReply, Guest4, Peer4),
		ND(f, Peer6, Guest6, packet.ICMPv6NeighborAdv, Peer6.Addr, Peer6.MAC)))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWall(t, "allow egress any 443; allow egress api.example.org; deny ingress tcp any 22",
			func(c *Config) { c.MaxConnections = 8 })
		for len(data) >= 3 {
			size, how := int(binary.BigEndian.Uint16(data)), data[2]
			frame := data[3:]
			frame = frame[:min(size, len(frame))]
			data = data[3+len(frame):]
			w.now += time.Duration(how>>1) * time.Second
			if how&1 == 0 {
				w.checkGuest(frame)
			} else {
				w.checkNetwork(frame)
			}
		}
		if n := w.Stats().Connections; n > 8 || len(w.connections.slots) > 8 {
			t.Fatalf("%d connections", n)
		}
	})
}

func (w *wall) checkGuest(frame []byte) {
	verdict, answer := w.FromGuest(frame, packet.Offload{}, w.buf[:])
	var p packet.Packet
	reason := packet.Parse(frame, &p)
	if verdict != Drop && (reason != packet.WellFormed || p.Source != Guest4.MAC) {
		w.Fatalf("verdict %d on a frame of %v: %v", verdict, p.Source, reason)
	}
	if (verdict == Pass || verdict == Resolve) && !w.owns(p.From) && !p.From.IsUnspecified() {
		w.Fatalf("passed from %v", p.From)
	}
	if verdict == Pass && p.Protocol == packet.TCPProtocol && p.TCP.Has(packet.SYN) && !p.TCP.Has(packet.ACK) &&
		p.Fragment.Start == 0 && p.ToPort != 443 {
		w.Fatalf("a SYN to port %d passed", p.ToPort)
	}
	w.checkAnswer(verdict, answer, &p)
}

func (w *wall) checkNetwork(frame []byte) {
	verdict, answer := w.FromNetwork(frame, packet.Offload{}, w.buf[:])
	var p packet.Packet
	reason := packet.Parse(frame, &p)
	if verdict == Resolve || (verdict != Drop && (reason != packet.WellFormed || p.Source == Guest4.MAC || w.owns(p.From))) {
		w.Fatalf("verdict %d on a frame of %v, %v: %v", verdict, p.Source, p.From, reason)
	}
	if verdict == Pass && p.Protocol == packet.TCPProtocol && p.ToPort == 22 && p.TCP.Has(packet.SYN) && !p.TCP.Has(packet.ACK) {
		w.Fatal("a SYN to a denied port passed")
	}
	w.checkAnswer(verdict, answer, &p)
}

// checkAnswer wants an answer to be a frame that is well-formed and goes back to where p came from.
func (w *wall) checkAnswer(verdict Verdict, answer []byte, p *packet.Packet) {
	if (verdict == Answer) != (answer != nil) {
		w.Fatalf("verdict %d with an answer of %d bytes", verdict, len(answer))
	}
	if answer == nil {
		return
	}
	var a packet.Packet
	if reason := packet.Parse(answer, &a); reason != packet.WellFormed {
		w.Fatalf("the answer has a %v: %x", reason, answer)
	}
	if a.To != p.From || a.From != p.To || a.Destination != p.Source {
		w.Fatalf("the answer goes from %v to %v, %v", a.From, a.To, a.Destination)
	}
}
