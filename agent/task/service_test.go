package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
)

// guest is a service with its client's end of the streams.
type guest struct {
	t    *testing.T
	host *host
	api3.TTRPCTaskService
	ooms atomic.Int32
	out  chan []byte
}

func newGuest(t *testing.T) *guest {
	g := &guest{t: t, host: &host{}, out: make(chan []byte, 8)}
	oom := func(string) { g.ooms.Add(1) }
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	g.TTRPCTaskService = New(g.host, g.dial, oom, log).TTRPC()
	return g
}

// dial makes a stream over a socket pair; what the process writes comes out of g.out when the stream has ended.
func (g *guest) dial(id uint32) (*stream.Stream, error) {
	here, there, err := socketPair()
	if err != nil {
		return nil, err
	}
	guest, err := stream.Dial(there, id)
	if err != nil {
		return nil, err
	}
	_, s, err := stream.Accept(here)
	if err != nil {
		return nil, err
	}
	go func() {
		b, _ := io.ReadAll(s)
		g.out <- b
		_ = s.Close()
	}()
	return guest, nil
}

func (g *guest) create(id string, args ...string) error {
	g.t.Helper()
	return g.createWithin(context.Background(), id, args...)
}

// awaitReserved returns when a creation of id is under way.
func (g *guest) awaitReserved(id string) {
	g.t.Helper()
	s := g.TTRPCTaskService.(server).s
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		_, ok := s.containers[id]
		s.mu.Unlock()
		if ok {
			return
		}
	}
	g.t.Fatalf("nothing creates %s", id)
}

func (g *guest) createWithin(ctx context.Context, id string, args ...string) error {
	g.t.Helper()
	spec, err := json.Marshal(specs.Spec{Root: &specs.Root{}, Linux: &specs.Linux{}, Process: &specs.Process{Args: args}})
	if err != nil {
		g.t.Fatal(err)
	}
	options, err := anypb.New(&api.Container{Spec: spec})
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = g.Create(ctx, &api3.CreateTaskRequest{ID: id, Options: options, Stdout: api.StreamURI(1)})
	return errgrpc.ToNative(err)
}

func (g *guest) start(id, execID string) error {
	_, err := g.Start(context.Background(), &api3.StartRequest{ID: id, ExecID: execID})
	return errgrpc.ToNative(err)
}

func (g *guest) addExec(id, execID string, args ...string) error {
	spec, err := json.Marshal(specs.Process{Args: args})
	if err != nil {
		g.t.Fatal(err)
	}
	_, err = g.Exec(context.Background(), &api3.ExecProcessRequest{ID: id, ExecID: execID, Stdout: api.StreamURI(2),
		Spec: &anypb.Any{Value: spec}})
	return errgrpc.ToNative(err)
}

func (g *guest) wait(id, execID string) (uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := g.Wait(ctx, &api3.WaitRequest{ID: id, ExecID: execID})
	return r.GetExitStatus(), errgrpc.ToNative(err)
}

func (g *guest) kill(id, execID string) error {
	_, err := g.Kill(context.Background(), &api3.KillRequest{ID: id, ExecID: execID, Signal: uint32(unix.SIGKILL)})
	return errgrpc.ToNative(err)
}

func (g *guest) delete(id, execID string) (*api3.DeleteResponse, error) {
	r, err := g.Delete(context.Background(), &api3.DeleteRequest{ID: id, ExecID: execID})
	return r, errgrpc.ToNative(err)
}

func (g *guest) state(id string) task.Status {
	r, err := g.State(context.Background(), &api3.StateRequest{ID: id})
	if err != nil {
		return task.Status_UNKNOWN
	}
	return r.Status
}

