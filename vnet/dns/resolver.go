package dns

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/time/rate"

	"krun.dev/krunpod/vnet/policy"
)

// Upstream asks the pod's nameservers.
type Upstream interface {
	// Exchange returns a message that answers q, not yet looked into beyond its question. It ends with ctx.
	Exchange(ctx context.Context, q dnsmessage.Question) ([]byte, error)
}

// Opener opens an address for some rules of a policy, by their indexes, and reports whether there was room for it.
type Opener interface {
	Open(addr netip.Addr, rules []int, d time.Duration) bool
}

// How long an address is open: as long as its answer may be kept, within these bounds.
const (
	// MinOpen leaves a client the time to connect to an address whose answer may not be kept.
	MinOpen = 30 * time.Second
	// MaxOpen also bounds the TTL that the guest is told, so that it asks again before the address is shut.
	MaxOpen = time.Hour
	// slack is how much longer an address is open than the guest is told.
	slack = 5 * time.Second
)

// Bounds on what a guest can have done at the nameservers. A query beyond them is left without an answer: clients ask
// again after seconds.
const (
	maxPending  = 64  // queries under way
	queryRate   = 100 // a second
	queryBurst  = 200
	queryWithin = 4500 * time.Millisecond // less than the 5 s after which clients ask again (resolv.conf(5), timeout)
)

// Config says what a Resolver works with.
type Config struct {
	// Names are those that may be asked for; nil is all of them, and then nothing is opened.
	Names    *policy.NameSet
	Openings Opener
	Upstream Upstream
	// Refused is told of a refused name, not too often, until it reports that it has taken it, and of how many others it was not told
	// yet. It must not wait; nil tells nobody.
	Refused func(name string, untold int) bool
}

// Resolver answers queries. It may be used by several goroutines.
type Resolver struct {
	names    *policy.NameSet
	openings Opener
	upstream Upstream
	refused  *refusals
	pending  chan struct{}
	limit    *rate.Limiter
	counters counters
}

// New makes a Resolver.
func New(c Config) *Resolver {
	return &Resolver{
		names: c.Names, openings: c.Openings, upstream: c.Upstream,
		refused: newRefusals(c.Refused),
		pending: make(chan struct{}, maxPending),
		limit:   rate.NewLimiter(queryRate, queryBurst),
	}
}

type counters struct{ queries, malformed, answered, refused, failed, overload, leftOut atomic.Uint64 }

// Stats is what a Resolver has counted.
type Stats struct {
	// Queries are all; each was counted once more in one of the next five.
	Queries uint64 `json:"queries"`
	// Malformed are those that were no query of one question, Answered those with an answer of the nameservers,
	// Refused those for a name that the policy has not, Failed those that the nameservers did not answer or for which
	// no more addresses could be opened, and Overload those that were left without an answer.
	Malformed uint64 `json:"malformed"`
	Answered  uint64 `json:"answered"`
	Refused   uint64 `json:"refused"`
	Failed    uint64 `json:"failed"`
	Overload  uint64 `json:"overload"`
	// LeftOut are addresses in answers that no name may stand for, such as a loopback's.
	LeftOut uint64 `json:"leftOut"`
}

// Stats reports what was counted.
func (r *Resolver) Stats() Stats {
	c := &r.counters
	return Stats{
		Queries: c.queries.Load(), Malformed: c.malformed.Load(), Answered: c.answered.Load(), Refused: c.refused.Load(),
		Failed: c.failed.Load(), Overload: c.overload.Load(), LeftOut: c.leftOut.Load(),
	}
}

// RefusedNames lists names that were refused, with how often; see maxRefused.
func (r *Resolver) RefusedNames() map[string]uint64 { return r.refused.list() }

// Answer returns the answer to a query that came in a UDP datagram, nil if there is to be none.
func (r *Resolver) Answer(ctx context.Context, message []byte) []byte {
	r.counters.queries.Add(1)
	q, rcode := readQuery(message)
	if q == nil || rcode != dnsmessage.RCodeSuccess {
		r.counters.malformed.Add(1)
		return q.reply(rcode)
	}
	var rules []int
	if r.names != nil {
		if rules = r.names.Match(q.name, nil); len(rules) == 0 {
			r.counters.refused.Add(1)
			r.refused.add(q.name)
			return q.blocked()
		}
	}
	if !answerable(q.question.Type) {
		r.counters.answered.Add(1)
		return q.reply(dnsmessage.RCodeSuccess) // the name exists, and has nothing of that type
	}
	select {
	case r.pending <- struct{}{}:
		defer func() { <-r.pending }()
	default:
		r.counters.overload.Add(1)
		return nil
	}
	if !r.limit.Allow() {
		r.counters.overload.Add(1)
		return nil
	}
	reply, ok := r.ask(ctx, q, rules)
	if !ok {
		r.counters.failed.Add(1)
		return q.reply(dnsmessage.RCodeServerFailure)
	}
	r.counters.answered.Add(1)
	return reply
}

// ask asks the nameservers, opens the addresses and writes the reply.
func (r *Resolver) ask(ctx context.Context, q *query, rules []int) ([]byte, bool) {
	ctx, cancel := context.WithTimeout(ctx, queryWithin)
	defer cancel()
	asked := q.question
	name, err := dnsmessage.NewName(q.name + ".")
	if err != nil {
		return nil, false
	}
	asked.Name = name
	message, err := r.upstream.Exchange(ctx, asked)
	if err != nil {
		return nil, false
	}
	a, err := readAnswer(message, asked)
	if err != nil {
		return nil, false
	}
	r.counters.leftOut.Add(uint64(a.leftOut))
	reply, sent := q.write(a)
	if reply == nil {
		return nil, false
	}
	for _, record := range sent {
		if addr, ok := address(record); ok && r.names != nil && !r.openings.Open(addr, rules, openFor(a.ttl)) {
			return nil, false
		}
	}
	return reply, true
}

// openFor is how long an address with a TTL of so many seconds is open.
func openFor(ttl uint32) time.Duration {
	return min(max(time.Duration(ttl)*time.Second, MinOpen), MaxOpen) + slack
}

// answerable reports whether records of a type are handed on: those that programs look for and dnsmessage reads.
func answerable(t dnsmessage.Type) bool {
	switch t {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME, dnsmessage.TypeMX, dnsmessage.TypeNS,
		dnsmessage.TypePTR, dnsmessage.TypeSOA, dnsmessage.TypeSRV, dnsmessage.TypeTXT:
		return true
	}
	return false
}

// normal is a name as policy.Rule has it, and false for one that no policy can name.
func normal(n dnsmessage.Name) (string, bool) {
	s := strings.ToLower(strings.TrimSuffix(n.String(), "."))
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '\\' {
			return "", false
		}
	}
	return s, s != ""
}
