package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet/firewall"
	. "krun.dev/krunpod/vnet/vnettest"
)

// framed is a frame as it is in a stream.
func framed(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// streamed is a bridge between a stream and messages, and its two ends: the guest's and the network's.
func streamed(t *testing.T) (guest, network net.Conn, ended <-chan error, cancel func()) {
	t.Helper()
	wall, err := firewall.New(firewall.Config{MAC: Guest4.MAC, Addresses: []netip.Addr{Guest4.Addr}})
	netlab.Must(t, err)
	guest, ours := net.Pipe()
	network, theirs := net.Pipe()
	b, err := New(Config{Guest: Stream("guest", ours), Network: Messages("network", theirs), Firewall: wall})
	netlab.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() { cancel(); guest.Close(); network.Close() })
	for _, c := range []net.Conn{guest, network} {
		netlab.Must(t, c.SetDeadline(time.Now().Add(netlab.Patience)))
	}
	return guest, network, done, cancel
}

func TestStreamCarriesFramesByTheirLength(t *testing.T) {
	guest, network, ended, cancel := streamed(t)
	out, in := IP(t, Guest4, Peer4, UDP(1000, 2000), Data("out")), IP(t, Peer4, Guest4, UDP(2000, 1000), Data("in"))
	// Two frames at once, then one in two parts.
	go func() {
		both := append(framed(out), framed(out)...)
		guest.Write(both)
		guest.Write(framed(out)[:7])
		guest.Write(framed(out)[7:])
	}()
	buf := make([]byte, maxFrame)
	for range 3 {
		n, err := network.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], out) {
			t.Fatalf("%x, %v; want %x", buf[:n], err, out)
		}
	}
	go network.Write(in)
	got := make([]byte, len(framed(in)))
	if _, err := io.ReadFull(guest, got); err != nil || !bytes.Equal(got, framed(in)) {
		t.Errorf("%x, %v; want %x", got, err, framed(in))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestEndOfAStreamIsNoFailure(t *testing.T) {
	for name, last := range map[string][]byte{"between frames": nil, "in a length": {0, 0}, "in a frame": {0, 0, 0, 9, 1}} {
		t.Run(name, func(t *testing.T) {
			guest, _, ended, cancel := streamed(t)
			if _, err := guest.Write(last); err != nil && last != nil {
				t.Fatal(err)
			}
			guest.Close()
			select {
			case err := <-ended:
				t.Fatalf("the bridge ended by itself: %v", err)
			case <-time.After(20 * time.Millisecond):
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLengthThatIsNoFramesEndsTheBridge(t *testing.T) {
	for _, length := range [][]byte{{0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0, 2, 0, 0}} {
		guest, _, ended, _ := streamed(t)
		go guest.Write(length)
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), "a frame of") {
				t.Errorf("%x: %v", length, err)
			}
		case <-time.After(netlab.Patience):
			t.Fatalf("%x: the bridge goes on", length)
		}
	}
}

func TestInterfaceAndStreamAreNotJoined(t *testing.T) {
	wall, err := firewall.New(firewall.Config{MAC: Guest4.MAC})
	netlab.Must(t, err)
	l := newLab(t)
	var i *Port
	l.Pod.Pod.In(func() (err error) { i, err = Interface("eth0"); return err })
	ours, theirs := net.Pipe()
	defer theirs.Close()
	if b, err := New(Config{Guest: Stream("guest", ours), Network: i, Firewall: wall}); err == nil || b != nil {
		t.Error("offloads of an interface would reach a stream")
	}
	if _, err := ours.Write([]byte{1}); err == nil {
		t.Error("the port is open")
	}
}

// FuzzStream reads whatever bytes come: a runner that a guest has taken over writes them.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		go func() {
			theirs.Write(data)
			theirs.Close()
		}()
		p := Stream("guest", ours)
		defer p.Close()
		buf := make([]byte, headerSize+maxFrame)
		for rest := len(data); ; {
			n, err := p.carrier.receive(buf)
			if err != nil {
				return
			}
			if rest -= n - headerSize + lengthSize; n <= headerSize || rest < 0 {
				t.Fatalf("%x has a frame of %d bytes too many", data, -rest)
			}
		}
	})
}
