package vnettest

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"krun.dev/krunpod/vnet/packet"
)

// Host is a station on the wire with one address.
type Host struct {
	MAC  packet.MAC
	Addr netip.Addr
}

// Hosts that tests speak of: a guest and a peer, in both families.
var (
	Guest4 = Host{packet.MAC{2, 0, 0, 0, 0, 0x10}, netip.MustParseAddr("10.9.0.2")}
	Guest6 = Host{Guest4.MAC, netip.MustParseAddr("fd00::2")}
	Peer4  = Host{packet.MAC{2, 0, 0, 0, 0, 0x20}, netip.MustParseAddr("192.0.2.7")}
	Peer6  = Host{Peer4.MAC, netip.MustParseAddr("2001:db8::7")}
)

// At is h with another address.
func (h Host) At(addr string) Host { return Host{h.MAC, netip.MustParseAddr(addr)} }

// Frame writes layers, of which the first is Ethernet, with lengths and checksums filled in and without padding.
func Frame(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range parts {
		switch l := l.(type) {
		case *layers.IPv4:
			network = l
		case *layers.IPv6:
			network = l
		case interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}:
			if network != nil {
				if err := l.SetNetworkLayerForChecksum(network); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, parts[1:]...); err != nil {
		t.Fatal(err)
	}
	const ethernet = 14 // bytes of its header; gopacket pads what follows to 46
	size := ethernet + len(buf.Bytes())
	if err := parts[0].SerializeTo(buf, opts); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()[:size]
}

// IP writes an IP packet of the family of from's address, with upper in it.
func IP(t testing.TB, from, to Host, upper ...gopacket.SerializableLayer) []byte {
	t.Helper()
	if from.Addr.Is4() {
		ip := IPv4(from, to)
		ip.Protocol = protocol(upper)
		return Frame(t, append([]gopacket.SerializableLayer{Ethernet(from, to, layers.EthernetTypeIPv4), ip}, upper...)...)
	}
	ip := IPv6(from, to)
	ip.NextHeader = protocol(upper)
	return Frame(t, append([]gopacket.SerializableLayer{Ethernet(from, to, layers.EthernetTypeIPv6), ip}, upper...)...)
}

func protocol(upper []gopacket.SerializableLayer) layers.IPProtocol {
	if len(upper) == 0 {
		return layers.IPProtocolNoNextHeader
	}
	switch upper[0].(type) {
	case *layers.TCP:
		return layers.IPProtocolTCP
	case *layers.UDP:
		return layers.IPProtocolUDP
	case *layers.ICMPv4:
		return layers.IPProtocolICMPv4
	case *layers.ICMPv6:
		return layers.IPProtocolICMPv6
	case *layers.IPv6Fragment:
		return layers.IPProtocolIPv6Fragment
	}
	return layers.IPProtocolNoNextHeader
}

// Ethernet is the header of a frame between two hosts.
func Ethernet(from, to Host, kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: hardware(from.MAC), DstMAC: hardware(to.MAC), EthernetType: kind}
}

func hardware(m packet.MAC) net.HardwareAddr { return m[:] }

// IPv4 is the header of a packet between two hosts.
func IPv4(from, to Host) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, SrcIP: from.Addr.AsSlice(), DstIP: to.Addr.AsSlice()}
}

// IPv6 is the header of a packet between two hosts.
func IPv6(from, to Host) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: from.Addr.AsSlice(), DstIP: to.Addr.AsSlice()}
}

// TCP is a header with flags of the letters S, A, F, R and P.
func TCP(from, to uint16, flags string) *layers.TCP {
	has := func(letter string) bool { return strings.Contains(flags, letter) }
	return &layers.TCP{
		SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(to), Window: 1000, Seq: 7000, Ack: 9000,
		SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"), PSH: has("P"),
	}
}

// UDP is a header between two ports.
func UDP(from, to uint16) *layers.UDP {
	return &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to)}
}

// Data is what a packet carries.
func Data(s string) gopacket.Payload { return gopacket.Payload(s) }

// Echo is an ICMP echo request or reply of the family of from, with its payload.
func Echo(from Host, id uint16, reply bool) []gopacket.SerializableLayer {
	if from.Addr.Is4() {
		kind := uint8(layers.ICMPv4TypeEchoRequest)
		if reply {
			kind = layers.ICMPv4TypeEchoReply
		}
		return []gopacket.SerializableLayer{
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: id, Seq: 1}, Data("ping"),
		}
	}
	kind := uint8(layers.ICMPv6TypeEchoRequest)
	if reply {
		kind = layers.ICMPv6TypeEchoReply
	}
	return []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)},
		&layers.ICMPv6Echo{Identifier: id, SeqNumber: 1}, Data("ping"),
	}
}

