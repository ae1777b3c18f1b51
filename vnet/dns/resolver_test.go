package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"krun.dev/krunpod/vnet/policy"
)

// nameserver is a real one on the loopback, over UDP and TCP.
type nameserver struct {
	testing.TB
	addr netip.AddrPort
	udp  net.PacketConn
	tcp  net.Listener

	mu sync.Mutex
	// records are what it knows, by name with a final dot.
	records map[string][]dnsmessage.Resource
	asked   []dnsmessage.Message
	// mangle changes the answers.
	mangle func(*dnsmessage.Message)
}

func newNameserver(t testing.TB) *nameserver {
	t.Helper()
	s := &nameserver{TB: t, records: map[string][]dnsmessage.Resource{}}
	for range 20 { // a port that is free for both
		var err error
		if s.udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if s.tcp, err = net.Listen("tcp", s.udp.LocalAddr().String()); err == nil {
			break
		}
		s.udp.Close()
	}
	if s.tcp == nil {
		t.Fatal("no port that is free for UDP and TCP")
	}
	s.addr = netip.MustParseAddrPort(s.udp.LocalAddr().String())
	var done sync.WaitGroup
	done.Go(s.serveUDP)
	done.Go(s.serveTCP)
	t.Cleanup(func() { s.udp.Close(); s.tcp.Close(); done.Wait() })
	return s
}

func (s *nameserver) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := s.reply(buf[:n], maxReply); reply != nil {
			s.udp.WriteTo(reply, from)
		}
	}
}

func (s *nameserver) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err == nil {
			buf := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, buf); err == nil {
				reply := s.reply(buf, 1<<16-1)
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
		}
		conn.Close()
	}
}

func (s *nameserver) reply(raw []byte, room int) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		s.Errorf("the nameserver got %x: %v", raw, err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, m)
	m.Response, m.Additionals = true, nil
	records, ok := s.records[m.Questions[0].Name.String()]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	m.Answers = records
	if s.mangle != nil {
		s.mangle(&m)
	}
	packed, err := m.Pack()
	if err != nil {
		s.Error(err)
	}
	if len(packed) > room {
		m.Answers, m.Truncated = nil, true
		packed, _ = m.Pack()
	}
	return packed
}

// know adds to what the nameserver knows.
func (s *nameserver) know(name string, records ...dnsmessage.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[name] = append(s.records[name], records...)
}

func (s *nameserver) names() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.asked {
		list = append(list, m.Questions[0].Name.String()+" "+m.Questions[0].Type.String())
	}
	return list
}

func header(name string, kind dnsmessage.Type, ttl uint32) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}
}

func recordA(name, addr string, ttl uint32) dnsmessage.Resource {
	a := netip.MustParseAddr(addr)
	if a.Is4() {
		return dnsmessage.Resource{Header: header(name, dnsmessage.TypeA, ttl), Body: &dnsmessage.AResource{A: a.As4()}}
	}
	return dnsmessage.Resource{Header: header(name, dnsmessage.TypeAAAA, ttl), Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

func alias(name, to string, ttl uint32) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: header(name, dnsmessage.TypeCNAME, ttl), Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)},
	}
}

// openings remembers what was opened.
type openings struct {
	mu   sync.Mutex
	open map[string]time.Duration
	full bool
}

func (o *openings) Open(addr netip.Addr, rules []int, d time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full {
		return false
	}
	o.open[fmt.Sprint(addr, rules)] = d
	return true
}

// told remembers what Refused was told.
type told struct {
	mu    sync.Mutex
	names []string
	// untold is the last number of others; deaf takes no name.
	untold int
	deaf   bool
}

func (t *told) add(name string, untold int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deaf {
		return false
	}
	t.names, t.untold = append(t.names, name), untold
	return true
}

func (t *told) list() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.names)
}

// lab is a resolver with a nameserver, and a client that asks the resolver.
type lab struct {
	testing.TB
	*Resolver
	server   *nameserver
	openings openings
	told     told
	client   *net.Resolver
}

