package bridge

import (
	"context"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"krun.dev/krunpod/vnet/packet"
)

const (
	// maxQueries is how many are under way at a time; more are dropped, and asked again by who sent them.
	maxQueries = 64
	// maxQuery is the largest query that is looked at: one question and an OPT record have 300 bytes.
	maxQuery = 1024
)

// resolve answers a frame with a DNS query of the guest, when the resolver has an answer.
func (b *Bridge) resolve(ctx context.Context, frame []byte, running *sync.WaitGroup) {
	if len(frame) > maxQuery {
		return
	}
	select {
	case b.queries <- struct{}{}:
	default:
		return
	}
	frame = slices.Clone(frame) // the next one takes its place
	running.Go(func() {
		defer func() { <-b.queries }()
		if reply := answer(frame, b.resolver.Answer(ctx, payload(frame))); reply != nil {
			b.guest.send(reply)
		}
	})
}

// payload is what the UDP datagram in a well-formed frame holds.
func payload(frame []byte) []byte {
	var p packet.Packet
	if packet.Parse(frame, &p) != packet.WellFormed {
		return nil
	}
	return frame[p.Transport+header.UDPMinimumSize : p.Transport+int(header.UDP(frame[p.Transport:]).Length())]
}

// answer is the frame, with its header, that takes message back to where query came from.
func answer(query, message []byte) []byte {
	var p packet.Packet
	if message == nil || packet.Parse(query, &p) != packet.WellFormed || !p.Answerable() {
		return nil
	}
	size := header.UDPMinimumSize + len(message)
	data := make([]byte, headerSize+packet.MaxReplyHeaders+size)
	buf := data[headerSize:]
	upper := p.StartReply(buf, packet.UDPProtocol, size)
	u := header.UDP(upper)
	u.Encode(&header.UDPFields{SrcPort: p.ToPort, DstPort: p.FromPort, Length: uint16(size)})
	copy(u.Payload(), message)
	sum := ^checksum.Checksum(upper, p.ReplyChecksum(packet.UDPProtocol, size))
	if sum == 0 {
		sum = 0xffff // 0 is "none": RFC 768
	}
	u.SetChecksum(sum)
	return data[:headerSize+len(p.FinishReply(buf, upper))]
}
