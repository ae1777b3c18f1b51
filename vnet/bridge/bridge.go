package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/vnet/firewall"
	"krun.dev/krunpod/vnet/packet"
)

// Config says what is joined.
type Config struct {
	// Guest and Network lead to the guest and to the pod's network. Both are interfaces, or neither is: the frames of an interface may
	// have offloads that are left to do, and only another one does them.
	Guest, Network *Port
	// Firewall judges every frame.
	Firewall *firewall.Firewall
	// Resolver answers the guest's DNS; needed if the firewall says so (NeedsResolver).
	Resolver Resolver
}

// Resolver answers a DNS message; nil is no answer.
type Resolver interface {
	Answer(ctx context.Context, query []byte) []byte
}

// Bridge joins two ports.
type Bridge struct {
	guest, network *Port
	firewall       *firewall.Firewall
	resolver       Resolver
	queries        chan struct{}

	mu    sync.Mutex
	stats Stats
}

// New makes a Bridge of two ports, whose frames wait for Run from then on. It has the ports, also after an error, when they are closed.
func New(c Config) (*Bridge, error) {
	b := &Bridge{
		guest: c.Guest, network: c.Network, firewall: c.Firewall, resolver: c.Resolver, queries: make(chan struct{}, maxQueries),
	}
	switch {
	case c.Resolver == nil && c.Firewall.NeedsResolver():
		return nil, errors.Join(errors.New("bridge: queries of the guest are to be resolved, and there is no resolver"), b.Close())
	case (c.Guest.socket == nil) != (c.Network.socket == nil):
		return nil, errors.Join(fmt.Errorf("bridge: one of %s and %s is an interface", c.Guest.name, c.Network.name), b.Close())
	}
	return b, nil
}

// Close closes the ports of a Bridge that does not run, and ends one that does.
func (b *Bridge) Close() error {
	return errors.Join(b.guest.Close(), b.network.Close())
}

// Run carries frames until its context or Close ends it, and returns nil then, or until a port fails. It closes the ports. An
// interface that goes down, or away, carries nothing more, nor does a stream whose other end is closed; that is no error.
func (b *Bridge) Run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = b.Close() })
	defer stop()
	var done sync.WaitGroup
	fromGuest := direction{from: b.guest, judge: b.firewall.FromGuest, pass: func(data []byte, _ packet.Offload) { b.network.send(data) }}
	toGuest := direction{from: b.network, judge: b.firewall.FromNetwork, pass: func(data []byte, _ packet.Offload) { b.guest.send(data) }}
	if b.guest.socket != nil {
		queue := newQueue(b.guest)
		fromGuest.pass = func(data []byte, _ packet.Offload) {
			b.network.send(data)
			queue.acknowledged(data[headerSize:])
		}
		toGuest.pass, toGuest.queue = queue.send, queue
	}
	done.Go(func() { cancel(b.carry(ctx, fromGuest, &done)) })
	done.Go(func() { cancel(b.carry(ctx, toGuest, &done)) })
	done.Wait()
	if err := context.Cause(ctx); parent.Err() == nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// direction is one of the two of a bridge.
type direction struct {
	from *Port
	// judge is one of the two of a Firewall, pass takes what may pass.
	judge func(frame []byte, left packet.Offload, buf []byte) (firewall.Verdict, []byte)
	pass  func(data []byte, left packet.Offload)
	// queue, if there is one, is what pass holds frames in.
	queue *queue
}

// carry reads the frames of a direction and does what the firewall says. It owns the buffers, and allocates nothing for a frame that
// passes or is refused.
func (b *Bridge) carry(ctx context.Context, d direction, queries *sync.WaitGroup) error {
	data := make([]byte, headerSize+maxFrame)
	// The header of an answer says that nothing is left to do, and stays zero.
	reply := make([]byte, headerSize+firewall.MaxAnswer)
	for {
		var wait time.Duration
		if d.queue != nil {
			wait = d.queue.wait()
		}
		n, err := d.from.receive(data, wait)
		if wait > 0 {
			d.queue.drain()
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case errors.Is(err, io.EOF):
			<-ctx.Done()
			return nil
		case errors.Is(err, unix.ENETDOWN):
			continue // said once; it may come up again
		case errors.Is(err, unix.EINVAL):
			// A segment of a protocol that the header has no word for, such as SCTP, is gone (virtio_net_hdr_from_skb).
			d.from.unreadable.Add(1)
			continue
		case err != nil:
			return fmt.Errorf("read from %s: %w", d.from.name, err)
		case n < headerSize:
			continue
		}
		var left packet.Offload
		if d.from.socket != nil {
			left = packet.ReadOffload(data)
		}
		verdict, answer := d.judge(data[headerSize:n], left, reply[headerSize:])
		switch verdict {
		case firewall.Pass:
			d.pass(data[:n], left)
		case firewall.Answer:
			d.from.send(reply[:headerSize+len(answer)])
		case firewall.Resolve:
			b.resolve(ctx, data[headerSize:n], queries)
		}
	}
}

// Stats is what did not get through for want of room, besides what the firewall has counted.
type Stats struct {
	// Unread are frames that came faster than they were judged, or could not be handed over, from each side.
	UnreadFromGuest, UnreadFromNetwork uint64
	// Unsent are frames that passed and that an interface did not take.
	UnsentToGuest, UnsentToNetwork uint64
	Firewall                       firewall.Stats
}

// Stats reports what was counted.
func (b *Bridge) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.UnreadFromGuest += b.guest.unread()
	b.stats.UnreadFromNetwork += b.network.unread()
	s := b.stats
	s.UnreadFromGuest += b.guest.unreadable.Load()
	s.UnreadFromNetwork += b.network.unreadable.Load()
	s.UnsentToGuest, s.UnsentToNetwork = b.guest.unsent.Load(), b.network.unsent.Load()
	s.Firewall = b.firewall.Stats()
	return s
}