func newLab(t testing.TB, allow string) *lab {
	t.Helper()
	l := &lab{TB: t, server: newNameserver(t), openings: openings{open: map[string]time.Duration{}}}
	l.Resolver = New(Config{
		Names: names(t, allow), Openings: &l.openings, Upstream: NewServers([]netip.AddrPort{l.server.addr}, new(net.Dialer).DialContext),
		Refused: l.told.add,
	})
	front, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := front.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := l.Answer(t.Context(), slices.Clone(buf[:n])); reply != nil {
				front.WriteTo(reply, from)
			}
		}
	})
	t.Cleanup(func() { front.Close(); done.Wait() })
	l.client = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if network != "udp" {
			return nil, errors.New("no DNS over " + network)
		}
		var d net.Dialer
		return d.DialContext(ctx, network, front.LocalAddr().String())
	}}
	return l
}

func names(t testing.TB, allow string) *policy.NameSet {
	t.Helper()
	p, err := policy.Parse(map[string]string{policy.AnnotationEgressAllow: allow})
	if err != nil {
		t.Fatal(err)
	}
	return p.NameSet()
}

// lookup asks as a program does, and returns the addresses in order.
func (l *lab) lookup(network, name string) []string {
	l.Helper()
	addrs, err := l.client.LookupNetIP(l.Context(), network, name)
	if err != nil {
		return nil
	}
	var list []string
	for _, a := range addrs {
		list = append(list, a.Unmap().String())
	}
	slices.Sort(list)
	return list
}

func (l *lab) opened() map[string]time.Duration {
	l.openings.mu.Lock()
	defer l.openings.mu.Unlock()
	return maps.Clone(l.openings.open)
}

