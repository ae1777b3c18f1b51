package sandbox

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"krun.dev/krunpod/agent/api"
)

// liar is a guest that answers each Connect with an error.
type liar struct {
	api.AgentService
	err error
}

func (l *liar) Connect(context.Context, *api.ConnectRequest) (*api.ConnectResponse, error) {
	return nil, l.err
}

// agentThatSays returns the error of a call to a guest whose answer is err, by a connection as a sandbox has it.
func agentThatSays(t *testing.T, err error) error {
	t.Helper()
	server, serr := ttrpc.NewServer()
	if serr != nil {
		t.Fatal(serr)
	}
	api.RegisterAgentService(server, &liar{err: err})
	l, lerr := net.Listen("unix", t.TempDir()+"/s")
	if lerr != nil {
		t.Fatal(lerr)
	}
	go func() { _ = server.Serve(context.Background(), l) }()
	t.Cleanup(func() { server.Close() })
	conn, cerr := net.Dial("unix", l.Addr().String())
	if cerr != nil {
		t.Fatal(cerr)
	}
	client := newClient(conn, func(err error) { t.Error(err) })
	t.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = api.NewAgentClient(client).Connect(ctx, &api.ConnectRequest{})
	if err == nil {
		t.Fatal("no error")
	}
	return errgrpc.ToNative(err)
}

func TestAnErrorOfTheGuestIsALineOfBoundedText(t *testing.T) {
	st, err := status.New(codes.NotFound, "\x1b[2Jno\nsuch "+strings.Repeat("x", maxAnswer/4)).
		WithDetails(&api.OOM{ContainerId: strings.Repeat("y", maxAnswer/4)})
	if err != nil {
		t.Fatal(err)
	}
	got := agentThatSays(t, st.Err())
	if !errdefs.IsNotFound(got) {
		t.Errorf("its code is lost: %.100v", got)
	}
	if text := got.Error(); len(text) > maxGuestError+100 || strings.ContainsAny(text, "\x1b\n") || !strings.Contains(text, "such x") {
		t.Errorf("%d bytes: %.100q", len(text), text)
	}
}

func TestAGuestCannotSayThatItIsGone(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Unauthenticated, 4711} {
		got := agentThatSays(t, status.Error(code, "so it says"))
		if errdefs.IsUnavailable(got) || !errdefs.IsUnknown(got) || !strings.Contains(got.Error(), "so it says") {
			t.Errorf("code %d became %v", code, got)
		}
	}
}
