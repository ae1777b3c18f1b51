package bridge

import (
	"bytes"
	"testing"

	"krun.dev/krunpod/vnet/packet"
	. "krun.dev/krunpod/vnet/vnettest"
)

// FuzzReply answers whatever frame with whatever message: the answer is a frame that is well-formed, goes back where the query came
// from, and holds the message.
func FuzzReply(f *testing.F) {
	f.Add(IP(f, Guest4, Peer4, UDP(5000, 53), Data("query")), []byte("answer"))
	f.Add(IP(f, Guest6, Peer6, UDP(5000, 53), Data("query")), []byte("answer"))
	f.Add(IP(f, Guest4, Peer4, UDP(5000, 53)), []byte{})
	f.Add(append(IP(f, Guest4, Peer4, UDP(5000, 53), Data("query")), "padding"...), bytes.Repeat([]byte{1}, 1232))
	f.Fuzz(func(t *testing.T, frame, message []byte) {
		var q, a packet.Packet
		if len(message) > 1232 || packet.Parse(frame, &q) != packet.WellFormed || q.Protocol != packet.UDPProtocol || q.Fragment.Split() {
			return // no query: the firewall does not give it to the resolver
		}
		if len(payload(frame)) > len(frame)-q.Transport {
			t.Fatal("there is more in the query than in its frame")
		}
		data := answer(frame, message)
		if (data == nil) != (message == nil || !q.Answerable()) {
			t.Fatalf("%x is answered with %x", frame, data)
		}
		if data == nil {
			return
		}
		reply := data[headerSize:]
		if reason := packet.Parse(reply, &a); reason != packet.WellFormed {
			if q.FromPort == 0 && reason == packet.BadUDP {
				return // to a port that nobody has
			}
			t.Fatalf("the answer has a %v: %x", reason, reply)
		}
		if a.From != q.To || a.To != q.From || a.FromPort != q.ToPort || a.ToPort != q.FromPort || a.Destination != q.Source {
			t.Fatalf("the answer is %+v", a)
		}
		if !bytes.Equal(payload(reply), message) {
			t.Fatalf("%x became %x", message, payload(reply))
		}
	})
}
