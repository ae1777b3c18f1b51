package nat

import (
	"net"
	"runtime"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"krun.dev/krunpod/vnet/gateway"
)

// All that a gateway began ends with it: a program may have many, one after the other.
func TestClosedGatewayLeavesNothingRunning(t *testing.T) {
	one := func() {
		at := freePort(t)
		c := gateway.Config{Forwards: []gateway.Forward{{Protocol: "tcp", Listen: at, Guest: 80}, {Protocol: "udp", Listen: at, Guest: 80}}}
		t.Run("", func(t *testing.T) {
			g := newGuest(t, c, gateway.Services{80: func(conn net.Conn) { conn.Close() }})
			served := listen(t, world+":0", func(conn net.Conn) { conn.Read(make([]byte, 1)) })
			_, err := g.dial(served)
			must(t, err)
			to := full(world + ":9")
			u, err := gonet.DialUDP(g.Stack, nil, &to, ipv4.ProtocolNumber)
			must(t, err)
			_, err = u.Write([]byte("x"))
			must(t, err)
			d, err := net.Dial("udp", at.String())
			must(t, err)
			defer d.Close()
			_, err = d.Write([]byte("x"))
			must(t, err)
		})
	}
	one()
	before := runtime.NumGoroutine()
	for range 5 {
		one()
	}
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before: %s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