func TestTheLifeOfAContainer(t *testing.T) {
	g := newGuest(t)
	if err := g.create("a", "sh", "-c", "echo out; exit 7"); err != nil {
		t.Fatal(err)
	}
	if s := g.state("a"); s != task.Status_CREATED {
		t.Errorf("after create: %s", s)
	}
	if err := g.create("a", "true"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	if err := g.start("a", ""); err != nil {
		t.Fatal(err)
	}
	if status, err := g.wait("a", ""); err != nil || status != 7 {
		t.Errorf("wait: %d, %v", status, err)
	}
	if b := <-g.out; string(b) != "out\n" {
		t.Errorf("output %q", b)
	}
	if s := g.state("a"); s != task.Status_STOPPED {
		t.Errorf("after exit: %s", s)
	}
	if err := g.start("a", ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v", err)
	}
	if err := g.kill("a", ""); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "process already finished") {
		t.Errorf("kill after exit: %v", err)
	}
	if r, err := g.delete("a", ""); err != nil || r.ExitStatus != 7 || r.Pid != 4711 || r.ExitedAt == nil {
		t.Errorf("delete: %v, %v", r, err)
	}
	if err := g.kill("a", ""); !errdefs.IsNotFound(err) {
		t.Errorf("kill after delete: %v", err)
	}
}

func TestARunningContainerIsNotDeletedAndACreatedOneIs(t *testing.T) {
	g := newGuest(t)
	if err := errors.Join(g.create("a", "sleep", "100"), g.start("a", "")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.delete("a", ""); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("delete of a running container: %v", err)
	}
	if err := g.kill("a", ""); err != nil {
		t.Error(err)
	}
	if status, err := g.wait("a", ""); err != nil || status != 137 {
		t.Errorf("wait: %d, %v", status, err)
	}
	if err := g.create("b", "sleep", "100"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.delete("b", ""); err != nil {
		t.Errorf("delete of a created container: %v", err)
	}
}

func TestExecs(t *testing.T) {
	g := newGuest(t)
	if err := errors.Join(g.create("a", "sleep", "100"), g.start("a", "")); err != nil {
		t.Fatal(err)
	}
	if err := g.addExec("a", "e", "sh", "-c", "exit 3"); err != nil {
		t.Fatal(err)
	}
	if err := g.addExec("a", "e", "true"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second exec of that id: %v", err)
	}
	if err := g.kill("a", "e"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill before start: %v", err)
	}
	if err := g.start("a", "e"); err != nil {
		t.Fatal(err)
	}
	if status, err := g.wait("a", "e"); err != nil || status != 3 {
		t.Errorf("wait: %d, %v", status, err)
	}
	if r, err := g.delete("a", "e"); err != nil || r.ExitStatus != 3 {
		t.Errorf("delete: %v, %v", r, err)
	}
	if err := g.addExec("a", "f", "no-such-program"); err != nil {
		t.Fatal(err)
	}
	if err := g.start("a", "f"); err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("start of a missing program: %v", err)
	}
	if _, err := g.wait("a", "f"); err != nil { // must not wait for ever
		t.Errorf("wait for what never started: %v", err)
	}
	if err := g.addExec("a", "g", "true"); err != nil {
		t.Fatal(err)
	}
	_ = g.kill("a", "")
	_, _ = g.wait("a", "")
	if err := g.start("a", "g"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a stopped container: %v", err)
	}
}

