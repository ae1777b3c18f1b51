package packet

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// maxRun is the largest frame that frames are joined to: one of more would be cut again on its way out (gso_features_check,
// net/core/dev.c).
const maxRun = 1<<16 - 1

// Run is frames of a TCP connection that follow each other and become one, whose segments are theirs: what a kernel does as it
// receives (GRO, net/ipv4/tcp_offload.c). The zero value is none.
type Run struct {
	data  []byte // room for what ReadOffload reads, and the frame after it
	size  int    // of the frame
	first Packet
	left  Offload
	// segment is the payload of every one of them but the last, which may have less; joined says that there are several frames.
	segment int
	joined  bool
}

// Start makes r a run of one frame, of which it takes a copy, and reports whether others may follow: only then r has it. The frame
// is well-formed, and so is what is left to do with it.
func (r *Run) Start(p *Packet, frame []byte, left Offload) bool {
	if !p.opensRun(frame, left) {
		return false
	}
	if r.data == nil {
		r.data = make([]byte, OffloadSize+maxRun)
	}
	if p.End > maxRun {
		return false
	}
	r.size = copy(r.frame(), frame[:p.End])
	r.first, r.left, r.segment, r.joined = *p, left, p.TCP.Payload, false
	if left.kind != 0 {
		r.segment = int(left.segmentSize)
	}
	return r.segment >= minSegment
}

// opensRun reports whether p carries data of a connection and nothing that belongs to this frame alone. Its checksum must be left to do
// or known to be right, since that of the whole is computed anew.
func (p *Packet) opensRun(frame []byte, left Offload) bool {
	if p.Protocol != TCPProtocol || p.Fragment.Split() || p.TCP.Payload == 0 || p.TCP.Flags&^header.TCPFlagPsh != ACK {
		return false
	}
	switch p.Kind {
	case KindIPv4:
		// With DF its identification says nothing (RFC 6864), and may be lost.
		if p.Transport-p.Network != header.IPv4MinimumSize || header.IPv4(frame[p.Network:]).Flags() != header.IPv4FlagDontFragment {
			return false
		}
	case KindIPv6:
		if p.Transport-p.Network != header.IPv6MinimumSize {
			return false
		}
	}
	if left.kind&withECN != 0 {
		return false
	}
	if left.flags&needsChecksum != 0 {
		return int(left.start) == p.Transport
	}
	return left.flags&dataValid != 0
}

func (r *Run) frame() []byte { return r.data[OffloadSize:] }

// Add joins the frame that follows, and reports whether it could: one of another connection has other headers.
func (r *Run) Add(p *Packet, frame []byte, left Offload) bool {
	if !p.opensRun(frame, left) || r.first.TCP.Payload%r.segment != 0 || p.TCP.Seq != r.first.TCP.Seq+uint32(r.first.TCP.Payload) {
		return false
	}
	if p.TCP.Payload > r.segment && int(left.segmentSize) != r.segment {
		return false // of other segments
	}
	payload := frame[p.End-p.TCP.Payload : p.End]
	if r.size+len(payload) > maxRun || !r.sameHeaders(frame[:p.End-len(payload)]) {
		return false
	}
	r.frame()[r.first.Transport+tcpFlagsOffset] |= frame[p.Transport+tcpFlagsOffset]
	r.size += copy(r.frame()[r.size:], payload)
	r.first.End = r.size
	r.first.TCP.Payload += len(payload)
	r.joined = true
	return true
}

// Places in a TCP header: RFC 9293 section 3.1.
const (
	tcpSeqOffset   = 4
	tcpAckOffset   = 8
	tcpFlagsOffset = 13
	tcpWindow      = 14
)

// timestamps is how an option of RFC 7323 stands alone, as it does in every frame that carries data and no SACK: appendix A there.
var timestamps = []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength}

// sameHeaders reports whether headers says what those of the run say, but for lengths, checksums and places. Timestamps may differ:
// those of the first frame stay, and it is the oldest that a receiver is to echo (RFC 7323, section 4.3).
func (r *Run) sameHeaders(headers []byte) bool {
	own := r.frame()[:r.first.End-r.first.TCP.Payload]
	if len(own) != len(headers) {
		return false
	}
	n, t := r.first.Network, r.first.Transport
	same := func(from, to int) bool { return bytes.Equal(own[from:to], headers[from:to]) }
	ok := same(0, n) && same(t, t+tcpSeqOffset) && same(t+tcpAckOffset, t+tcpFlagsOffset) && same(t+tcpWindow, t+header.TCPChecksumOffset)
	if r.first.Kind == KindIPv4 {
		// Version to service, flags to protocol, addresses.
		ok = ok && same(n, n+2) && same(n+6, n+10) && same(n+12, t)
	} else {
		ok = ok && same(n, n+4) && same(n+6, t)
	}
	a, b := own[t+header.TCPMinimumSize:], headers[t+header.TCPMinimumSize:]
	if len(a) == len(timestamps)+8 && bytes.HasPrefix(a, timestamps) && bytes.HasPrefix(b, timestamps) {
		return ok
	}
	return ok && bytes.Equal(a, b)
}

// End is the byte of the stream after the run's last one.
func (r *Run) End() uint32 { return r.first.TCP.Seq + uint32(r.first.TCP.Payload) }

// Finish returns the frame with what is left to do with it before it, as ReadOffload reads that; it is good until the next Start.
func (r *Run) Finish() []byte {
	if r.joined {
		r.complete()
	}
	r.left.write(r.data)
	return r.data[:OffloadSize+r.size]
}

// complete writes the lengths and checksums of what was joined.
func (r *Run) complete() {
	p, frame := &r.first, r.frame()[:r.size]
	length := uint16(p.End - p.Transport)
	r.left = Offload{
		flags: needsChecksum, kind: segmentsTCP4, segmentSize: uint16(r.segment),
		headerLength: uint16(p.End - p.TCP.Payload), start: uint16(p.Transport), offset: header.TCPChecksumOffset,
	}
	var from, to tcpip.Address
	if p.Kind == KindIPv4 {
		h := header.IPv4(frame[p.Network:])
		h.SetTotalLength(uint16(p.End - p.Network))
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
		from, to = h.SourceAddress(), h.DestinationAddress()
	} else {
		h := header.IPv6(frame[p.Network:])
		h.SetPayloadLength(length)
		from, to = h.SourceAddress(), h.DestinationAddress()
		r.left.kind = segmentsTCP6
	}
	// The sum of what is not in the header; who finishes it adds the rest (CHECKSUM_PARTIAL, linux/skbuff.h).
	header.TCP(frame[p.Transport:]).SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, length))
}