func query1(t testing.TB, name string, kind dnsmessage.Type, room uint16) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if room > 0 {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(int(room), 0, false); err != nil {
			t.Fatal(err)
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// ask sends one query and reads the reply.
func (l *lab) ask(name string, kind dnsmessage.Type) dnsmessage.Message {
	l.Helper()
	return l.read(l.Answer(l.Context(), query1(l, name, kind, 0)))
}

func (l *lab) read(reply []byte) (m dnsmessage.Message) {
	l.Helper()
	if err := m.Unpack(reply); err != nil {
		l.Fatal(err)
	}
	if m.ID != 4711 || !m.Response {
		l.Fatalf("reply %+v", m.Header)
	}
	return m
}

func TestAnAllowedNameIsAskedForAndItsAddressesAreOpened(t *testing.T) {
	l := newLab(t, "10.0.0.0/8, api.example.org:443, *.example.org")
	l.server.know("api.example.org.",
		recordA("api.example.org.", "192.0.2.1", 60), recordA("api.example.org.", "192.0.2.2", 300),
	)
	if got := l.lookup("ip4", "API.example.org"); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
		t.Errorf("%v", got)
	}
	want := time.Minute + slack
	if o := l.opened(); len(o) != 2 || o["192.0.2.1 [1 2]"] != want || o["192.0.2.2 [1 2]"] != want {
		t.Errorf("opened %v", o)
	}
	if s := l.Stats(); s.Queries != 1 || s.Answered != 1 || len(l.told.list()) != 0 {
		t.Errorf("%+v, %q", s, l.told.list())
	}
}

func TestIPv6Addresses(t *testing.T) {
	l := newLab(t, "api.example.org")
	l.server.know("api.example.org.", recordA("api.example.org.", "2001:db8::1", 60))
	if got := l.lookup("ip6", "api.example.org"); !slices.Equal(got, []string{"2001:db8::1"}) {
		t.Errorf("%v", got)
	}
	if o := l.opened(); len(o) != 1 || o["2001:db8::1 [0]"] == 0 {
		t.Errorf("opened %v", o)
	}
}

func TestAnotherNameDoesNotExistAndIsNotAskedFor(t *testing.T) {
	l := newLab(t, "api.example.org")
	for range 3 {
		if got := l.lookup("ip4", "secret.evil.example"); got != nil {
			t.Errorf("%v", got)
		}
	}
	if asked := l.server.names(); len(asked) != 0 {
		t.Errorf("the nameserver was asked for %v", asked)
	}
	if !slices.Equal(l.told.list(), []string{"secret.evil.example"}) {
		t.Errorf("told of %q", l.told.list())
	}
	if n := l.RefusedNames()["secret.evil.example"]; n != 3 || l.Stats().Refused != 3 {
		t.Errorf("refused %d times, %+v", n, l.Stats())
	}
	m := l.read(l.Answer(t.Context(), query1(t, "other.example.", dnsmessage.TypeA, 1232)))
	if m.RCode != dnsmessage.RCodeNameError || len(m.Additionals) != 1 {
		t.Fatalf("%+v", m)
	}
	options := m.Additionals[0].Body.(*dnsmessage.OPTResource).Options
	if len(options) != 1 || options[0].Code != 15 || !slices.Equal(options[0].Data, []byte{0, 15}) {
		t.Errorf("extended error: %+v", options)
	}
}

// A pod's search list has names before the one that is meant. Each must not exist, rather than be refused, or a
// client gives up.
func TestASearchListIsGoneThrough(t *testing.T) {
	l := newLab(t, "api.example.org")
	l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", 60))
	for _, name := range []string{"api.example.org.default.svc.cluster.local.", "api.example.org.svc.cluster.local."} {
		if m := l.ask(name, dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%s: %v", name, m.RCode)
		}
	}
	if m := l.ask("api.example.org.", dnsmessage.TypeA); m.RCode != 0 || len(m.Answers) != 1 {
		t.Errorf("%+v", m)
	}
}

func TestAliasesAreFollowed(t *testing.T) {
	l := newLab(t, "www.example.org:443")
	l.server.know("www.example.org.",
		// Out of order, and with records that are nobody's business.
		recordA("edge.cdn.example.", "192.0.2.9", 300), recordA("other.example.", "192.0.2.66", 300),
		alias("www.cdn.example.", "EDGE.cdn.example.", 40), alias("www.example.org.", "www.cdn.example.", 3600),
		recordA("www.example.org.", "192.0.2.67", 300), // beside an alias: not the end of the chain
	)
	m := l.ask("www.example.org.", dnsmessage.TypeA)
	var got []string
	for _, r := range m.Answers {
		got = append(got, fmt.Sprint(r.Header.Name, " ", r.Header.Type, " ", r.Header.TTL))
	}
	want := []string{"www.example.org. TypeCNAME 40", "www.cdn.example. TypeCNAME 40", "edge.cdn.example. TypeA 40"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if o := l.opened(); len(o) != 1 || o["192.0.2.9 [0]"] != 40*time.Second+slack {
		t.Errorf("opened %v", o)
	}
}

func TestAliasesThatDoNotEnd(t *testing.T) {
	l := newLab(t, "www.example.org")
	l.server.know("www.example.org.",
		alias("www.example.org.", "a.example.", 60), alias("a.example.", "www.example.org.", 60),
		recordA("a.example.", "192.0.2.1", 60),
	)
	if m := l.ask("www.example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure || len(m.Answers) != 0 {
		t.Errorf("%+v", m)
	}
	if len(l.opened()) != 0 || l.Stats().Failed != 1 {
		t.Errorf("opened %v, %+v", l.opened(), l.Stats())
	}
}

func TestTimesHaveAFloorAndABound(t *testing.T) {
	for ttl, want := range map[uint32]struct {
		open time.Duration
		told uint32
	}{
		0: {MinOpen + slack, 0}, 60: {time.Minute + slack, 60}, 1 << 31: {MaxOpen + slack, 3600},
	} {
		l := newLab(t, "api.example.org")
		l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", ttl))
		m := l.ask("api.example.org.", dnsmessage.TypeA)
		if len(m.Answers) != 1 || m.Answers[0].Header.TTL != want.told || l.opened()["192.0.2.1 [0]"] != want.open {
			t.Errorf("TTL %d: %v, opened %v", ttl, m.Answers, l.opened())
		}
	}
}

func TestANameCannotOpenWhatIsOnTheNode(t *testing.T) {
	l := newLab(t, "api.example.org")
	bad := []string{"127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"}
	bad6 := []string{"::1", "fe80::1", "::", "ff02::1", "::ffff:192.0.2.1",
		// Which stand for some of those above.
		"64:ff9b::169.254.169.254", "64:ff9b:1::127.0.0.1", "2002:7f00:1::1", "2002:a9fe:a9fe::"}
	for _, a := range append(bad, "192.0.2.1") {
		l.server.know("api.example.org.", recordA("api.example.org.", a, 60))
	}
	if m := l.ask("api.example.org.", dnsmessage.TypeA); len(m.Answers) != 1 {
		t.Errorf("%v", m.Answers)
	}
	for _, a := range bad6 {
		l.server.know("api.example.org.", dnsmessage.Resource{Header: header("api.example.org.", dnsmessage.TypeAAAA, 60),
			Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(a).As16()}})
	}
	if m := l.ask("api.example.org.", dnsmessage.TypeAAAA); len(m.Answers) != 0 || m.RCode != 0 {
		t.Errorf("%v", m)
	}
	if o := l.opened(); len(o) != 1 || o["192.0.2.1 [0]"] == 0 {
		t.Errorf("opened %v", o)
	}
	if n := l.Stats().LeftOut; n != uint64(len(bad)+len(bad6)) {
		t.Errorf("%d left out", n)
	}
}

func TestOtherTypes(t *testing.T) {
	l := newLab(t, "example.org")
	l.server.know("example.org.",
		dnsmessage.Resource{Header: header("example.org.", dnsmessage.TypeTXT, 60), Body: &dnsmessage.TXTResource{TXT: []string{"hello"}}},
		dnsmessage.Resource{Header: header("example.org.", dnsmessage.TypeMX, 60), Body: &dnsmessage.MXResource{Pref: 1, MX: dnsmessage.MustNewName("mail.example.org.")}},
		recordA("example.org.", "192.0.2.1", 60),
	)
	if m := l.ask("example.org.", dnsmessage.TypeTXT); len(m.Answers) != 1 {
		t.Errorf("%v", m.Answers)
	}
	if m := l.ask("example.org.", dnsmessage.TypeMX); len(m.Answers) != 1 {
		t.Errorf("%v", m.Answers)
	}
	for _, kind := range []dnsmessage.Type{65, dnsmessage.TypeALL, dnsmessage.TypeAXFR, dnsmessage.TypeOPT} {
		if m := l.ask("example.org.", kind); m.RCode != 0 || len(m.Answers) != 0 {
			t.Errorf("%v: %v", kind, m)
		}
	}
	if len(l.opened()) != 0 {
		t.Errorf("opened %v", l.opened())
	}
	if asked := l.server.names(); len(asked) != 2 {
		t.Errorf("asked %v", asked)
	}
}

// An answer that a client could only get whole over TCP comes whole from the nameserver, and with as many addresses as
// fit to the guest: those, and no others, are open.
func TestALongAnswer(t *testing.T) {
	l := newLab(t, "api.example.org")
	for i := range 200 {
		l.server.know("api.example.org.", recordA("api.example.org.", fmt.Sprintf("192.0.2.%d", i), 60))
	}
	for _, room := range []uint16{0, 600, 4096} {
		clear(l.openings.open)
		reply := l.Answer(t.Context(), query1(t, "api.example.org.", dnsmessage.TypeA, room))
		m := l.read(reply)
		most := min(max(int(room), minReply), maxReply)
		if len(reply) > most || len(reply) < most-40 || m.Truncated || len(m.Answers) != len(l.opened()) {
			t.Errorf("room %d: %d bytes, %d addresses, %d opened", room, len(reply), len(m.Answers), len(l.opened()))
		}
	}
	text := strings.Repeat("x", 200)
	for range 10 {
		l.server.know("api.example.org.", dnsmessage.Resource{
			Header: header("api.example.org.", dnsmessage.TypeTXT, 60), Body: &dnsmessage.TXTResource{TXT: []string{text}}})
	}
	if m := l.ask("api.example.org.", dnsmessage.TypeTXT); !m.Truncated {
		t.Error("text that has no room is not said to be cut")
	}
}

func TestOnlyTheQuestionGoesOut(t *testing.T) {
	l := newLab(t, "api.example.org")
	raw := query1(t, "aPi.eXample.org.", dnsmessage.TypeA, 1232)
	raw = append(raw, "smuggled"...)
	l.Answer(t.Context(), raw)
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	if len(l.server.asked) != 1 {
		t.Fatalf("%+v", l.server.asked)
	}
	m := l.server.asked[0]
	if m.ID == 4711 || m.Questions[0].Name.String() != "api.example.org." || len(m.Additionals) != 1 ||
		len(m.Additionals[0].Body.(*dnsmessage.OPTResource).Options) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestAnswersToOtherQuestionsAreNotTaken(t *testing.T) {
	for what, mangle := range map[string]func(*dnsmessage.Message){
		"another id":       func(m *dnsmessage.Message) { m.ID++ },
		"another name":     func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.example.org.") },
		"another type":     func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA },
		"no answer":        func(m *dnsmessage.Message) { m.Response = false },
		"server failure":   func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure },
		"refused upstream": func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, "api.example.org")
			l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", 60))
			l.server.mu.Lock()
			l.server.mangle = mangle
			l.server.mu.Unlock()
			if m := l.ask("api.example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure || len(m.Answers) != 0 {
				t.Errorf("%+v", m)
			}
			if len(l.opened()) != 0 {
				t.Errorf("opened %v", l.opened())
			}
		})
	}
}