func TestPausedContainers(t *testing.T) {
	g := newGuest(t)
	ctx := context.Background()
	if err := g.create("a", "sleep", "100"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Pause(ctx, &api3.PauseRequest{ID: "a"}); !errdefs.IsFailedPrecondition(errgrpc.ToNative(err)) {
		t.Errorf("pause of a created container: %v", err)
	}
	if err := g.start("a", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Pause(ctx, &api3.PauseRequest{ID: "a"}); err != nil {
		t.Error(err)
	}
	if s := g.state("a"); s != task.Status_PAUSED {
		t.Errorf("state %s", s)
	}
	if err := errors.Join(g.addExec("a", "e", "true"), g.start("a", "e")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a paused container: %v", err)
	}
	if _, err := g.Resume(ctx, &api3.ResumeRequest{ID: "a"}); err != nil || g.state("a") != task.Status_RUNNING {
		t.Errorf("resume: %v, %s", err, g.state("a"))
	}
	_ = g.kill("a", "")
}

func TestAnOOMKillIsToldBeforeTheExit(t *testing.T) {
	g := newGuest(t)
	if err := errors.Join(g.create("a", "sh", "-c", "read x"), g.start("a", "")); err != nil {
		t.Fatal(err)
	}
	g.host.oomKills.Store(1)
	_ = g.kill("a", "")
	_, _ = g.wait("a", "")
	if n := g.ooms.Load(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	g := newGuest(t)
	if err := g.create("a", "no-such-program"); err == nil {
		t.Fatal("created")
	}
	if err := g.create("a", "true"); err != nil {
		t.Errorf("its id is still taken: %v", err)
	}
}

func TestACreationThatTheHostHasGivenUpLeavesNothing(t *testing.T) {
	g := newGuest(t)
	g.host.building = make(chan struct{})
	late, cancel := context.WithCancel(context.Background())
	created := make(chan error, 1)
	go func() { created <- g.createWithin(late, "a", "sleep", "100") }()
	g.awaitReserved("a")
	cancel()
	close(g.host.building)
	if err := <-created; !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if s := g.state("a"); s != task.Status_UNKNOWN {
		t.Errorf("the container is there, and %s", s)
	}
	if err := g.create("a", "true"); err != nil {
		t.Errorf("its id is still taken: %v", err)
	}
}

func TestDeletionOfWhatIsBeingCreatedWaitsForIt(t *testing.T) {
	g := newGuest(t)
	g.host.building = make(chan struct{})
	created := make(chan error, 1)
	go func() { created <- g.create("a", "sleep", "100") }()
	g.awaitReserved("a")
	hasty, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := g.Delete(hasty, &api3.DeleteRequest{ID: "a"}); err == nil {
		t.Error("deleted before it was there")
	}
	deleted := make(chan error, 1)
	go func() {
		_, err := g.delete("a", "")
		deleted <- err
	}()
	close(g.host.building)
	if err := errors.Join(<-created, <-deleted); err != nil {
		t.Error(err)
	}
	if err := g.create("a", "true"); err != nil {
		t.Errorf("its id is still taken: %v", err)
	}
}

func TestRequestsThatAreNotImplementedOrNonsense(t *testing.T) {
	g := newGuest(t)
	ctx := context.Background()
	if err := g.create("a", "sleep", "1"); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		call func() error
		is   func(error) bool
	}{
		"checkpoint": {func() error {
			_, err := g.Checkpoint(ctx, &api3.CheckpointTaskRequest{ID: "a"})
			return err
		}, errdefs.IsNotImplemented},
		"restore": {func() error {
			_, err := g.Create(ctx, &api3.CreateTaskRequest{ID: "b", Checkpoint: "/c"})
			return err
		}, errdefs.IsNotImplemented},
		"options": {func() error {
			_, err := g.Create(ctx, &api3.CreateTaskRequest{ID: "b"})
			return err
		}, errdefs.IsInvalidArgument},
		"resize": {func() error {
			_, err := g.ResizePty(ctx, &api3.ResizePtyRequest{ID: "a", Width: 1 << 20})
			return err
		}, errdefs.IsInvalidArgument},
		"no terminal": {func() error {
			_, err := g.ResizePty(ctx, &api3.ResizePtyRequest{ID: "a"})
			return err
		}, errdefs.IsFailedPrecondition},
		"resources": {func() error {
			_, err := g.Update(ctx, &api3.UpdateTaskRequest{ID: "a", Resources: &anypb.Any{Value: []byte("{")}})
			return err
		}, errdefs.IsInvalidArgument},
		"process ids": {func() error {
			_, err := g.Pids(ctx, &api3.PidsRequest{ID: "a"})
			return err
		}, errdefs.IsNotImplemented},
		"unknown": {func() error {
			_, err := g.Stats(ctx, &api3.StatsRequest{ID: "nobody"})
			return err
		}, errdefs.IsNotFound},
	} {
		if err := errgrpc.ToNative(c.call()); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	g := newGuest(t)
	g.out = make(chan []byte, 100)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := fmt.Sprint("c", i)
			if err := errors.Join(g.create(id, "sh", "-c", "exit "+fmt.Sprint(i)), g.start(id, "")); err != nil {
				t.Error(err)
				return
			}
			if status, err := g.wait(id, ""); err != nil || status != uint32(i) {
				t.Errorf("%s: %d, %v", id, status, err)
			}
			if _, err := g.delete(id, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
