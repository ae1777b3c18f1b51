package bridge

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"krun.dev/krunpod/vnet/packet"
)

const (
	// headerSize is that of struct virtio_net_hdr (linux/virtio_net.h), which tells of a frame's offloads. Every frame has one before
	// it here; only an interface says something in it.
	headerSize = packet.OffloadSize
	// maxFrame is the largest one that the kernel hands over: a packet of 64 KiB with its Ethernet header and a tag.
	maxFrame = 1<<16 + 18
)

// Port is one end of a bridge.
type Port struct {
	name    string
	carrier carrier
	// socket is the carrier, of an interface.
	socket *packetSocket
	// unsent are frames that the other side did not take, unreadable those that could not be handed over.
	unsent, unreadable atomic.Uint64
}

// carrier receives and sends frames, each with a header before it. Frames are sent by several goroutines.
type carrier interface {
	// receive reads one frame to data, and returns its length with the header; io.EOF when none comes any more.
	receive(data []byte) (int, error)
	// send may write to the header.
	send(data []byte) error
	io.Closer
}

// receive reads one frame to data, and returns its length with the header; io.EOF when none comes any more. After wait, if it is not
// 0, it returns os.ErrDeadlineExceeded; only interfaces have one.
func (p *Port) receive(data []byte, wait time.Duration) (int, error) {
	if p.socket != nil {
		p.socket.within(wait)
	}
	return p.carrier.receive(data)
}

// send sends a frame with the header before it.
func (p *Port) send(data []byte) {
	if err := p.carrier.send(data); err != nil {
		p.unsent.Add(1)
	}
}

// unread is how many frames were lost since the last call because nobody read them.
func (p *Port) unread() uint64 {
	if p.socket == nil {
		return 0
	}
	return p.socket.unread()
}

// Close closes a port that no Bridge has. It may be called again.
func (p *Port) Close() error {
	if err := p.carrier.Close(); !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