// ICMPError is an error of the family of from about the packet in frame, of which it quotes 64 bytes at most.
func ICMPError(t testing.TB, from, to Host, kind, code uint8, frame []byte) []byte {
	t.Helper()
	quoted := frame[14:]
	quoted = quoted[:min(len(quoted), 64)]
	if from.Addr.Is4() {
		return IP(t, from, to, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code)}, gopacket.Payload(quoted))
	}
	body := append(make([]byte, 4), quoted...)
	return IP(t, from, to, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}, gopacket.Payload(body))
}

// ARP is a message in which sender says that it has an address, to target.
func ARP(t testing.TB, frameFrom packet.MAC, op uint16, sender, target Host) []byte {
	t.Helper()
	return Frame(t, Ethernet(Host{MAC: frameFrom}, target, layers.EthernetTypeARP), &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: sender.MAC[:], SourceProtAddress: sender.Addr.AsSlice(),
		DstHwAddress: target.MAC[:], DstProtAddress: target.Addr.AsSlice(),
	})
}

// ND is a message of neighbour discovery about target, with a hardware address in an option unless it is zero.
func ND(t testing.TB, from, to Host, kind uint8, target netip.Addr, option packet.MAC) []byte {
	t.Helper()
	body := make([]byte, 4)
	fill := 16 // of a solicitation and an advertisement
	switch kind {
	case layers.ICMPv6TypeRouterSolicitation:
		fill = 0
	case layers.ICMPv6TypeRouterAdvertisement:
		fill = 8
	case layers.ICMPv6TypeRedirect:
		fill = 32
	}
	body = append(body, make([]byte, fill)...)
	if fill >= 16 {
		copy(body[4:], target.AsSlice())
	}
	if option != (packet.MAC{}) {
		gives := byte(1)
		if kind == layers.ICMPv6TypeNeighborAdvertisement || kind == layers.ICMPv6TypeRedirect {
			gives = 2
		}
		body = append(body, gives, 1)
		body = append(body, option[:]...)
	}
	ip := IPv6(from, to)
	ip.HopLimit, ip.NextHeader = 255, layers.IPProtocolICMPv6
	return Frame(t, Ethernet(from, to, layers.EthernetTypeIPv6), ip,
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, gopacket.Payload(body))
}

// Fragments cuts the payload of the IP packet in frame into parts of size bytes, a multiple of 8.
func Fragments(t testing.TB, frame []byte, id uint32, size int) [][]byte {
	t.Helper()
	if frame[12] == 0x08 {
		return fragments4(frame, uint16(id), size)
	}
	return fragments6(t, frame, id, size)
}

func fragments4(frame []byte, id uint16, size int) (list [][]byte) {
	payload := frame[34:]
	for start := 0; start < len(payload); start += size {
		end := min(start+size, len(payload))
		f := append(append([]byte(nil), frame[:34]...), payload[start:end]...)
		put(f[16:], uint16(20+end-start))
		put(f[18:], id)
		offset := uint16(start / 8)
		if end < len(payload) {
			offset |= 0x2000
		}
		put(f[20:], offset)
		FixIPv4(f)
		list = append(list, f)
	}
	return list
}

func fragments6(t testing.TB, frame []byte, id uint32, size int) (list [][]byte) {
	payload := frame[54:]
	for start := 0; start < len(payload); start += size {
		end := min(start+size, len(payload))
		f := append([]byte(nil), frame[:54]...)
		offset := uint16(start)
		if end < len(payload) {
			offset |= 1
		}
		f = append(f, frame[20], 0, byte(offset>>8), byte(offset), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
		f = append(f, payload[start:end]...)
		f[20] = 44
		put(f[18:], uint16(8+end-start))
		list = append(list, f)
	}
	if len(list) == 0 {
		t.Fatal("nothing to cut")
	}
	return list
}

// FixIPv4 writes the header checksum of the IPv4 packet in frame.
func FixIPv4(frame []byte) {
	h := frame[14:min(14+int(frame[14]&15)*4, len(frame))]
	put(h[10:], 0)
	var sum uint32
	for i := 0; i+1 < len(h); i += 2 {
		sum += uint32(h[i])<<8 | uint32(h[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	put(h[10:], ^uint16(sum))
}

func put(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }
