package dns

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// hostile is an Upstream whose answers are the fuzzer's.
type hostile struct {
	message []byte
	asked   []dnsmessage.Question
}

func (h *hostile) Exchange(_ context.Context, q dnsmessage.Question) ([]byte, error) {
	h.asked = append(h.asked, q)
	return h.message, nil
}

type opened map[netip.Addr]bool

func (o opened) Open(addr netip.Addr, rules []int, d time.Duration) bool {
	if len(rules) == 0 || d < MinOpen || d > MaxOpen+slack || !reachable(addr) {
		panic("opened what must not be")
	}
	o[addr] = true
	return len(o) < 20
}

// FuzzAnswer has both the guest's query and the nameserver's answer from the fuzzer.
func FuzzAnswer(f *testing.F) {
	reply := func(answers ...dnsmessage.Resource) []byte {
		m := dnsmessage.Message{
			Header: dnsmessage.Header{ID: 4711, Response: true}, Answers: answers,
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("api.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return packed
	}
	q := query1(f, "api.example.org.", dnsmessage.TypeA, 0)
	f.Add(q, reply(recordA("api.example.org.", "192.0.2.1", 60)))
	f.Add(query1(f, "api.example.org.", dnsmessage.TypeA, 600), reply(alias("api.example.org.", "b.example.", 0), recordA("b.example.", "192.0.2.1", 60)))
	f.Add(q, reply(alias("api.example.org.", "api.example.org.", 0)))
	f.Add(q, reply(recordA("api.example.org.", "127.0.0.1", 60), recordA("api.example.org.", "2001:db8::1", 60)))
	f.Add(query1(f, "evil.example.", dnsmessage.TypeTXT, 0), reply())
	set := names(f, "api.example.org:443, *.internal.example")
	f.Fuzz(func(t *testing.T, message, upstream []byte) {
		if len(message) > 4096 || len(upstream) > 1<<16 {
			return
		}
		h, o := &hostile{message: upstream}, opened{}
		r := New(Config{Names: set, Openings: o, Upstream: h})
		answer := r.Answer(t.Context(), message)
		for _, q := range h.asked {
			name, ok := normal(q.Name)
			if !ok || len(set.Match(name, nil)) == 0 {
				t.Fatalf("asked for %v", q)
			}
		}
		if answer == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer cannot be read: %v", err)
		}
		if len(answer) > maxReply || m.ID != uint16(message[0])<<8|uint16(message[1]) || !m.Response {
			t.Fatalf("%d bytes, %+v", len(answer), m.Header)
		}
		for _, record := range m.Answers {
			if addr, ok := address(record); ok && !o[addr] {
				t.Fatalf("the guest learns %v, which is not open", addr)
			}
		}
	})
}
