package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/time/rate"

	"krun.dev/krunpod/agent/api"
)

// connected are the two ends of a connection as the guest's port has it on the host.
func connected(t *testing.T) (host, guest net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if guest, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if host, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close(); guest.Close() })
	return host, guest
}

// One message without an answer, of a size that no buffer takes.
func TestCallsToAGuestThatReadsNothingEnd(t *testing.T) {
	host, _ := connected(t)
	broken := make(chan error, 1)
	c := newControl(host, func(err error) { broken <- err })
	c.patience = 100 * time.Millisecond
	client := ttrpc.NewClient(c)
	defer client.Close()
	agent := api.NewAgentClient(client)
	ends := make(chan error)
	for range 3 {
		go func() {
			_, err := agent.PutVolume(context.Background(), &api.PutVolumeRequest{Name: strings.Repeat("x", 1<<20)})
			ends <- err
		}()
	}
	for range 3 {
		select {
		case err := <-ends:
			if !errors.Is(err, ttrpc.ErrClosed) {
				t.Errorf("a call ends with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call hangs with the guest")
		}
	}
	if err := <-broken; !strings.Contains(err.Error(), "has taken nothing") {
		t.Error(err)
	}
	if _, err := agent.Connect(context.Background(), &api.ConnectRequest{}); !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("a call afterwards: %v", err)
	}
}

func message(length uint32, payload []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, length), 0, 0, 0, 7, 2, 0), payload...)
}

func TestMessageOfAGuestIsBounded(t *testing.T) {
	host, guest := connected(t)
	var broken error
	c := newControl(host, func(err error) { broken = err })
	if _, err := guest.Write(append(message(3, []byte("abc")), message(maxAnswer+1, nil)...)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 64)); n != 0 || err == nil || broken == nil || !strings.Contains(err.Error(), "1048577 bytes") {
		t.Errorf("%d bytes, %v, and the VM is told %v", n, err, broken)
	}
	if _, err := host.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection goes on: %v", err)
	}
}

// Each message that nobody asked for is a line in the log.
func TestMessagesThatNobodyAskedForAreLimited(t *testing.T) {
	host, guest := connected(t)
	c := newControl(host, func(err error) { t.Error(err) })
	c.unasked = rate.NewLimiter(0, 10)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.inspect(bytes.Repeat(message(1, []byte("a")), answersPerWrite+7)); err != nil || c.unasked.Tokens() != 3 {
		t.Fatalf("%v; %v tokens are left, want 3", err, c.unasked.Tokens())
	}
	// Answered calls do not add up to a flood that is free.
	go func() { _, _ = io.Copy(io.Discard, guest) }()
	for range maxAsked {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.asked.Load(); n >= maxAsked+answersPerWrite {
		t.Errorf("%d messages are free", n)
	}
	done := make(chan error)
	go func() { done <- c.inspect(bytes.Repeat(message(0, nil), 2*maxAsked)) }()
	// A connection that is closed does not wait for the rest.
	c.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for messages although it is closed")
	}
}

func FuzzControlIsReadTheSameInAnyPieces(f *testing.F) {
	f.Add(message(2, []byte("ab")), uint8(3))
	f.Add(append(message(0, nil), message(maxAnswer+1, nil)...), uint8(10))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		read := func(step int) (*control, error) {
			c := newControl(nil, nil)
			c.unasked.SetLimit(rate.Inf)
			for p := data; len(p) > 0; p = p[min(step, len(p)):] {
				if err := c.inspect(p[:min(step, len(p))]); err != nil {
					return c, err
				}
			}
			return c, nil
		}
		whole, err := read(len(data) + 1)
		pieces, perr := read(int(size) + 1)
		if (err == nil) != (perr == nil) || whole.rest != pieces.rest || whole.have != pieces.have {
			t.Errorf("%v, %v: %d and %d bytes to come", err, perr, whole.rest, pieces.rest)
		}
	})
}
