package bridge

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/vnettest"
)

// slowly puts a tap before the guest whose reader takes a frame at a time, and a while for each: as a guest does on a host that has
// little time for it. It counts them. The tap is the bridge's end, in the place of krun0.
func (l *lab) slowly(each time.Duration) (frames *atomic.Uint64) {
	l.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = slowTap, netlab.MTU
	tap := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI, Queues: 1}
	l.Pod.Pod.In(func() error { return netlink.LinkAdd(tap) }) // it is of the thread's namespace
	l.Cleanup(func() { tap.Fds[0].Close() })
	// As libkrun sets it for a guest of ours: TUN_F_CSUM, TSO4, TSO6 (linux/if_tun.h).
	netlab.Must(l, unix.IoctlSetInt(int(tap.Fds[0].Fd()), unix.TUNSETOFFLOAD, 7))
	netlab.Must(l, l.Pod.Pod.LinkSetUp(l.Pod.Pod.Link(slowTap)))
	l.Silence(slowTap, "")
	var guest *Port
	l.Pod.Pod.In(func() (err error) { guest, err = Interface("krun0"); return err })
	l.Cleanup(func() { guest.Close() })
	frames = new(atomic.Uint64)
	relay := func(from, to io.ReadWriter, before func()) {
		data := make([]byte, headerSize+maxFrame)
		for {
			n, err := from.Read(data)
			if err != nil {
				return
			}
			before()
			to.Write(data[:n])
		}
	}
	go relay(tap.Fds[0], guest.socket.file, func() { frames.Add(1); time.Sleep(each) })
	go relay(guest.socket.file, tap.Fds[0], func() {})
	return frames
}

const slowTap = "krun1"

// A guest that needs long for a frame, whatever its length, gets as much in each as there is.
func TestFramesForASlowGuestAreJoined(t *testing.T) {
	families(t, func(t *testing.T, node, guest string) {
		l := newLab(t)
		frames := l.slowly(time.Millisecond)
		// The node sends two segments at a time, as its TCP does to one who answers late.
		netlab.Must(t, l.Node.LinkSetGSOMaxSegs(l.Node.Link("veth0"), 2))
		l.joinTo(slowTap, "")
		const streams, each = 8, 2 << 20
		data := bytes.Repeat([]byte("0123456789abcdef"), each/16)
		want := sha256.Sum256(data)
		l.Listen(l.Node, netlab.At(node, 80), func(c net.Conn) { c.Write(data) })
		var done sync.WaitGroup
		for range streams {
			c, err := l.Dial(l.Guest, "tcp", netlab.At(node, 80))
			netlab.Must(t, err)
			netlab.Must(t, c.SetDeadline(time.Now().Add(time.Minute)))
			done.Go(func() {
				h := sha256.New()
				if _, err := io.Copy(h, c); err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("not what was sent (%v)", err)
				}
			})
		}
		done.Wait()
		// Without it there are 2796 bytes in each.
		if n := frames.Load(); n > streams*each/5000 {
			t.Errorf("%d frames for %d bytes: they are not joined", n, streams*each)
		} else {
			t.Logf("%d bytes in each of %d frames", streams*each/n, n)
		}
	})
}

// taken is a carrier that keeps what it is given.
type taken struct{ frames [][]byte }

func (t *taken) receive([]byte) (int, error) { return 0, io.EOF }
func (t *taken) Close() error                { return nil }
func (t *taken) send(data []byte) error {
	t.frames = append(t.frames, bytes.Clone(data))
	return nil
}

// conversation is a queue, and a peer and a guest that speak over it.
type conversation struct {
	testing.TB
	*queue
	taken *taken
	port  uint16 // the guest's
}

func newConversation(t testing.TB) *conversation {
	c := &conversation{TB: t, taken: new(taken), port: 1000}
	c.queue = newQueue(&Port{name: "guest", carrier: c.taken})
	return c
}

// say sends size bytes of the stream from a place on to the guest, and returns how many frames it has been given in all.
func (c *conversation) say(from, size int, flags string) int {
	c.Helper()
	tcp := vnettest.TCP(80, c.port, flags)
	tcp.Seq += uint32(from)
	data := append(make([]byte, headerSize), vnettest.IP(c, vnettest.Peer6, vnettest.Guest6, tcp, vnettest.Data(strings.Repeat("x", size)))...)
	data[0] = 2 // the checksum is right: VIRTIO_NET_HDR_F_DATA_VALID
	c.send(data, packet.ReadOffload(data))
	return len(c.taken.frames)
}

// ack is the guest's word that it has all before a byte of the stream.
func (c *conversation) ack(to int) int {
	c.Helper()
	tcp := vnettest.TCP(c.port, 80, "A")
	tcp.Ack = 7000 + uint32(to)
	c.acknowledged(vnettest.IP(c, vnettest.Guest6, vnettest.Peer6, tcp))
	return len(c.taken.frames)
}

