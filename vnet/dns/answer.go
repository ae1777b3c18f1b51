package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"krun.dev/krunpod/vnet/policy"
)

const (
	// maxChain is the most aliases that lead from a name to another.
	maxChain = 12
	// maxRecords is the most records of an answer that are looked at.
	maxRecords = 256
)

// answer is what a nameserver says to a question.
type answer struct {
	code dnsmessage.RCode
	// records are the aliases that lead from the name on, chain of them, and the records that were asked for.
	records   []dnsmessage.Resource
	chain     int
	addresses bool
	// ttl is the least of the records', in seconds and MaxOpen at most; the records have it too.
	ttl     uint32
	leftOut int
}

// readAnswer reads the message that a nameserver sent as its answer to a question. Records that do not belong to the
// answer are left out: who answers says nothing about other names.
func readAnswer(message []byte, asked dnsmessage.Question) (*answer, error) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if !h.Response || h.OpCode != 0 || (h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError) {
		return nil, fmt.Errorf("the nameserver answers %v", h.RCode)
	}
	if q, err := p.Question(); err != nil || !sameQuestion(q, asked) {
		return nil, errors.New("the nameserver answers another question")
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	all, err := readRecords(&p)
	if err != nil {
		return nil, err
	}
	a := &answer{code: h.RCode, addresses: asked.Type == dnsmessage.TypeA || asked.Type == dnsmessage.TypeAAAA}
	return a, a.choose(all, asked)
}

func readRecords(p *dnsmessage.Parser) (all []dnsmessage.Resource, err error) {
	for range maxRecords {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		if h.Class != dnsmessage.ClassINET || !answerable(h.Type) {
			if err := p.SkipAnswer(); err != nil {
				return nil, fmt.Errorf("read answer: %w", err)
			}
			continue
		}
		record, err := p.Answer()
		if err != nil {
			return nil, fmt.Errorf("read answer: %w", err)
		}
		all = append(all, record)
	}
	return all, nil
}

// choose picks the records that answer the question: the aliases from its name on, in order, and what their end has.
func (a *answer) choose(all []dnsmessage.Resource, asked dnsmessage.Question) error {
	name := asked.Name
	if asked.Type != dnsmessage.TypeCNAME {
		for {
			alias := find(all, name)
			if alias == nil {
				break
			}
			if a.chain++; a.chain > maxChain {
				return errors.New("the nameserver's aliases lead too far, or in a circle")
			}
			a.records = append(a.records, *alias)
			name = alias.Body.(*dnsmessage.CNAMEResource).CNAME
		}
	}
	for _, r := range all {
		if r.Header.Type != asked.Type || !same(r.Header.Name, name) {
			continue
		}
		if addr, ok := address(r); ok && !reachable(addr) {
			a.leftOut++
			continue
		}
		a.records = append(a.records, r)
	}
	a.shorten()
	return nil
}

// find returns the first alias of a name.
func find(all []dnsmessage.Resource, name dnsmessage.Name) *dnsmessage.Resource {
	for i := range all {
		if all[i].Header.Type == dnsmessage.TypeCNAME && same(all[i].Header.Name, name) {
			return &all[i]
		}
	}
	return nil
}

// shorten gives all records the shortest TTL among them: the address is open for as long as the whole answer holds.
func (a *answer) shorten() {
	a.ttl = uint32(MaxOpen.Seconds())
	for _, r := range a.records {
		a.ttl = min(a.ttl, r.Header.TTL)
	}
	for i := range a.records {
		a.records[i].Header.TTL = a.ttl
	}
}

// address is that of a record of type A or AAAA.
func address(r dnsmessage.Resource) (netip.Addr, bool) {
	switch body := r.Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(body.A), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(body.AAAA), true
	}
	return netip.Addr{}, false
}

// reachable reports whether a name may stand for an address. On the link are a cloud's metadata (169.254.169.254) and
// other hosts of the node's network, which whoever answers for a name could otherwise open; a rule can, by address.
func reachable(a netip.Addr) bool {
	if inner, ok := policy.Embedded(a); ok {
		a = inner
	}
	return !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func same(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }

func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && same(a.Name, b.Name)
}
