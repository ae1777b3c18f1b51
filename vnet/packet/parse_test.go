package packet_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	. "krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

func parse(t *testing.T, frame []byte) Packet {
	t.Helper()
	var p Packet
	if reason := Parse(frame, &p); reason != WellFormed {
		t.Fatalf("Parse: %v, in %x", reason, frame)
	}
	return p
}

func TestPortsAndAddressesOfBothFamilies(t *testing.T) {
	for _, hosts := range [][2]Host{{Guest4, Peer4}, {Guest6, Peer6}} {
		from, to := hosts[0], hosts[1]
		p := parse(t, IP(t, from, to, TCP(40000, 443, "SA"), Data("hello")))
		if p.From != from.Addr || p.To != to.Addr || p.Source != from.MAC || p.Destination != to.MAC {
			t.Errorf("from %v %v to %v %v", p.From, p.Source, p.To, p.Destination)
		}
		if p.Protocol != TCPProtocol || p.FromPort != 40000 || p.ToPort != 443 {
			t.Errorf("%d %d→%d", p.Protocol, p.FromPort, p.ToPort)
		}
		if p.TCP.Seq != 7000 || p.TCP.Ack != 9000 || p.TCP.Payload != 5 || !p.TCP.Has(SYN|ACK) {
			t.Errorf("TCP: %+v", p.TCP)
		}
		p = parse(t, IP(t, from, to, UDP(5000, 53), Data("?")))
		if p.Protocol != UDPProtocol || p.FromPort != 5000 || p.ToPort != 53 {
			t.Errorf("%d %d→%d", p.Protocol, p.FromPort, p.ToPort)
		}
		p = parse(t, IP(t, from, to, Echo(from, 77, false)...))
		if p.ICMP.ID != 77 {
			t.Errorf("ICMP: %+v", p.ICMP)
		}
	}
}

func TestAnErrorQuotesThePacketItIsAbout(t *testing.T) {
	for _, hosts := range [][2]Host{{Guest4, Peer4}, {Guest6, Peer6}} {
		guest, peer := hosts[0], hosts[1]
		kind := ICMPv4Unreachable
		if guest.Addr.Is6() {
			kind = ICMPv6Unreachable
		}
		sent := IP(t, guest, peer, UDP(5000, 99))
		p := parse(t, ICMPError(t, peer, guest, kind, 1, sent))
		want := Quoted{From: guest.Addr, To: peer.Addr, Protocol: UDPProtocol, FromPort: 5000, ToPort: 99}
		if p.ICMP.Quoted != want {
			t.Errorf("%+v", p.ICMP.Quoted)
		}
		p = parse(t, ICMPError(t, peer, guest, kind, 1, IP(t, guest, peer, Echo(guest, 9, false)...)))
		if p.ICMP.Quoted.ID != 9 {
			t.Errorf("%+v", p.ICMP.Quoted)
		}
		p = parse(t, ICMPError(t, peer, guest, kind, 1, sent[:30]))
		if p.ICMP.Quoted.From.IsValid() {
			t.Errorf("of half a header: %+v", p.ICMP.Quoted)
		}
	}
}

func TestNeighbours(t *testing.T) {
	p := parse(t, ARP(t, Guest4.MAC, ARPRequest, Guest4, Peer4))
	if p.Kind != KindARP || p.From != Guest4.Addr || p.To != Peer4.Addr || p.Neighbour.MAC != Guest4.MAC {
		t.Errorf("ARP: %+v", p)
	}
	p = parse(t, ND(t, Guest6, Peer6, ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC))
	if n := p.Neighbour; n.Target != Guest6.Addr || !n.HasMAC || n.MAC != Guest6.MAC {
		t.Errorf("advertisement: %+v", n)
	}
	p = parse(t, ND(t, Guest6, Peer6, ICMPv6RouterSolicit, netip.Addr{}, MAC{}))
	if n := p.Neighbour; n.HasMAC || n.Target.IsValid() {
		t.Errorf("router solicitation: %+v", n)
	}
}

func TestFragments(t *testing.T) {
	for _, hosts := range [][2]Host{{Guest4, Peer4}, {Guest6, Peer6}} {
		whole := IP(t, hosts[0], hosts[1], UDP(5000, 99), Data("0123456789abcdef0123456789abcdef"))
		parts := Fragments(t, whole, 12345, 16)
		for i, part := range parts {
			p := parse(t, part)
			f := p.Fragment
			if !f.Split() || f.ID != 12345 || f.Start != i*16 || f.More != (i < len(parts)-1) || p.Protocol != UDPProtocol {
				t.Errorf("part %d: %+v", i, p)
			}
			if (p.ToPort == 99) != (i == 0) {
				t.Errorf("part %d: port %d", i, p.ToPort)
			}
		}
	}
}

