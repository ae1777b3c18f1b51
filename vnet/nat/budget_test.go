package nat

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"krun.dev/krunpod/vnet/gateway"
)

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// endpoints is how many connections the stack of the gateway has, in whatever state.
func (g *guest) endpoints() int {
	return len(g.gateway.stack.RegisteredEndpoints()) + len(g.gateway.stack.CleanupEndpoints())
}

// A connection that the gateway has closed has its memory for as long as the guest takes for the rest of it, so it counts.
func TestConnectionCountsUntilNothingIsLeftOfIt(t *testing.T) {
	rest := make([]byte, windowSize/2)
	g := newGuest(t, gateway.Config{}, gateway.Services{80: func(c net.Conn) { c.Write(rest) }})
	before := g.endpoints()
	stuck, err := g.dial(g.config.Address().Addr().String() + ":80")
	must(t, err)
	must(t, stuck.(*gonet.TCPConn).SetReadDeadline(time.Now().Add(patience)))
	used := g.gateway.outward.connections
	eventually(t, "it does not count", func() bool { return len(used) == 1 })
	time.Sleep(50 * time.Millisecond) // the service has written, and returned
	if len(used) != 1 {
		t.Error("it does not count while the guest has not read what was sent")
	}
	if got, err := io.ReadAll(stuck); err != nil || len(got) != len(rest) {
		t.Errorf("the guest read %d bytes, %v", len(got), err)
	}
	stuck.Close()
	eventually(t, "it counts though it is over", func() bool { return len(used) == 0 })
	eventually(t, "something is left in the stack", func() bool { return g.endpoints() <= before })
}

// A guest that takes nothing and answers all the same would have its connection for ever.
func TestConnectionThatTheGuestDoesNotLetEndIsReset(t *testing.T) {
	took := make(chan time.Duration, 1)
	g := newGuest(t, gateway.Config{}, gateway.Services{80: func(c net.Conn) {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for err := error(nil); err == nil; {
			_, err = c.Write(make([]byte, windowSize))
		}
		began := time.Now()
		c.(*conn).finish(context.Background(), 200*time.Millisecond)
		took <- time.Since(began)
	}})
	before := g.endpoints()
	_, err := g.dial(g.config.Address().Addr().String() + ":80")
	must(t, err)
	if d := <-took; d < 200*time.Millisecond || d > patience/2 {
		t.Errorf("it ended after %v", d)
	}
	eventually(t, "something is left in the stack", func() bool { return g.endpoints() <= before })
}

func TestConnectionOnWhichNothingComesEnds(t *testing.T) {
	g := newGuest(t, gateway.Config{}, nil)
	g.gateway.idle = 100 * time.Millisecond
	ended := make(chan error, 1)
	at := listen(t, world+":0", func(c net.Conn) {
		_, err := io.ReadAll(c)
		ended <- err
	})
	c, err := g.dial(at)
	must(t, err)
	for range 5 { // and not before
		time.Sleep(50 * time.Millisecond)
		_, err := c.Write([]byte("x"))
		must(t, err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it lasts")
	}
}

// Whoever reaches a forwarded port can have no more than what is for them.
func TestOutsidersDoNotTakeTheGuestsConnections(t *testing.T) {
	tcpAt, udpAt := freePort(t), freePort(t)
	g := newGuest(t, gateway.Config{Forwards: []gateway.Forward{
		{Protocol: "tcp", Listen: tcpAt, Guest: 80}, {Protocol: "udp", Listen: udpAt, Guest: 80},
	}}, nil)
	l, err := gonet.ListenTCP(g.Stack, tcpip.FullAddress{NIC: nic, Port: 80}, ipv4.ProtocolNumber)
	must(t, err)
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	for range maxForwarded + 100 {
		if c, err := net.Dial("tcp", tcpAt.String()); err == nil { // or reset, when it is one too many
			defer c.Close()
		}
		u, err := net.Dial("udp", udpAt.String())
		must(t, err)
		defer u.Close()
		_, err = u.Write([]byte("x"))
		must(t, err)
	}
	eventually(t, "the forwards are not full", func() bool {
		return len(g.gateway.inward.connections) == maxForwarded && len(g.gateway.inward.sessions) == maxForwardedPeers
	})
	at := listen(t, world+":0", func(c net.Conn) { fmt.Fprint(c, "hello") })
	for range 10 {
		c, err := g.dial(at)
		must(t, err)
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// A port of the guest at which nobody listens yet refuses a datagram, and the session is there for the next.
func TestSessionOutlivesARefusal(t *testing.T) {
	at := freePort(t)
	g := newGuest(t, gateway.Config{Forwards: []gateway.Forward{{Protocol: "udp", Listen: at, Guest: 80}}}, nil)
	c, err := net.Dial("udp", at.String())
	must(t, err)
	defer c.Close()
	refusals := g.gateway.stack.Stats().ICMP.V4.PacketsReceived.DstUnreachable
	for n := range uint64(5) {
		_, err = c.Write([]byte("x"))
		must(t, err)
		eventually(t, "nobody refuses it", func() bool { return refusals.Value() > n })
	}
	time.Sleep(50 * time.Millisecond) // nothing tells that it goes on
	if n := len(g.gateway.inward.sessions); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
