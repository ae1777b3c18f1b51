package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// Window is how many bytes may be in flight in one direction. It is less than the send buffer of a UNIX socket
	// (212992 bytes, net.core.wmem_default), so that libkrun's blocking send(2) never blocks.
	Window = 2 * MaxFrame
	// MaxFrame is the most payload one frame carries, in bytes: with its header, and with the kernel's for a packet, it
	// fits 64 KiB, the most of a vsock packet (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE) and a power of two of pages. Every frame
	// costs exits of the VM; a multiple of the page size takes whole pages out of a pipe.
	MaxFrame = 60 << 10
)

// ErrProtocol is wrapped by every error that says the other end broke the protocol. The connection is closed then.
var ErrProtocol = errors.New("stream protocol violated")

// frameType is the first byte of a frame.
type frameType byte

const (
	frameData   frameType = 1 // payload follows, the amount is its length
	frameEnd    frameType = 2 // no more data from the sender; the amount is 0
	frameCredit frameType = 3 // the sender's reader took that many bytes
)

// headerSize is one byte of type and four of amount, big-endian.
const headerSize = 5

// header is the start of each frame.
type header struct {
	kind   frameType
	amount uint32
}

func (h header) put(b []byte) {
	b[0] = byte(h.kind)
	binary.BigEndian.PutUint32(b[1:headerSize], h.amount)
}

func parseHeader(b []byte) header {
	return header{kind: frameType(b[0]), amount: binary.BigEndian.Uint32(b[1:headerSize])}
}

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
