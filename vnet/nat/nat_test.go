package nat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"krun.dev/krunpod/agent/api/stream"
	"krun.dev/krunpod/vnet/gateway"
)

func TestConnectionsLeaveThroughTheHost(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	at := listen(t, world+":0", func(c net.Conn) {
		data, _ := io.ReadAll(c) // until the guest has closed its half
		fmt.Fprintf(c, "%d bytes from %s", len(data), c.RemoteAddr().(*net.TCPAddr).IP)
	})
	c, err := g.dial(at)
	must(t, err)
	const size = 3 << 20 // more than all buffers on the way
	if _, err := c.Write(bytes.Repeat([]byte{7}, size)); err != nil {
		t.Fatal(err)
	}
	must(t, c.(*gonet.TCPConn).CloseWrite())
	if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprintf("%d bytes from %s", size, world) {
		t.Errorf("%q, %v", got, err)
	}
}

// Half of an answer must not pass for the whole.
func TestConnectionThatBreaksIsNoEnd(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	seen := make(chan error, 1)
	at := listen(t, world+":0", func(c net.Conn) {
		fmt.Fprint(c, "half")
		_, err := io.ReadFull(c, make([]byte, 1))
		if err == nil {
			stream.Reset(c.(*net.TCPConn))
			return
		}
		seen <- err
	})
	c, err := g.dial(at)
	must(t, err)
	_, err = io.ReadFull(c, make([]byte, 4))
	must(t, err)
	_, err = c.Write([]byte{1})
	must(t, err)
	if data, err := io.ReadAll(c); err == nil {
		t.Errorf("the host's end broke, and the guest sees %q and an end", data)
	}
	var wq waiter.Queue
	connected, notified := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&connected)
	ep, failed := g.Stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if failed != nil {
		t.Fatal(failed)
	}
	if failed := ep.Connect(full(at)); failed != nil {
		<-notified // it is not connected at once
	}
	ep.Abort()
	if err := <-seen; errors.Is(err, io.EOF) {
		t.Error("the guest's end broke, and the host sees an end")
	}
}

func TestRefusedConnectionIsRefusedAtOnce(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	began := time.Now()
	if _, err := g.dial(world + ":1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
}

func TestConnectionsOfAGuestAreBounded(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	at := listen(t, world+":0", func(c net.Conn) { io.Copy(io.Discard, c) })
	for range maxConnections {
		if _, err := g.dial(at); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.dial(at); err == nil {
		t.Errorf("it has more than %d connections", maxConnections)
	}
}

func TestDatagramsFindTheirWayBack(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	host, err := net.ListenPacket("udp", world+":0")
	must(t, err)
	defer host.Close()
	go func() {
		data := make([]byte, maxDatagram)
		for {
			n, from, err := host.ReadFrom(data)
			if err != nil {
				return
			}
			host.WriteTo(append([]byte("got "), data[:n]...), from)
		}
	}()
	to := full(host.LocalAddr().String())
	for i := range 3 {
		c, err := gonet.DialUDP(g.Stack, nil, &to, ipv4.ProtocolNumber)
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(patience)))
		for range 2 {
			fmt.Fprintf(c, "%d", i)
			buf := make([]byte, 100)
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != fmt.Sprintf("got %d", i) {
				t.Errorf("%q, %v", buf[:n], err)
			}
		}
	}
}

