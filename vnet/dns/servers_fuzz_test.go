package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzServers has a nameserver say whatever the fuzzer does, in a datagram and, if that says so, over TCP. What is handed on as an
// answer is one, to the question that was asked.
func FuzzServers(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("api.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	message := func(change func(*dnsmessage.Message)) []byte {
		m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Questions: []dnsmessage.Question{q},
			Answers: []dnsmessage.Resource{recordA("api.example.org.", "192.0.2.1", 60)}}
		change(&m)
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return packed
	}
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	good := message(func(*dnsmessage.Message) {})
	short := message(func(m *dnsmessage.Message) { m.Truncated, m.Answers = true, nil })
	f.Add(good, []byte{})
	f.Add(short, framed(good))
	f.Add(short, framed(good)[:9])
	f.Add(short, framed(short))
	f.Add(message(func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }), []byte{})
	f.Add(message(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeTXT }), []byte{0xff, 0xff})
	f.Add([]byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, datagram, stream []byte) {
		if len(datagram) > maxReply || len(stream) > 1<<16 {
			return
		}
		dial := func(_ context.Context, network, _ string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				query := make([]byte, 512)
				n, err := theirs.Read(query)
				if err != nil {
					return
				}
				said, at := datagram, 0
				if network == "tcp" {
					said, at = stream, 2
				}
				said = append([]byte(nil), said...)
				if len(said) >= at+2 && n >= at+2 {
					copy(said[at:], query[at:at+2]) // it knows the id
				}
				theirs.Write(said)
			}()
			return ours, nil
		}
		got, err := NewServers([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, dial).Exchange(t.Context(), q)
		if err != nil {
			return
		}
		var p dnsmessage.Parser
		h, err := p.Start(got)
		if err != nil || !h.Response || (h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError) {
			t.Fatalf("%+v, %v", h, err)
		}
		if asked, err := p.Question(); err != nil || !sameQuestion(asked, q) {
			t.Fatalf("an answer to %v, %v", asked, err)
		}
	})
}
