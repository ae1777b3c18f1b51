package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/time/rate"
)

const (
	// controlPatience is how long a guest may take nothing off the control connection. ttrpc writes without a deadline and holds
	// a lock meanwhile: without this bound no call would end any more, whatever its own time is.
	controlPatience = 30 * time.Second
	// pieceSize is what is written at a time, in bytes.
	pieceSize = 32 << 10
	// maxAnswer bounds a message of the guest, in bytes without its header; what an agent answers is a few KiB.
	maxAnswer = 1 << 20
	// answersPerWrite is how many messages a guest may send for each of the host's without a delay: one is an answer, and more
	// leave room for what was given up meanwhile.
	answersPerWrite = 4
	// maxAsked bounds what comes together so: calls that were answered leave three each.
	maxAsked = 1000
	// unaskedRate is how many more it may send a second in the long run, and unaskedBurst at once: events, and what nobody waits
	// for, each of which is a line in the shim's log (ttrpc, client.go: receiveLoop).
	unaskedRate  = 10
	unaskedBurst = 200
	// messageHeader is the size of ttrpc's header, in bytes: the length of the rest comes first (ttrpc, channel.go).
	messageHeader = 10
)

// control is the host's end of the control connection, whose other end does what it likes.
type control struct {
	net.Conn
	patience time.Duration // controlPatience, but in tests
	// broken is told of what ends the connection, and shall end the VM: nothing can be done with it any more.
	broken func(error)

	asked   atomic.Int64 // answers that are due
	unasked *rate.Limiter
	closing context.Context
	close   context.CancelFunc

	// Of the message that arrives: its header as far as it is there, and the bytes that are still to come.
	header [messageHeader]byte
	have   int
	rest   uint32
}

// newClient makes a client of the control connection. broken is called when the guest does what no agent does.
func newClient(conn net.Conn, broken func(error)) *ttrpc.Client {
	return ttrpc.NewClient(newControl(conn, broken), ttrpc.WithUnaryClientInterceptor(boundErrors))
}

func newControl(conn net.Conn, broken func(error)) *control {
	c := &control{Conn: conn, patience: controlPatience, broken: broken, unasked: rate.NewLimiter(unaskedRate, unaskedBurst)}
	c.closing, c.close = context.WithCancel(context.Background())
	return c
}

// Close implements net.Conn. A Read that waits for the rate goes on at once.
func (c *control) Close() error {
	c.close()
	return c.Conn.Close()
}

// Write implements net.Conn. Whatever ends it, its error is net.ErrClosed: ttrpc gives the same error to each call afterwards until its
// reader has seen the end, and its callers ask for ttrpc.ErrClosed.
func (c *control) Write(p []byte) (int, error) {
	if c.asked.Load() < maxAsked {
		c.asked.Add(answersPerWrite)
	}
	n := 0
	for n < len(p) {
		// In pieces, so that a guest that is slow is not taken for one that takes nothing.
		err := c.SetWriteDeadline(time.Now().Add(c.patience))
		if err == nil {
			var wrote int
			wrote, err = c.Conn.Write(p[n:min(n+pieceSize, len(p))])
			n += wrote
		}
		if err != nil {
			c.Close() // the next message would begin within this one
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.broken(fmt.Errorf("its guest has taken nothing off the control connection for %v", c.patience))
			}
			return n, fmt.Errorf("%w: %w", net.ErrClosed, err)
		}
	}
	return n, nil
}

// Read implements net.Conn. It delays and bounds whole messages.
func (c *control) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err := c.inspect(p[:n]); err != nil {
		c.Close()
		c.broken(err)
		return 0, err
	}
	return n, err
}

// inspect follows the messages in what was read.
func (c *control) inspect(p []byte) error {
	for len(p) > 0 {
		if c.rest > 0 {
			skip := min(uint64(len(p)), uint64(c.rest))
			c.rest -= uint32(skip)
			p = p[skip:]
			continue
		}
		n := copy(c.header[c.have:], p)
		c.have, p = c.have+n, p[n:]
		if c.have < messageHeader {
			continue
		}
		c.have, c.rest = 0, binary.BigEndian.Uint32(c.header[:])
		if c.rest > maxAnswer {
			return fmt.Errorf("its guest sent a message of %d bytes on the control connection, of which %d are allowed", c.rest, maxAnswer)
		}
		if c.asked.Add(-1) < 0 {
			c.asked.Add(1)
			_ = c.unasked.Wait(c.closing)
		}
	}
	return nil
}