func TestSessionsOfAGuestAreBounded(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	host, err := net.ListenPacket("udp", world+":0")
	must(t, err)
	defer host.Close()
	to := full(host.LocalAddr().String())
	for range maxSessions + 20 {
		c, err := gonet.DialUDP(g.Stack, nil, &to, ipv4.ProtocolNumber)
		must(t, err)
		defer c.Close()
		_, err = c.Write([]byte("x"))
		must(t, err)
	}
	sources := map[string]bool{}
	for len(sources) < maxSessions {
		must(t, host.SetReadDeadline(time.Now().Add(patience)))
		_, from, err := host.ReadFrom(make([]byte, 1))
		if err != nil {
			t.Fatalf("%d sessions: %v", len(sources), err)
		}
		sources[from.String()] = true
	}
	must(t, host.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	if _, from, err := host.ReadFrom(make([]byte, 1)); err == nil {
		t.Errorf("one more than %d sessions: %v", maxSessions, from)
	}
}

// freePort is one of the host that nobody listens at, soon.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestForwardsLeadToTheGuest(t *testing.T) {
	at, dgram := freePort(t), freePort(t)
	g := newGuest(t, gateway.Config{Forwards: []gateway.Forward{{Protocol: "tcp", Listen: at, Guest: 80}, {Protocol: "udp", Listen: dgram, Guest: 53}}}, nil)

	// Nobody listens in the guest yet.
	c, err := net.Dial("tcp", at.String())
	if err == nil { // and not reset yet
		must(t, c.SetDeadline(time.Now().Add(patience)))
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d bytes from nobody, %v", n, err)
		}
		c.Close()
	}

	l, err := gonet.ListenTCP(g.Stack, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	must(t, err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello ", c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	c, err = net.Dial("tcp", at.String())
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello "+g.config.Address().Addr().String() {
		t.Errorf("%q, %v", got, err)
	}

	own := full(g.config.Guest().Addr().String() + ":53")
	u, err := gonet.DialUDP(g.Stack, &own, nil, ipv4.ProtocolNumber)
	must(t, err)
	go func() {
		data := make([]byte, 100)
		for {
			n, from, err := u.ReadFrom(data)
			if err != nil {
				return
			}
			u.WriteTo(append([]byte("re "), data[:n]...), from)
		}
	}()
	for _, name := range []string{"a", "b"} {
		c, err := net.Dial("udp", dgram.String())
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(patience)))
		fmt.Fprint(c, name)
		data := make([]byte, 100)
		if n, err := c.Read(data); err != nil || string(data[:n]) != "re "+name {
			t.Errorf("%q, %v", data[:n], err)
		}
		c.Close()
	}
}

func TestServiceAnswersAtTheGatewaysAddress(t *testing.T) {
	g := newGuest(t, gateway.Config{}, gateway.Services{80: func(c net.Conn) {
		fmt.Fprint(c, "service")
		c.Close()
	}})
	c, err := g.dial(g.config.Address().Addr().String() + ":80")
	must(t, err)
	if got, err := io.ReadAll(c); err != nil || string(got) != "service" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPortThatIsTakenIsNamed(t *testing.T) {
	at := listen(t, "127.0.0.1:0", func(net.Conn) {})
	f := gateway.Forward{Protocol: "tcp", Listen: netip.MustParseAddrPort(at), Guest: 80}
	if g, err := Open(gateway.Config{Forwards: []gateway.Forward{f}}, nil); err == nil || g != nil || !strings.Contains(err.Error(), f.String()) {
		t.Errorf("%v", err)
	}
}

func TestClosedGatewayLeavesNoPort(t *testing.T) {
	at := freePort(t)
	c := gateway.Config{Forwards: []gateway.Forward{{Protocol: "tcp", Listen: at, Guest: 80}}}
	for range 2 {
		g, err := Open(c, nil)
		must(t, err)
		must(t, g.Close())
		must(t, g.Close())
		if _, err := g.Read(make([]byte, 2000)); err != io.EOF {
			t.Errorf("a frame from a closed gateway: %v", err)
		}
		if _, err := g.Write(make([]byte, 100)); err == nil {
			t.Error("a closed gateway takes a frame")
		}
	}
}

func TestGuestLeasesItsAddress(t *testing.T) {
	c := gateway.Config{Subnet: netip.MustParsePrefix("10.5.0.0/24")}
	g, err := Open(c, nil)
	must(t, err)
	defer g.Close()
	mac := net.HardwareAddr(gateway.GuestMAC[:])
	discover, err := dhcpv4.NewDiscovery(mac)
	must(t, err)
	offer := g.offer(discover)
	if offer == nil || offer.MessageType() != dhcpv4.MessageTypeOffer || offer.YourIPAddr.String() != "10.5.0.2" {
		t.Fatalf("%v", offer)
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	must(t, err)
	ack := g.offer(request)
	if ack.MessageType() != dhcpv4.MessageTypeAck || ack.YourIPAddr.String() != "10.5.0.2" || ack.Router()[0].String() != "10.5.0.1" ||
		ack.DNS()[0].String() != "10.5.0.1" || ack.SubnetMask().String() != "ffffff00" || ack.IPAddressLeaseTime(0) != leaseTime {
		t.Errorf("%v", ack)
	}
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 5, 0, 9)))
	if nak := g.offer(request); nak.MessageType() != dhcpv4.MessageTypeNak || !nak.YourIPAddr.IsUnspecified() {
		t.Errorf("another address: %v", nak)
	}
	request.UpdateOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 5, 0, 9)))
	if reply := g.offer(request); reply != nil {
		t.Errorf("to another server: %v", reply)
	}
}

