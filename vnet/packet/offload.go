package packet

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Offload is what the sender of a frame leaves to whoever puts it on a wire: struct virtio_net_hdr (linux/virtio_net.h), which comes
// from the guest as it is. It is done after the frame was judged. The zero value is nothing.
type Offload struct {
	flags, kind               uint8
	headerLength, segmentSize uint16
	start, offset             uint16
}

// OffloadSize is how many bytes ReadOffload reads.
const OffloadSize = 10

// The flags and kinds that are handed over in the kernel (virtio_net_hdr_from_skb, linux/virtio_net.h).
const (
	needsChecksum = 1
	dataValid     = 2

	segmentsTCP4 = 1
	segmentsTCP6 = 4
	segmentsUDP  = 5
	withECN      = 0x80
)

// Bounds on the segments of a frame: each costs the node a packet. Smaller ones of TCP than Linux makes by default
// (net.ipv4.tcp_min_snd_mss) and more datagrams than it takes of a program (UDP_MAX_SEGMENTS, linux/udp.h) are nobody's.
const (
	minSegment   = 48 // bytes
	maxDatagrams = 128
)

// ReadOffload reads what stands before a frame of a packet socket.
func ReadOffload(b []byte) Offload {
	return Offload{
		flags: b[0], kind: b[1],
		headerLength: binary.NativeEndian.Uint16(b[2:]), segmentSize: binary.NativeEndian.Uint16(b[4:]),
		start: binary.NativeEndian.Uint16(b[6:]), offset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// write writes o as ReadOffload reads it.
func (o Offload) write(b []byte) {
	b[0], b[1] = o.flags, o.kind
	for i, v := range []uint16{o.headerLength, o.segmentSize, o.start, o.offset} {
		binary.NativeEndian.PutUint16(b[2+2*i:], v)
	}
}

// CheckOffload returns WellFormed or BadOffload for what is left to do with the well-formed p, a frame of size bytes: it must leave
// the packet as Parse has read it.
func (p *Packet) CheckOffload(o Offload, size int) Reason {
	if o.flags == 0 && o.kind == 0 {
		return WellFormed
	}
	if o.flags&^(needsChecksum|dataValid) != 0 || int(o.headerLength) > size || !p.checksumFits(o) || !p.segmentsFit(o) {
		return BadOffload
	}
	return WellFormed
}

// checksumFits reports whether the checksum that is to be computed from a place on is written to the field for it or, as in a tunnel,
// to what the packet carries and nobody judges.
func (p *Packet) checksumFits(o Offload) bool {
	if o.flags&needsChecksum == 0 {
		return true
	}
	if p.Kind == KindARP || p.Fragment.Split() {
		return false
	}
	start, field := int(o.start), -1
	carried := p.Transport
	switch p.Protocol {
	case TCPProtocol:
		field, carried = header.TCPChecksumOffset, p.End-p.TCP.Payload
	case UDPProtocol:
		field, carried = udpChecksumOffset, p.Transport+header.UDPMinimumSize
	case ICMPv4Protocol, ICMPv6Protocol:
		return false // errors carry what is judged
	}
	if start == p.Transport && int(o.offset) == field {
		return true
	}
	return start >= carried && start+int(o.offset)+checksumSize <= p.End
}

const (
	udpChecksumOffset = 6 // RFC 768
	checksumSize      = 2
)

// segmentsFit reports whether the packet can be cut into segments of its protocol, and not too many.
func (p *Packet) segmentsFit(o Offload) bool {
	if o.kind == 0 {
		return true
	}
	if o.flags == 0 || p.Fragment.Split() {
		return false // without a checksum that is done or to do there are no segments: virtio 1.2, 5.1.6.2
	}
	switch {
	case o.kind&^withECN == segmentsTCP4:
		return p.Kind == KindIPv4 && p.Protocol == TCPProtocol && o.segmentSize >= minSegment
	case o.kind&^withECN == segmentsTCP6:
		return p.Kind == KindIPv6 && p.Protocol == TCPProtocol && o.segmentSize >= minSegment
	case o.kind == segmentsUDP:
		payload := p.End - p.Transport - header.UDPMinimumSize
		return p.Protocol == UDPProtocol && payload <= int(o.segmentSize)*maxDatagrams
	}
	return false
}
