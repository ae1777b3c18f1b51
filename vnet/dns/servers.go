package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// perServer is how long one nameserver is waited for before the next has its turn.
	perServer = 1500 * time.Millisecond
	// maxServers is as many as resolvers use (resolv.conf(5), MAXNS).
	maxServers = 3
	// maxStrays is how many datagrams that are no answer are read for one query.
	maxStrays = 16
)

// Servers is an Upstream: nameservers that are asked one after the other, over UDP and, if an answer has no room there,
// over TCP.
type Servers struct {
	addrs []netip.AddrPort
	dial  Dial
}

// Dial connects to a nameserver from the pod's network, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// NewServers takes the pod's nameservers, of which the first three count.
func NewServers(addrs []netip.AddrPort, dial Dial) *Servers {
	return &Servers{addrs: addrs[:min(len(addrs), maxServers)], dial: dial}
}

// Exchange implements Upstream.
func (s *Servers) Exchange(ctx context.Context, q dnsmessage.Question) ([]byte, error) {
	if len(s.addrs) == 0 {
		return nil, errors.New("the pod has no nameservers")
	}
	var errs []error
	for _, addr := range s.addrs {
		message, err := s.exchange(ctx, addr, q)
		if err == nil {
			return message, nil
		}
		errs = append(errs, fmt.Errorf("nameserver %s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (s *Servers) exchange(ctx context.Context, addr netip.AddrPort, q dnsmessage.Question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, perServer)
	defer cancel()
	id, query, err := writeQuery(q)
	if err != nil {
		return nil, err
	}
	message, err := s.overUDP(ctx, addr, id, q, query)
	if err != nil {
		return nil, err
	}
	if truncated(message) {
		return s.overTCP(ctx, addr, id, q, query)
	}
	return message, servesIt(message)
}

// writeQuery writes a message of our own: nothing in it but name and type is the guest's.
func writeQuery(q dnsmessage.Question) (id uint16, message []byte, err error) {
	var random [2]byte
	rand.Read(random[:]) // never fails: crypto/rand
	id = binary.BigEndian.Uint16(random[:])
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(maxReply, dnsmessage.RCodeSuccess, false); err != nil {
		return 0, nil, err
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions:   []dnsmessage.Question{q},
		Additionals: []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}},
	}
	message, err = m.Pack()
	return id, message, err
}

// overUDP sends from a port of its own for each query: with the id, 32 bits to guess for who is not on the way.
func (s *Servers) overUDP(ctx context.Context, addr netip.AddrPort, id uint16, q dnsmessage.Question, query []byte) ([]byte, error) {
	conn, err := s.connect(ctx, "udp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, maxReply)
	for range maxStrays {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], id, q) {
			return buf[:n], nil
		}
	}
	return nil, errors.New("too many datagrams that are no answer")
}

// overTCP has the length of a message before it: RFC 1035, section 4.2.2.
func (s *Servers) overTCP(ctx context.Context, addr netip.AddrPort, id uint16, q dnsmessage.Question, query []byte) ([]byte, error) {
	conn, err := s.connect(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		return nil, err
	}
	if !answers(message, id, q) {
		return nil, errors.New("its answer over TCP is to another question")
	}
	return message, servesIt(message)
}

func (s *Servers) connect(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	conn, err := s.dial(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline() // of exchange
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// answers reports whether a message is an answer to the question that went out with id.
func answers(message []byte, id uint16, q dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || h.ID != id || !h.Response {
		return false
	}
	got, err := p.Question()
	return err == nil && sameQuestion(got, q)
}

func truncated(message []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	return err == nil && h.Truncated
}

// servesIt is an error for an answer after which another nameserver may know more.
func servesIt(message []byte) error {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil {
		return err
	}
	switch h.RCode {
	case dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError:
		return nil
	}
	return fmt.Errorf("it answers %v", h.RCode)
}
