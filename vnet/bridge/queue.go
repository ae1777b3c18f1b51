package bridge

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"time"

	"krun.dev/krunpod/vnet/packet"
)

// Bounds of a queue.
const (
	// A guest has so many frames of a connection to read, of so many bytes together, that more can wait.
	maxOutstanding = 4
	minOutstanding = 4 << 10
	maxHeld        = 50 * time.Millisecond // until it goes on whatever the guest acknowledges
	// Connections that are looked at, and those of which frames are held at a time.
	maxFlows = 256
	maxRuns  = 16
	// A connection has one of so many places, by its hash: with one alone, two of eight would often be in each other's way.
	places = 4
)

// queue holds frames of TCP for the guest back while it has not acknowledged those that it was given, and joins them: as Nagle's algorithm
// does with what a program writes (RFC 9293, 3.7.4), but only with whole frames and only behind several. What a frame costs a guest hardly
// depends on its length. One that is slow would stay so otherwise: acknowledgements that come late make a sender send small frames.
type queue struct {
	port *Port
	seed maphash.Seed

	mu    sync.Mutex
	flows [maxFlows / places][places]flow // by hash of their keys
	clock uint64                          // of flow.used
	held  []*flow                         // in the order in which they began
	free  []*packet.Run
	runs  int // that there are
	// toGuest and fromGuest are of the two goroutines, within mu.
	toGuest, fromGuest packet.Packet
}

// key is a connection as the guest's peer names it.
type key struct {
	from, to         netip.Addr
	fromPort, toPort uint16
}

// flow is a connection that was looked at last in its place.
type flow struct {
	key key
	// acked is the first byte that the guest has not acknowledged, and ends are those after the frames that it was given since.
	acked uint32
	ends  []uint32
	run   *packet.Run
	since time.Time
	used  uint64
}

func newQueue(p *Port) *queue {
	q := &queue{port: p, seed: maphash.MakeSeed()}
	for i := range q.flows {
		for j := range q.flows[i] {
			q.flows[i][j].ends = make([]uint32, 0, maxOutstanding)
		}
	}
	q.held = make([]*flow, 0, maxRuns)
	return q
}

func (q *queue) placesOf(k key) *[places]flow {
	return &q.flows[maphash.Comparable(q.seed, k)%uint64(len(q.flows))]
}

// at is the flow of a connection or, where it has none, the one that has not been used for longest of those that it may take.
func (q *queue) at(k key) *flow {
	flows := q.placesOf(k)
	oldest := &flows[0]
	for i := range flows {
		f := &flows[i]
		if f.key == k {
			return f
		}
		if f.used < oldest.used {
			oldest = f
		}
	}
	return oldest
}

// before reports whether a is a byte of the stream before b: RFC 9293, 3.4.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// send sends a well-formed frame of the network with the header before it, or holds a copy of it.
func (q *queue) send(data []byte, left packet.Offload) {
	q.mu.Lock()
	defer q.mu.Unlock()
	frame, p := data[headerSize:], &q.toGuest
	packet.Parse(frame, p)
	if p.Protocol != packet.TCPProtocol || p.Fragment.Split() {
		q.port.send(data)
		return
	}
	k := key{p.From, p.To, p.FromPort, p.ToPort}
	f := q.at(k)
	if f.key != k || p.TCP.Has(packet.SYN) {
		q.release(f)
		*f = flow{key: k, acked: p.TCP.Seq, ends: f.ends[:0]}
	}
	q.clock++
	f.used = q.clock
	if f.run != nil {
		if f.run.Add(p, frame, left) {
			return
		}
		q.release(f) // it goes before what comes after it
	}
	if f.behind() && f.continues(p) && q.hold(f, p, frame, left) {
		return
	}
	f.sent(p.TCP.Seq + uint32(p.TCP.Payload))
	q.port.send(data)
}

// behind reports whether the guest has frames that it has not acknowledged, and so many that it will do so soon.
func (f *flow) behind() bool {
	return len(f.ends) == maxOutstanding && f.ends[maxOutstanding-1]-f.acked >= minOutstanding
}

// continues reports whether a frame is what comes next, and not what was lost: that is waited for.
func (f *flow) continues(p *packet.Packet) bool { return p.TCP.Seq == f.ends[len(f.ends)-1] }

// sent notes a frame that ends at a byte of the stream; one that brings nothing new is forgotten.
func (f *flow) sent(end uint32) {
	last := f.acked
	if len(f.ends) > 0 {
		last = f.ends[len(f.ends)-1]
	}
	if !before(last, end) {
		return
	}
	if len(f.ends) == maxOutstanding {
		f.ends = slices.Delete(f.ends, 0, 1)
	}
	f.ends = append(f.ends, end)
}

func (q *queue) hold(f *flow, p *packet.Packet, frame []byte, left packet.Offload) bool {
	if len(q.free) == 0 && q.runs < maxRuns {
		q.free = append(q.free, new(packet.Run))
		q.runs++
	}
	if len(q.free) == 0 {
		return false
	}
	run := q.free[len(q.free)-1]
	if !run.Start(p, frame, left) {
		return false
	}
	q.free = q.free[:len(q.free)-1]
	f.run, f.since = run, time.Now()
	q.held = append(q.held, f)
	return true
}

// release sends what is held of a connection.
func (q *queue) release(f *flow) {
	if f.run == nil {
		return
	}
	q.held = slices.DeleteFunc(q.held, func(h *flow) bool { return h == f })
	f.sent(f.run.End())
	q.port.send(f.run.Finish())
	q.free = append(q.free, f.run)
	f.run = nil
}

// acknowledged takes note of a well-formed frame of the guest, which passed.
func (q *queue) acknowledged(frame []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := &q.fromGuest
	packet.Parse(frame, p)
	if p.Protocol != packet.TCPProtocol || p.Fragment.Split() || !p.TCP.Has(packet.ACK) {
		return
	}
	k := key{p.To, p.From, p.ToPort, p.FromPort}
	f := q.at(k)
	if f.key != k || !before(f.acked, p.TCP.Ack) {
		return
	}
	f.acked = p.TCP.Ack
	f.ends = slices.DeleteFunc(f.ends, func(end uint32) bool { return !before(f.acked, end) })
	if !f.behind() {
		q.release(f)
	}
}

// wait is how long to wait for a frame of the network before drain must be called; 0 is as long as it takes.
func (q *queue) wait() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.held) == 0 {
		return 0
	}
	return max(time.Until(q.held[0].since.Add(maxHeld)), time.Millisecond)
}

// drain sends what is held for long enough.
func (q *queue) drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.held) > 0 && time.Since(q.held[0].since) > maxHeld {
		q.release(q.held[0])
	}
}