// last is the size of the payload of the last frame that the guest was given.
func (c *conversation) last() int {
	c.Helper()
	var p packet.Packet
	data := c.taken.frames[len(c.taken.frames)-1]
	if reason := packet.Parse(data[headerSize:], &p); reason != packet.WellFormed {
		c.Fatal(reason)
	}
	return p.TCP.Payload
}

func (c *conversation) is(what string, frames, want int) {
	c.Helper()
	if frames != want {
		c.Fatalf("%s: the guest has %d frames, not %d", what, frames, want)
	}
}

// fill has the guest be given as many frames as it may have without a word.
func (c *conversation) fill() {
	c.Helper()
	c.is("a beginning", c.say(0, 0, "SA"), 1)
	for i := range maxOutstanding {
		c.is("a frame", c.say(i*1400, 1400, "A"), 2+i)
	}
}

func TestWhatIsHeldGoesOnAtAnAcknowledgement(t *testing.T) {
	c := newConversation(t)
	c.fill()
	n := 1 + maxOutstanding
	for i := range 3 {
		c.is("one too many", c.say((maxOutstanding+i)*1400, 1400, "A"), n)
	}
	if c.wait() == 0 {
		t.Error("nobody looks after what is held")
	}
	c.is("an old acknowledgement", c.ack(0), n)
	c.is("an acknowledgement", c.ack(1400), n+1)
	if c.last() != 3*1400 || c.wait() != 0 {
		t.Errorf("%d bytes were joined", c.last())
	}
	c.is("the next one", c.say((maxOutstanding+3)*1400, 1400, "A"), n+1)
}

func TestNothingIsHeldForLong(t *testing.T) {
	c := newConversation(t)
	c.fill()
	n := 1 + maxOutstanding
	c.is("one too many", c.say(maxOutstanding*1400, 1400, "A"), n)
	c.drain()
	c.is("at once", len(c.taken.frames), n)
	time.Sleep(maxHeld + time.Millisecond)
	c.drain()
	c.is("after a while", len(c.taken.frames), n+1)
}

func TestTheOrderOfAConnectionIsKept(t *testing.T) {
	c := newConversation(t)
	c.fill()
	n := 1 + maxOutstanding
	c.is("one too many", c.say(maxOutstanding*1400, 1400, "A"), n)
	c.is("its end", c.say((maxOutstanding+1)*1400, 0, "FA"), n+2)
	if c.last() != 0 {
		t.Error("the end came before what it ends")
	}
	c.is("what was lost, again", c.say(0, 1400, "A"), n+3)
}

// Whichever hashes they have.
func TestConnectionsDoNotTakeEachOthersPlaces(t *testing.T) {
	c := newConversation(t)
	ports := []uint16{1000}
	flows := func(port uint16) *[places]flow {
		return c.placesOf(key{vnettest.Peer6.Addr, vnettest.Guest6.Addr, 80, port})
	}
	for port := uint16(1001); len(ports) <= places; port++ {
		if flows(port) == flows(1000) {
			ports = append(ports, port)
		}
	}
	newcomer := ports[places]
	for i := range maxOutstanding + 2 {
		for _, c.port = range ports[:places] {
			c.say(i*1400, 1400, "A")
		}
	}
	n := places * maxOutstanding
	c.is("each is given what it may have", len(c.taken.frames), n)
	c.port = newcomer
	c.is("one more takes the place of the oldest, whose frames go on", c.say(0, 1400, "A"), n+2)
	for _, c.port = range ports[1:places] {
		n = len(c.taken.frames)
		c.is("an acknowledgement", c.ack(1400), n+1)
		if c.last() != 2*1400 {
			t.Errorf("%d bytes were joined", c.last())
		}
	}
}

// A program that waits for answers to a few bytes at a time must not wait for more.
func TestLittleIsNotHeld(t *testing.T) {
	c := newConversation(t)
	c.is("a beginning", c.say(0, 0, "SA"), 1)
	for i := range 40 {
		c.is("a few bytes", c.say(i*100, 100, "A"), 2+i)
	}
	c.is("a new connection", c.say(1<<20, 0, "SA"), 42)
	c.is("its first frame", c.say(1<<20, 1400, "A"), 43)
}

func TestFlowsThatNobodyAcknowledgesAreBounded(t *testing.T) {
	c := newConversation(t)
	for port := range 2 * maxFlows {
		for i := range 2 * maxOutstanding {
			tcp := vnettest.TCP(80, uint16(port+1), "A")
			tcp.Seq += uint32(i * 1400)
			data := append(make([]byte, headerSize), vnettest.IP(t, vnettest.Peer6, vnettest.Guest6, tcp, vnettest.Data(strings.Repeat("x", 1400)))...)
			data[0] = 2
			c.send(data, packet.ReadOffload(data))
		}
	}
	if len(c.held) > maxRuns || c.runs != maxRuns {
		t.Errorf("%d runs are held, and there are %d", len(c.held), c.runs)
	}
}
