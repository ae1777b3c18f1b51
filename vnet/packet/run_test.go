package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	. "krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

// hosts are those of a family, of which the peer sends to the guest.
type hosts struct{ peer, guest Host }

var bothFamilies = map[string]hosts{"IPv4": {Peer4, Guest4}, "IPv6": {Peer6, Guest6}}

// segment is a frame to the guest with bytes of a stream from a place on, which begins at 0.
func (h hosts) segment(t testing.TB, stream []byte, from, to int, change ...func(*layers.TCP, *layers.IPv4, *layers.IPv6)) []byte {
	t.Helper()
	tcp := TCP(80, 1000, "A")
	tcp.Seq += uint32(from)
	// Two bytes of padding, and timestamps of which the first is that of the frame.
	tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
		{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{0, 0, byte(from >> 8), byte(from), 0, 0, 0, 9}}}
	v4, v6 := IPv4(h.peer, h.guest), IPv6(h.peer, h.guest)
	v4.Protocol, v6.NextHeader = layers.IPProtocolTCP, layers.IPProtocolTCP
	v4.Flags, v4.Id = layers.IPv4DontFragment, uint16(from)
	for _, fn := range change {
		fn(tcp, v4, v6)
	}
	data := gopacket.Payload(stream[from:to])
	if h.peer.Addr.Is4() {
		return Frame(t, Ethernet(h.peer, h.guest, layers.EthernetTypeIPv4), v4, tcp, data)
	}
	return Frame(t, Ethernet(h.peer, h.guest, layers.EthernetTypeIPv6), v6, tcp, data)
}

// verified is the offload of a frame whose checksum is right.
var verified = ReadOffload(offload(2, 0, 0, 0, 0, 0))

func parsed(t testing.TB, frame []byte, left Offload) *Packet {
	t.Helper()
	p := new(Packet)
	if reason := Parse(frame, p); reason != WellFormed {
		t.Fatal(reason)
	}
	if reason := p.CheckOffload(left, len(frame)); reason != WellFormed {
		t.Fatal(reason)
	}
	return p
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestSegmentsThatFollowEachOtherAreJoined(t *testing.T) {
	for name, h := range bothFamilies {
		t.Run(name, func(t *testing.T) {
			stream := randomBytes(5000)
			var r Run
			for i, cut := range [][2]int{{0, 1000}, {1000, 2000}, {2000, 3000}, {3000, 4000}, {4000, 4321}} {
				frame := h.segment(t, stream, cut[0], cut[1], func(tcp *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { tcp.PSH = cut[0] == 3000 })
				p := parsed(t, frame, verified)
				if i == 0 && !r.Start(p, frame, verified) || i > 0 && !r.Add(p, frame, verified) {
					t.Fatalf("bytes %v do not join", cut)
				}
			}
			last := h.segment(t, stream, 4321, 5000)
			if r.Add(parsed(t, last, verified), last, verified) {
				t.Error("there is a frame after one that was short")
			}
			whole := r.Finish()
			left := ReadOffload(whole)
			frame := whole[OffloadSize:]
			p := parsed(t, frame, left)
			if got := frame[p.End-p.TCP.Payload:]; !bytes.Equal(got, stream[:4321]) || p.TCP.Seq != 7000 {
				t.Errorf("it holds %d bytes from %d on, or others", len(got), p.TCP.Seq)
			}
			if want := offload(1, map[string]uint8{"IPv4": 1, "IPv6": 4}[name], uint16(p.End-4321), 1000, uint16(p.Transport), 16); !bytes.Equal(whole[:OffloadSize], want) {
				t.Errorf("left to do is % x, not % x", whole[:OffloadSize], want)
			}
			checkJoined(t, frame, p)
		})
	}
}

// checkJoined finishes the checksum as a NIC does, and has another parser look at the frame.
func checkJoined(t *testing.T, frame []byte, p *Packet) {
	t.Helper()
	var sum uint32
	for i, b := range frame[p.Transport:p.End] {
		sum += uint32(b) << (8 * uint(1-i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	done := bytes.Clone(frame)
	binary.BigEndian.PutUint16(done[p.Transport+16:], ^uint16(sum))
	packet := gopacket.NewPacket(done, layers.LayerTypeEthernet, gopacket.Default)
	tcp, _ := packet.TransportLayer().(*layers.TCP)
	if tcp == nil || tcp.SetNetworkLayerForChecksum(packet.NetworkLayer()) != nil {
		t.Fatal(packet)
	}
	if err, mismatches := packet.VerifyChecksums(); err != nil || len(mismatches) != 0 {
		t.Errorf("checksums: %v %v", err, mismatches)
	}
	if !tcp.PSH || !tcp.ACK || tcp.SYN || tcp.Ack != 9000 {
		t.Fatalf("%+v", tcp)
	}
	if ts := tcp.Options[2].OptionData; !bytes.Equal(ts, []byte{0, 0, 0, 0, 0, 0, 0, 9}) {
		t.Errorf("timestamps % x are not those of the first", ts)
	}
}

// What the node's TCP sends has segments already.
func TestFramesOfSeveralSegmentsAreJoined(t *testing.T) {
	h := bothFamilies["IPv4"]
	stream := randomBytes(1 << 17)
	left := ReadOffload(offload(1, 1, 66, 1000, 34, 16))
	var r Run
	first := h.segment(t, stream, 0, 2000)
	if !r.Start(parsed(t, first, left), first, left) {
		t.Fatal("the first does not begin one")
	}
	from := 2000
	for ; from < 1<<16; from += 2000 {
		frame := h.segment(t, stream, from, from+2000)
		if !r.Add(parsed(t, frame, left), frame, left) {
			break
		}
	}
	if from != 64000 {
		t.Errorf("it ends at %d, and not below the 64 KiB that an interface takes whole", from)
	}
	whole := r.Finish()
	if p := parsed(t, whole[OffloadSize:], ReadOffload(whole)); p.TCP.Payload != from {
		t.Errorf("it has %d bytes", p.TCP.Payload)
	}
}

func TestFramesThatBelongToThemselvesAreNotJoined(t *testing.T) {
	type change = func(*layers.TCP, *layers.IPv4, *layers.IPv6)
	stream := randomBytes(4000)
	unknown := ReadOffload(offload(0, 0, 0, 0, 0, 0))
	other := ReadOffload(offload(1, 1, 66, 700, 34, 16))
	for what, c := range map[string]struct {
		family   string
		from, to int
		change   change
		left     Offload
	}{
		"a gap":                      {"IPv4", 1001, 2000, nil, verified},
		"the same again":             {"IPv4", 0, 1000, nil, verified},
		"a longer one":               {"IPv4", 1000, 2001, nil, verified},
		"other segments":             {"IPv4", 1000, 2400, nil, other},
		"no data":                    {"IPv4", 1000, 1000, nil, verified},
		"a checksum that may be bad": {"IPv4", 1000, 2000, nil, unknown},
		"an end":                     {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.FIN = true }, verified},
		"urgent data":                {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.URG = true }, verified},
		"congestion":                 {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.ECE = true }, verified},
		"a reduced window":           {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.CWR = true }, verified},
		"another acknowledgement":    {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.Ack++ }, verified},
		"another window":             {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.Window++ }, verified},
		"other options": {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) {
			t.Options[2] = layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: make([]byte, 8)}
		}, verified},
		"no options":          {"IPv6", 1000, 2000, func(t *layers.TCP, _ *layers.IPv4, _ *layers.IPv6) { t.Options = nil }, verified},
		"another lifetime":    {"IPv4", 1000, 2000, func(_ *layers.TCP, ip *layers.IPv4, _ *layers.IPv6) { ip.TTL-- }, verified},
		"another hop limit":   {"IPv6", 1000, 2000, func(_ *layers.TCP, _ *layers.IPv4, ip *layers.IPv6) { ip.HopLimit-- }, verified},
		"a mark":              {"IPv4", 1000, 2000, func(_ *layers.TCP, ip *layers.IPv4, _ *layers.IPv6) { ip.TOS = 3 }, verified},
		"a mark, over IPv6":   {"IPv6", 1000, 2000, func(_ *layers.TCP, _ *layers.IPv4, ip *layers.IPv6) { ip.TrafficClass = 3 }, verified},
		"may be in fragments": {"IPv4", 1000, 2000, func(_ *layers.TCP, ip *layers.IPv4, _ *layers.IPv6) { ip.Flags = 0 }, verified},
	} {
		t.Run(what, func(t *testing.T) {
			h := bothFamilies[c.family]
			first := h.segment(t, stream, 0, 1000)
			var r Run
			before := parsed(t, first, verified)
			if !r.Start(before, first, verified) {
				t.Fatal("the first does not begin one")
			}
			var changes []change
			if c.change != nil {
				changes = append(changes, c.change)
			}
			next := h.segment(t, stream, c.from, c.to, changes...)
			p := parsed(t, next, c.left)
			if p.From != before.From || p.To != before.To || p.FromPort != before.FromPort || p.ToPort != before.ToPort {
				t.Error("it is of another connection")
			}
			if r.Add(p, next, c.left) {
				t.Error("it was joined")
			}
			// The first goes on as it came.
			if whole := r.Finish(); !bytes.Equal(whole[:OffloadSize], offload(2, 0, 0, 0, 0, 0)) || !bytes.Equal(whole[OffloadSize:], first) {
				t.Errorf("the first is not what it was")
			}
		})
	}
}

