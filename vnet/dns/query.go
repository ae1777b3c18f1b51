package dns

import (
	"encoding/binary"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	headerSize = 12
	// minReply is the size of reply that every client takes: RFC 1035.
	minReply = 512
	// maxReply fits into a packet of any link: RFC 9715.
	maxReply = 1232
	// maxAdditional is how many additional records of a query are read to find its OPT record.
	maxAdditional = 4
)

// query is what a guest asks for.
type query struct {
	id       uint16
	recurse  bool
	question dnsmessage.Question
	name     string
	// extended says that the query has an OPT record (RFC 6891), and room is the size of reply it has room for.
	extended bool
	room     int
}

// readQuery reads a message of the guest. It returns nil for what must not be answered, and a code other than success
// for what must be with that code alone.
func readQuery(message []byte) (*query, dnsmessage.RCode) {
	if len(message) < headerSize {
		return nil, 0
	}
	q := &query{id: binary.BigEndian.Uint16(message), room: minReply}
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.Response {
		return nil, 0
	}
	q.recurse = h.RecursionDesired
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 || !q.readRest(&p) {
		return q, dnsmessage.RCodeFormatError
	}
	q.question = questions[0]
	if q.question.Class != dnsmessage.ClassINET {
		return q, dnsmessage.RCodeRefused
	}
	name, ok := normal(q.question.Name)
	if !ok {
		return q, dnsmessage.RCodeRefused
	}
	q.name = name
	return q, dnsmessage.RCodeSuccess
}

// readRest reads what follows the question: nothing but additional records.
func (q *query) readRest(p *dnsmessage.Parser) bool {
	if _, err := p.AnswerHeader(); err != dnsmessage.ErrSectionDone {
		return false
	}
	if err := p.SkipAllAnswers(); err != nil {
		return false
	}
	if _, err := p.AuthorityHeader(); err != dnsmessage.ErrSectionDone {
		return false
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return false
	}
	for range maxAdditional {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return true
		}
		if err != nil {
			return false
		}
		if h.Type == dnsmessage.TypeOPT {
			q.extended = true
			q.room = min(max(int(h.Class), minReply), maxReply) // RFC 6891 section 6.1.2: the class is the size
		}
		if err := p.SkipAdditional(); err != nil {
			return false
		}
	}
	return false
}

// Extended errors, RFC 8914.
const (
	optionError  = 15
	errorBlocked = 15
)

// reply is an answer without records; nil for a nil query.
func (q *query) reply(code dnsmessage.RCode) []byte {
	if q == nil {
		return nil
	}
	return q.build(code, nil, false, nil)
}

// blocked says that the name does not exist. A client that has a search list (resolv.conf(5)) then goes on with it, as
// it does not after REFUSED: with the search list of Kubernetes, names that are allowed come after some that are not.
func (q *query) blocked() []byte {
	return q.build(dnsmessage.RCodeNameError, nil, false,
		[]dnsmessage.Option{{Code: optionError, Data: []byte{0, errorBlocked}}})
}

// write is the reply with the records of a, and the records that are in it. When not all have room, of addresses as
// many as have are sent without a word: one is enough to connect, and the vnet has no DNS over TCP to ask for the rest.
func (q *query) write(a *answer) ([]byte, []dnsmessage.Resource) {
	records := a.records
	for {
		truncated := len(records) < len(a.records) && !a.addresses
		reply := q.build(a.code, records, truncated, nil)
		if reply == nil || len(reply) <= q.room {
			return reply, records
		}
		if len(records) <= a.chain {
			// Not even the chain: without it, what follows says nothing.
			return q.build(a.code, nil, true, nil), nil
		}
		// An address takes 16 or 28 bytes, so this does not leave out more than it must.
		records = records[:len(records)-1-min((len(reply)-q.room)/64, len(records)-1-a.chain)]
	}
}

func (q *query) build(code dnsmessage.RCode, records []dnsmessage.Resource, truncated bool, options []dnsmessage.Option) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: q.id, Response: true, RecursionDesired: q.recurse, RecursionAvailable: true, RCode: code, Truncated: truncated,
		},
		Answers: records,
	}
	if q.question.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.question}
	}
	if q.extended {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(maxReply, dnsmessage.RCodeSuccess, false); err != nil {
			return nil
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: options}}}
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
