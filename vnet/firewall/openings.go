package firewall

import (
	"net/netip"
	"sync"
	"time"
)

// Openings are the addresses that names of a policy stand for at present. It may be used by several goroutines.
type Openings struct {
	most  int
	clock func() time.Duration

	mu    sync.Mutex
	until map[opened]time.Duration
}

// opened is an address and the rule that it is open for, by its index.
type opened struct {
	addr netip.Addr
	rule int
}

// DefaultOpenings is for some thousand addresses in use at the same time.
const DefaultOpenings = 4096

// NewOpenings makes an Openings for most addresses and rules, or DefaultOpenings if it is 0; a nil clock is the system's.
func NewOpenings(most int, clock func() time.Duration) *Openings {
	if most == 0 {
		most = DefaultOpenings
	}
	if clock == nil {
		clock = systemClock()
	}
	return &Openings{most: most, clock: clock, until: map[opened]time.Duration{}}
}

// Open opens an address for the connections of some rules, by their indexes in the policy, for some time, or for longer
// than it is open. It reports whether there was room; if not, nothing was opened.
func (o *Openings) Open(addr netip.Addr, rules []int, d time.Duration) bool {
	now := o.clock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hasRoom(addr, rules) {
		o.sweep(now)
		if !o.hasRoom(addr, rules) {
			return false
		}
	}
	for _, rule := range rules {
		key := opened{addr, rule}
		o.until[key] = max(o.until[key], now+d)
	}
	return true
}

func (o *Openings) hasRoom(addr netip.Addr, rules []int) bool {
	more := 0
	for _, rule := range rules {
		if _, ok := o.until[opened{addr, rule}]; !ok {
			more++
		}
	}
	return len(o.until)+more <= o.most
}

// sweep removes what is over. It is called when there is no room, so once in as many openings as there is room for, or
// else for each answer that then fails: a guest that asks for more can make no more of it than it may ask.
func (o *Openings) sweep(now time.Duration) {
	for key, until := range o.until {
		if until <= now {
			delete(o.until, key)
		}
	}
}

// isOpen reports whether an address is open for a rule.
func (o *Openings) isOpen(addr netip.Addr, rule int) bool {
	now := o.clock()
	o.mu.Lock()
	defer o.mu.Unlock()
	until, ok := o.until[opened{addr, rule}]
	return ok && now < until
}

// Len is the number of addresses and rules, of which some may be over.
func (o *Openings) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.until)
}
