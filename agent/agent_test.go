package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	api3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/ctr"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/stdio"
	"krun.dev/krunpod/agent/task"
)

// noRuntime makes nothing.
type noRuntime struct{}

func (noRuntime) Create(string, *specs.Spec, *stdio.Set) (task.Container, task.Process, error) {
	return nil, nil, errors.New("none here")
}

// heldEnd keeps the end of a connection back until asked is closed: ttrpc's client forgets an answer that it has read
// when the end comes right behind it (ttrpc 1.2.10, Client.dispatch selects at random), and it is the agent's writing
// of the answer that is tested here.
type heldEnd struct {
	net.Conn
	asked chan struct{}
}

func (h *heldEnd) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if err != nil {
		<-h.asked
	}
	return n, err
}

// serveOn serves an agent on one end of a pipe and returns the other and how serving ended.
func serveOn(t *testing.T) (*ttrpc.Client, <-chan error) {
	t.Helper()
	host, guestEnd := net.Pipe()
	cfg := Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Stages: &guest.Stages{},
		Runtime: func(*reap.Reaper, ctr.Namespaces, *slog.Logger) task.Runtime { return noRuntime{} }}
	served := make(chan error, 1)
	go func() { served <- serve(context.Background(), cfg, guestEnd, &reap.Reaper{}) }()
	end := &heldEnd{Conn: host, asked: make(chan struct{})}
	c := ttrpc.NewClient(end)
	t.Cleanup(func() {
		close(end.asked)
		_ = c.Close()
	})
	return c, served
}

func within(t *testing.T, served <-chan error) {
	t.Helper()
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the agent still serves")
	}
}

func TestBothServicesAnswerOnTheOneConnection(t *testing.T) {
	c, served := serveOn(t)
	_, err := api3.NewTTRPCTaskClient(c).State(context.Background(), &api3.StateRequest{ID: "nobody"})
	if !errdefs.IsNotFound(errgrpc.ToNative(err)) {
		t.Errorf("Task API: %v", err)
	}
	if _, err := api.NewAgentClient(c).Shutdown(context.Background(), &api.ShutdownRequest{}); err != nil {
		t.Errorf("Agent API: %v", err)
	}
	within(t, served)
}

func TestTheEndOfTheConnectionIsTheEndOfTheAgent(t *testing.T) {
	c, served := serveOn(t)
	_ = c.Close()
	within(t, served)
}

func TestEventsReachTheHostInOrder(t *testing.T) {
	e := newEvents()
	for i := range maxEvents + 3 {
		e.oom(strconv.Itoa(i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	next := 3 // the oldest three made room
	err := e.send(ctx, func(ev *api.Event) error {
		if got := ev.GetOom().GetContainerId(); got != strconv.Itoa(next) {
			t.Errorf("event %s, want %d", got, next)
		}
		next++
		if next == maxEvents+3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || next != maxEvents+3 {
		t.Errorf("%v after event %d", err, next)
	}
}

func TestPodAddressesAreThoseOfTheFirstInterfaceThatHasAny(t *testing.T) {
	got := addresses([]*api.Interface{
		{Addresses: []string{"fe80::1/64"}},
		{Addresses: []string{"10.0.0.7/24", "fe80::2/64", "fd00::7/64"}},
		{Addresses: []string{"10.9.9.9/24"}},
	})
	want := []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v", got)
	}
}
