package firewall

import (
	"encoding/binary"
	"net/netip"
	"slices"
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
	for _, kind := range []uint8{packet.ICMPv6NeighborSol, packet.ICMPv6NeighborAdv, packet.ICMPv6RouterSolicit} {
		f.Add(row(ND(f, Guest6, Peer6, kind, Guest6.Addr, Guest6.MAC), ND(f, Peer6, Guest6, packet.ICMPv6NeighborSol, Guest6.Addr, Peer6.MAC),
			ND(f, Guest6, Peer6, kind, Peer6.Addr, Guest6.MAC)))
	}
	f.Add(row(ND(f, Guest6.At("::"), groupOf(packet.SolicitedNode(Guest6.Addr)), packet.ICMPv6NeighborSol, Guest6.Addr, packet.MAC{})))
	f.Add(row(IP(f, Guest4, Peer4, UDP(68, 67)), IP(f, Peer4, Guest4, UDP(53, 9)), IP(f, Guest4, Peer4, UDP(9, 53))))
	f.Fuzz(func(t *testing.T, data []byte) {
		// Peer4 is a nameserver and, for a part of the inputs, the guest's gateway.
		w := newWall(t, "allow egress any 443; allow egress api.example.org; deny ingress tcp any 22", func(c *Config) {
			c.MaxConnections, c.Nameservers = 8, []netip.AddrPort{netip.AddrPortFrom(Peer4.Addr, 53), netip.AddrPortFrom(Peer6.Addr, 53)}
			if len(data)%2 == 1 {
				c.Gateway = Peer4.Addr
			}
		})
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
	if verdict == Pass {
		w.checkStays(&p)
	}
	w.checkAnswer(verdict, answer, &p)
}

// checkStays wants a message of the link that passed to be about the guest, or to stay on the link.
func (w *wall) checkStays(p *packet.Packet) {
	onLink := p.To.IsMulticast() || p.To.IsLinkLocalUnicast() || w.near(p.To, w.now)
	switch {
	case p.Kind == packet.KindARP:
		if p.From.IsUnspecified() && !w.owns(p.To) {
			w.Fatalf("the guest probes %v", p.To)
		}
	case linkMessage(p):
		if !onLink || !p.Neighbour.Plain {
			w.Fatalf("a message of the link to %v passed: %+v", p.To, p.Neighbour)
		}
		if (p.ICMP.Type == packet.ICMPv6NeighborAdv || p.From.IsUnspecified() && p.ICMP.Type == packet.ICMPv6NeighborSol) && !w.owns(p.Neighbour.Target) {
			w.Fatalf("the guest says something of %v", p.Neighbour.Target)
		}
	case p.Fragment.Start == 0 && (p.ToPort == portDNS || p.ToPort == portDNSOverTLS):
		w.Fatalf("a packet to port %d passed", p.ToPort)
	}
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
	if verdict == Pass && p.Fragment.Start == 0 && slices.Contains(w.nameservers, netip.AddrPortFrom(p.From, p.FromPort)) {
		w.Fatalf("what a nameserver sent passed")
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