func TestLeaseComesOverTheNetwork(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	own, server := full(g.config.Guest().Addr().String()+":68"), full(g.config.Address().Addr().String()+":67")
	c, err := gonet.DialUDP(g.Stack, &own, &server, ipv4.ProtocolNumber)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	renew, err := dhcpv4.New(dhcpv4.WithHwAddr(gateway.GuestMAC[:]), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithClientIP(g.config.Guest().Addr().AsSlice()))
	must(t, err)
	_, err = c.Write(renew.ToBytes())
	must(t, err)
	data := make([]byte, 2000)
	n, err := c.Read(data)
	must(t, err)
	if m, err := dhcpv4.FromBytes(data[:n]); err != nil || m.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("%v, %v", m, err)
	}
}

// Who asks for an address that it had elsewhere has none yet (INIT-REBOOT, RFC 2131 section 4.3.2).
func TestRefusedLeaseComesOverTheNetwork(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	own, server := tcpip.FullAddress{Port: dhcpv4.ClientPort}, &net.UDPAddr{IP: g.config.Address().Addr().AsSlice(), Port: dhcpv4.ServerPort}
	c, err := gonet.DialUDP(g.Stack, &own, nil, ipv4.ProtocolNumber)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	again, err := dhcpv4.New(dhcpv4.WithHwAddr(gateway.GuestMAC[:]), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 2, 3))))
	must(t, err)
	_, err = c.WriteTo(again.ToBytes(), server)
	must(t, err)
	data := make([]byte, 2000)
	n, err := c.Read(data)
	must(t, err)
	if m, err := dhcpv4.FromBytes(data[:n]); err != nil || m.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("%v, %v", m, err)
	}
}

// FuzzDHCP wants of each answer that it fits into a frame, and gives away no address but the guest's.
func FuzzDHCP(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform} {
		m, err := dhcpv4.New(dhcpv4.WithHwAddr(gateway.GuestMAC[:]), dhcpv4.WithMessageType(kind))
		must(f, err)
		f.Add(m.ToBytes())
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 127, 9)))
		f.Add(m.ToBytes())
	}
	g, err := Open(gateway.Config{}, nil)
	must(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := dhcpv4.FromBytes(data)
		if err != nil {
			return
		}
		if reply := g.offer(m); reply != nil {
			if n := len(reply.ToBytes()); n > gateway.MTU-28 {
				t.Errorf("an answer of %d bytes", n)
			}
			if a := reply.YourIPAddr; !a.IsUnspecified() && a.String() != g.config.Guest().Addr().String() {
				t.Errorf("it gives away %v", a)
			}
		}
	})
}