// FuzzRun takes two frames, each with what is left to do before it and the second from a place on, and joins them if it can: then the
// result is one frame as the firewall would let it pass, with the bytes of both.
func FuzzRun(f *testing.F) {
	stream := randomBytes(120)
	for _, h := range bothFamilies {
		// Short ones: what is new is made smaller first, a byte at a time.
		a, b := h.segment(f, stream, 0, 60), h.segment(f, stream, 60, 120)
		head := offload(2, 0, 0, 0, 0, 0)
		f.Add(append(bytes.Clone(head), a...), append(bytes.Clone(head), b...))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		read := func(data []byte) (frame []byte, p *Packet, left Offload, ok bool) {
			if len(data) < OffloadSize {
				return
			}
			p, left, frame = new(Packet), ReadOffload(data), data[OffloadSize:]
			ok = Parse(frame, p) == WellFormed && p.CheckOffload(left, len(frame)) == WellFormed
			return
		}
		frame1, p1, left1, ok1 := read(a)
		frame2, p2, left2, ok2 := read(b)
		var r Run
		if !ok1 || !ok2 || !r.Start(p1, frame1, left1) || !r.Add(p2, frame2, left2) {
			return
		}
		whole := r.Finish()
		frame, p, left, ok := read(whole)
		if !ok {
			t.Fatalf("% x is not well-formed", whole)
		}
		payload := func(frame []byte, p *Packet) []byte { return frame[p.End-p.TCP.Payload : p.End] }
		if want := append(bytes.Clone(payload(frame1, p1)), payload(frame2, p2)...); !bytes.Equal(payload(frame, p), want) {
			t.Errorf("%v: the bytes are not those of both", left)
		}
		if p.From != p2.From || p.To != p2.To || p.FromPort != p2.FromPort || p.ToPort != p2.ToPort || p.Destination != p2.Destination || p.TCP.Seq != p1.TCP.Seq {
			t.Errorf("it goes elsewhere")
		}
	})
}