func TestExtensionsAreSkipped(t *testing.T) {
	udp := IP(t, Guest6, Peer6, UDP(5000, 99))
	for name, extensions := range map[string][]byte{
		"hop-by-hop":              {0, 0, 1, 4, 0, 0, 0, 0},
		"destination twice":       {60, 0, 1, 4, 0, 0, 0, 0, 60, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"routing, at its end":     {43, 0, 4, 0, 0, 0, 0, 0},
		"fragment, the whole one": {44, 0, 0, 0, 0, 0, 0, 9},
	} {
		p := parse(t, extend(udp, extensions))
		if p.Protocol != UDPProtocol || p.ToPort != 99 || p.Fragment.Split() {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// extend puts extension headers into an IPv6 frame. The first byte of each is its own type here.
func extend(frame, extensions []byte) []byte {
	out := bytes.Clone(frame[:54])
	next := frame[20]
	out[20] = extensions[0]
	rest := bytes.Clone(extensions)
	for at := 0; at < len(rest); {
		size := 8 + int(rest[at+1])*8
		if rest[at] == 44 {
			size = 8
		}
		if at+size >= len(rest) {
			rest[at] = next
			break
		}
		rest[at] = rest[at+size]
		at += size
	}
	out = append(append(out, rest...), frame[54:]...)
	length := len(out) - 54
	out[18], out[19] = byte(length>>8), byte(length)
	return out
}

func TestPaddingIsNotPayload(t *testing.T) {
	frame := append(IP(t, Guest4, Peer4, TCP(1, 2, "A")), make([]byte, 6)...)
	if p := parse(t, frame); p.End != len(frame)-6 || p.TCP.Payload != 0 {
		t.Errorf("end %d, payload %d", p.End, p.TCP.Payload)
	}
}

// malformed are frames that must be refused, by name and with the reason.
func malformed(t testing.TB) map[string]struct {
	frame []byte
	want  Reason
} {
	type bad = struct {
		frame []byte
		want  Reason
	}
	tcp4, tcp6 := IP(t, Guest4, Peer4, TCP(1, 2, "S")), IP(t, Guest6, Peer6, TCP(1, 2, "S"))
	udp4, udp6 := IP(t, Guest4, Peer4, UDP(1, 2), Data("xx")), IP(t, Guest6, Peer6, UDP(1, 2), Data("xx"))
	arp := ARP(t, Guest4.MAC, ARPRequest, Guest4, Peer4)
	advert := ND(t, Guest6, Peer6, ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC)
	big := IP(t, Guest4, Peer4, TCP(1, 2, "S"), Data("0123456789abcdef0123456789abcdef"))
	big6 := IP(t, Guest6, Peer6, TCP(1, 2, "S"), Data("0123456789abcdef0123456789abcdef"))
	with := func(frame []byte, at int, bytes ...byte) []byte {
		f := append([]byte(nil), frame...)
		copy(f[at:], bytes)
		if f[12] == 8 && f[13] == 0 && at != 24 && f[14]&15 >= 5 {
			FixIPv4(f)
		}
		return f
	}
	options := func(bytes ...byte) []byte {
		f := append(append([]byte(nil), tcp4[:34]...), bytes...)
		f = append(f, tcp4[34:]...)
		f[14] += byte(len(bytes) / 4)
		f[17] += byte(len(bytes))
		FixIPv4(f)
		return f
	}
	return map[string]bad{
		"nothing":                           {nil, ShortFrame},
		"half an Ethernet header":           {tcp4[:13], ShortFrame},
		"from a group of stations":          {with(tcp4, 6, 1), SourceMulticast},
		"VLAN":                              {with(tcp4, 12, 0x81, 0), OtherEtherType},
		"length instead of type":            {with(tcp4, 12, 0, 46), OtherEtherType},
		"ARP cut short":                     {arp[:41], BadARP},
		"ARP of another hardware":           {with(arp, 14, 0, 6), BadARP},
		"reverse ARP":                       {with(arp, 20, 0, 3), BadARP},
		"IPv4 of version 6":                 {with(tcp4, 14, 0x65), BadIPv4Header},
		"IPv4 header of 16 bytes":           {with(tcp4, 14, 0x44), BadIPv4Header},
		"IPv4 header longer than frame":     {with(tcp4[:36], 14, 0x4f), BadIPv4Header},
		"IPv4 longer than frame":            {tcp4[:len(tcp4)-1], BadIPv4Header},
		"IPv4 checksum":                     {with(tcp4, 24, 1, 2), BadIPv4Header},
		"IPv4 loose source route":           {options(131, 7, 4, 1, 2, 3, 4, 0), SourceRoute},
		"IPv4 strict source route":          {options(1, 137, 7, 4, 1, 2, 3, 4), SourceRoute},
		"IPv4 option of length 0":           {options(7, 0, 0, 0), BadIPv4Option},
		"IPv4 option too long":              {options(7, 9, 0, 0), BadIPv4Option},
		"IPv4 from multicast":               {with(tcp4, 26, 224), BadAddress},
		"IPv4 from everybody":               {with(tcp4, 26, 255, 255, 255, 255), BadAddress},
		"IPv4 from loopback":                {with(tcp4, 26, 127), BadAddress},
		"IPv4 to loopback":                  {with(tcp4, 30, 127), BadAddress},
		"IPv4 to nobody":                    {with(tcp4, 30, 0, 0, 0, 0), BadAddress},
		"fragment of 12 bytes":              {with(tcp4[:46], 16, 0, 32, 0, 0, 0x20, 0), BadFragment},
		"fragment beyond 64 KiB":            {with(tcp4, 20, 0x1f, 0xff), BadFragment},
		"empty fragment":                    {with(tcp4[:34], 16, 0, 20, 0, 0, 0x20, 0), BadFragment},
		"TCP header in two fragments":       {Fragments(t, big, 1, 16)[0], SplitHeader},
		"TCP options in two fragments":      {Fragments(t, with(big, 46, 0x80), 1, 24)[0], SplitHeader},
		"IPv6 of version 4":                 {with(tcp6, 14, 0x45), BadIPv6Header},
		"IPv6 longer than frame":            {tcp6[:len(tcp6)-1], BadIPv6Header},
		"IPv6 jumbogram":                    {with(tcp6, 18, 0, 0), BadIPv6Header},
		"IPv6 to a mapped IPv4 address":     {with(tcp6, 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff), BadAddress},
		"IPv6 routing, one segment left":    {extend(udp6, []byte{43, 0, 4, 1, 0, 0, 0, 0}), SourceRoute},
		"IPv6 routing of type 0":            {extend(udp6, []byte{43, 0, 0, 0, 0, 0, 0, 0}), SourceRoute},
		"IPv6 extension too long":           {extend(udp6, []byte{60, 9, 0, 0, 0, 0, 0, 0}), BadExtension},
		"IPv6 seven extensions":             {extend(udp6, bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 7)), BadExtension},
		"IPv6 hop-by-hop in second place":   {extend(udp6, []byte{60, 0, 1, 4, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0}), BadExtension},
		"IPv6 two fragment headers":         {extend(udp6, bytes.Repeat([]byte{44, 0, 0, 0, 0, 0, 0, 9}, 2)), BadExtension},
		"IPv6 TCP header in two fragments":  {Fragments(t, big6, 1, 16)[0], SplitHeader},
		"IPv6 extensions in two fragments":  {Fragments(t, extend(big6, []byte{60, 2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 1, 16)[0], SplitHeader},
		"TCP cut short":                     {with(tcp4[:53], 16, 0, 39), BadTCP},
		"TCP header of 16 bytes":            {with(tcp4, 46, 0x40), BadTCP},
		"TCP header longer than packet":     {with(tcp4, 46, 0x60), BadTCP},
		"TCP without flags":                 {with(tcp4, 47, 0), BadTCP},
		"TCP with SYN and FIN":              {with(tcp4, 47, 3), BadTCP},
		"TCP with SYN and RST":              {with(tcp4, 47, 6), BadTCP},
		"TCP with FIN alone":                {with(tcp4, 47, 1), BadTCP},
		"TCP to port 0":                     {with(tcp4, 36, 0, 0), BadTCP},
		"TCP from port 0":                   {with(tcp4, 34, 0, 0), BadTCP},
		"UDP cut short":                     {with(udp4[:41], 16, 0, 27), BadUDP},
		"UDP longer than packet":            {with(udp4, 38, 0, 11), BadUDP},
		"UDP of length 7":                   {with(udp4, 38, 0, 7), BadUDP},
		"UDP to port 0":                     {with(udp4, 36, 0, 0), BadUDP},
		"ICMP cut short":                    {with(udp4[:41], 16, 0, 27, 0, 0, 0, 0, 64, 1), BadICMP},
		"ICMPv6 in IPv4":                    {with(udp4, 23, 58), BadICMP},
		"ICMP in IPv6":                      {with(udp6, 20, 1), BadICMP},
		"neighbour from beyond the link":    {with(advert, 21, 254), BadNeighbour},
		"neighbour with a code":             {with(advert, 55, 1), BadNeighbour},
		"neighbour with an empty option":    {with(advert, 79, 0), BadNeighbour},
		"neighbour with too long an option": {with(advert, 79, 2), BadNeighbour},
		"neighbour about a group":           {with(advert, 62, 0xff), BadNeighbour},
		"neighbour in a fragment":           {extend(advert, []byte{44, 0, 0, 0, 0, 0, 0, 9}), BadNeighbour},
	}
}

func TestMalformedFramesAreRefusedWithTheirReason(t *testing.T) {
	for name, m := range malformed(t) {
		var p Packet
		if got := Parse(m.frame, &p); got != m.want {
			t.Errorf("%s: %v, want %v", name, got, m.want)
		}
	}
}

func TestNeighbourWithTwoDifferentAddressesIsMalformed(t *testing.T) {
	f := ND(t, Guest6, Peer6, ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC)
	f = append(f, 2, 1, 2, 0, 0, 0, 0, 0x99)
	f[19] += 8
	var p Packet
	if got := Parse(f, &p); got != BadNeighbour {
		t.Error(got)
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	frames := [][]byte{
		IP(t, Guest4, Peer4, TCP(1, 2, "A"), Data("x")), IP(t, Guest6, Peer6, UDP(1, 2), Data("x")),
		ARP(t, Guest4.MAC, ARPRequest, Guest4, Peer4),
		ND(t, Guest6, Peer6, ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC),
	}
	var p Packet
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range frames {
			Parse(f, &p)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, frame := range map[string][]byte{
		"tcp4": IP(b, Guest4, Peer4, TCP(1, 2, "A"), Data("x")), "tcp6": IP(b, Guest6, Peer6, TCP(1, 2, "A"), Data("x")),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var p Packet
			for b.Loop() {
				Parse(frame, &p)
			}
		})
	}
}

// FuzzParse holds Parse against gopacket: what Parse calls well-formed, gopacket must read in the same way.
func FuzzParse(f *testing.F) {
	for _, hosts := range [][2]Host{{Guest4, Peer4}, {Guest6, Peer6}} {
		f.Add(IP(f, hosts[0], hosts[1], TCP(1, 2, "SA"), Data("x")))
		f.Add(IP(f, hosts[0], hosts[1], UDP(1, 2), Data("x")))
		f.Add(IP(f, hosts[0], hosts[1], Echo(hosts[0], 1, false)...))
		f.Add(Fragments(f, IP(f, hosts[0], hosts[1], UDP(1, 2), Data("0123456789abcdef")), 3, 16)[1])
		f.Add(ICMPError(f, hosts[0], hosts[1], 3, 1, IP(f, hosts[1], hosts[0], UDP(1, 2))))
	}
	f.Add(extend(IP(f, Guest6, Peer6, UDP(1, 2)), []byte{0, 0, 1, 4, 0, 0, 0, 0, 60, 0, 1, 4, 0, 0, 0, 0}))
	f.Add(ND(f, Guest6, Peer6, ICMPv6NeighborAdv, Guest6.Addr, Guest6.MAC))
	f.Add(ARP(f, Guest4.MAC, ARPReply, Guest4, Peer4))
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		var p Packet
		reason := Parse(frame, &p)
		if !bytes.Equal(before, frame) {
			t.Fatal("Parse changed the frame")
		}
		if reason >= Reason(Reasons) {
			t.Fatalf("reason %d", reason)
		}
		if reason != WellFormed {
			return
		}
		if p.Network > p.End || p.End > len(frame) || (p.Kind != KindARP && (p.Transport < p.Network || p.Transport > p.End)) {
			t.Fatalf("places %d, %d, %d of %d", p.Network, p.Transport, p.End, len(frame))
		}
		compare(t, frame, p)
	})
}

func compare(t *testing.T, frame []byte, p Packet) {
	other := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	if n := other.NetworkLayer(); n != nil {
		from, to := n.NetworkFlow().Endpoints()
		if !bytes.Equal(from.Raw(), p.From.AsSlice()) || !bytes.Equal(to.Raw(), p.To.AsSlice()) {
			t.Fatalf("from %v to %v, gopacket %v %v", p.From, p.To, from, to)
		}
	}
	if p.Fragment.Start != 0 {
		return
	}
	if tcp, ok := other.Layer(layers.LayerTypeTCP).(*layers.TCP); ok {
		if p.Protocol != TCPProtocol || p.FromPort != uint16(tcp.SrcPort) || p.ToPort != uint16(tcp.DstPort) ||
			p.TCP.Seq != tcp.Seq || p.TCP.Has(SYN) != tcp.SYN {
			t.Fatalf("%+v, gopacket %+v", p, tcp)
		}
	}
	if udp, ok := other.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		if p.Protocol != UDPProtocol || p.FromPort != uint16(udp.SrcPort) || p.ToPort != uint16(udp.DstPort) {
			t.Fatalf("%+v, gopacket %+v", p, udp)
		}
	}
}