func TestTheNextNameserverIsAsked(t *testing.T) {
	t.Parallel()
	l := newLab(t, "api.example.org")
	l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", 60))
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	l.upstream = NewServers([]netip.AddrPort{netip.MustParseAddrPort(silent.LocalAddr().String()), l.server.addr},
		new(net.Dialer).DialContext)
	if m := l.ask("api.example.org.", dnsmessage.TypeA); len(m.Answers) != 1 {
		t.Errorf("%+v", m)
	}
}

func TestNoRoomForAddressesIsAFailure(t *testing.T) {
	l := newLab(t, "api.example.org")
	l.openings.full = true
	l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", 60))
	if m := l.ask("api.example.org.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeServerFailure || len(m.Answers) != 0 {
		t.Errorf("the guest learns an address that is not open: %+v", m)
	}
}

func TestMalformedQueries(t *testing.T) {
	good := query1(t, "api.example.org.", dnsmessage.TypeA, 0)
	with := func(at int, bytes ...byte) []byte {
		m := slices.Clone(good)
		copy(m[at:], bytes)
		return m
	}
	none := dnsmessage.RCode(255)
	l := newLab(t, "api.example.org, *.internal.example")
	for what, c := range map[string]struct {
		message []byte
		want    dnsmessage.RCode
	}{
		"nothing":              {nil, none},
		"half a header":        {good[:11], none},
		"a response":           {with(2, 0x80), none},
		"an update":            {with(2, 5<<3), dnsmessage.RCodeNotImplemented},
		"no question":          {with(4, 0, 0), dnsmessage.RCodeFormatError},
		"two questions":        {with(4, 0, 2), dnsmessage.RCodeFormatError},
		"an answer in it":      {with(6, 0, 1), dnsmessage.RCodeFormatError},
		"an authority in it":   {with(8, 0, 1), dnsmessage.RCodeFormatError},
		"many additional ones": {append(with(10, 0, 9), make([]byte, 99)...), dnsmessage.RCodeFormatError},
		"cut short":            {good[:len(good)-1], dnsmessage.RCodeFormatError},
		"of class CHAOS":       {with(len(good)-1, 3), dnsmessage.RCodeRefused},
		"for the root":         {append(append(slices.Clone(good[:12]), 0), good[len(good)-4:]...), dnsmessage.RCodeRefused},
		"a name in a circle":   {append(slices.Clone(good[:12]), 0xc0, 12, 0, 1, 0, 1), dnsmessage.RCodeFormatError},
		"a space in a label":   {with(13, ' '), dnsmessage.RCodeRefused},
		"a null in a label":    {with(13, 0), dnsmessage.RCodeRefused},
	} {
		reply := l.Answer(t.Context(), c.message)
		if c.want == none {
			if reply != nil {
				t.Errorf("%s: it is answered", what)
			}
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(reply); err != nil || m.RCode != c.want || len(m.Answers) != 0 {
			t.Errorf("%s: %v %v, want %v", what, m.RCode, err, c.want)
		}
	}
	if asked := l.server.names(); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
}

// A label may hold any byte. One that holds a dot must not pass for two labels.
func TestADotInALabelIsNoEndOfALabel(t *testing.T) {
	l := newLab(t, "*.internal.example")
	name := []byte("\x0aa.internal\x07example\x00")
	m := append(append(query1(t, ".", dnsmessage.TypeA, 0)[:12], name...), 0, 1, 0, 1)
	var r dnsmessage.Message
	if err := r.Unpack(l.Answer(t.Context(), m)); err != nil || r.RCode == dnsmessage.RCodeSuccess {
		t.Errorf("%v %v", r, err)
	}
	if asked := l.server.names(); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
}

// stuck is an Upstream that answers when it is let go.
type stuck struct{ started, free chan struct{} }

func (s stuck) Exchange(ctx context.Context, _ dnsmessage.Question) ([]byte, error) {
	s.started <- struct{}{}
	select {
	case <-s.free:
	case <-ctx.Done():
	}
	return nil, errors.New("stuck")
}

func TestQueriesUnderWayAreBounded(t *testing.T) {
	s := stuck{make(chan struct{}, 2*maxPending), make(chan struct{})}
	r := New(Config{Names: names(t, "api.example.org"), Openings: &openings{}, Upstream: s})
	q := query1(t, "api.example.org.", dnsmessage.TypeA, 0)
	var done sync.WaitGroup
	for range maxPending {
		done.Go(func() { r.Answer(t.Context(), q) })
	}
	for range maxPending {
		<-s.started
	}
	if r.Answer(t.Context(), q) != nil || r.Stats().Overload != 1 {
		t.Errorf("one more is answered: %+v", r.Stats())
	}
	close(s.free)
	done.Wait()
	if r.Answer(t.Context(), q) == nil {
		t.Error("none is answered after that")
	}
}

func TestTheRateOfQueriesIsBounded(t *testing.T) {
	l := newLab(t, "api.example.org")
	l.server.know("api.example.org.", recordA("api.example.org.", "192.0.2.1", 60))
	q := query1(t, "api.example.org.", dnsmessage.TypeA, 0)
	start := time.Now()
	for range 3 * queryBurst {
		l.Answer(t.Context(), q)
	}
	most := queryBurst + int(time.Since(start).Seconds()*queryRate) + 1
	if n := len(l.server.names()); n > most || n < queryBurst {
		t.Errorf("%d queries went out, the most is %d", n, most)
	}
}

func TestRefusedNamesAreBounded(t *testing.T) {
	l := newLab(t, "api.example.org")
	for i := range 3 * maxRefused {
		l.Answer(t.Context(), query1(t, fmt.Sprintf("x%d.evil.example.", i), dnsmessage.TypeA, 0))
	}
	if n := len(l.RefusedNames()); n != maxRefused {
		t.Errorf("%d names are remembered", n)
	}
	if n := len(l.told.list()); n < tellBurst || n > tellBurst+5 {
		t.Errorf("told of %d names", n)
	}
	if n := l.Stats().Refused; n != 3*maxRefused {
		t.Errorf("%d counted", n)
	}
}

// A name counts as told when it was: until then it is told of when it comes again, and the others that were not are counted.
func TestNameThatWasNotTakenIsToldOfAgain(t *testing.T) {
	l := newLab(t, "api.example.org")
	ask := func(name string) { l.Answer(t.Context(), query1(t, name, dnsmessage.TypeA, 0)) }
	l.told.deaf = true
	ask("a.evil.example.")
	ask("b.evil.example.")
	l.told.deaf = false
	ask("c.evil.example.")
	if l.told.untold != 2 {
		t.Errorf("%d others are said not to be told of", l.told.untold)
	}
	ask("a.evil.example.")
	ask("a.evil.example.")
	if got := l.told.list(); !slices.Equal(got, []string{"c.evil.example", "a.evil.example"}) || l.told.untold != 1 {
		t.Errorf("told of %q, and not of %d others", got, l.told.untold)
	}
}

func TestWithoutNamesAllAreAskedForAndNothingIsOpened(t *testing.T) {
	s := newNameserver(t)
	s.know("any.example.org.", recordA("any.example.org.", "192.0.2.7", 60))
	r := New(Config{Upstream: NewServers([]netip.AddrPort{s.addr}, new(net.Dialer).DialContext)})
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{
		{Name: dnsmessage.MustNewName("any.example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(r.Answer(t.Context(), packed)); err != nil || len(m.Answers) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	if st := r.Stats(); st.Answered != 1 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}
