package nat

import (
	"io"
	"net"
	"testing"

	"krun.dev/krunpod/vnet/gateway"
)

// BenchmarkThroughput sends by TCP from the guest to the host, and back, over the gateway and the stack of the guest.
func BenchmarkThroughput(b *testing.B) {
	const chunk = 1 << 20
	data := make([]byte, chunk)
	for _, out := range []bool{true, false} {
		b.Run(map[bool]string{true: "out", false: "in"}[out], func(b *testing.B) {
			g := newGuest(b, gateway.Config{}, nil)
			at := listen(b, world+":0", func(c net.Conn) {
				if out {
					io.Copy(io.Discard, c)
					return
				}
				for {
					if _, err := c.Write(data); err != nil {
						return
					}
				}
			})
			c, err := g.dial(at)
			must(b, err)
			b.SetBytes(chunk)
			b.ReportAllocs()
			for b.Loop() {
				if out {
					_, err = c.Write(data)
				} else {
					_, err = io.ReadFull(c, data)
				}
				must(b, err)
			}
		})
	}
}
