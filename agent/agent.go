package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"

	api3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"github.com/mdlayher/vsock"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/api/stream"
	"krun.dev/krunpod/agent/ctr"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/stdio"
	"krun.dev/krunpod/agent/task"
)

// Config is what cmd/krun-agent brings along.
type Config struct {
	// Runtime makes the runtime, which starts processes through the reaper and finds the pod's namespaces.
	Runtime func(r *reap.Reaper, ns ctr.Namespaces, log *slog.Logger) task.Runtime
	Log     *slog.Logger
	Stages  *guest.Stages
}

// dialHost opens a connection to a vsock port of the host, CID 2 (vsock(7)).
func dialHost(port uint32) (net.Conn, error) {
	conn, err := vsock.Dial(vsock.Host, port, nil)
	if err != nil {
		return nil, fmt.Errorf("dial the host's vsock port %d: %w", port, err)
	}
	return conn, nil
}

func dialStream(id uint32) (*stream.Stream, error) {
	conn, err := dialHost(api.StreamPort)
	if err != nil {
		return nil, err
	}
	s, err := stream.Dial(conn, id)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

// Run is the whole life of the guest's PID 1 up to powering off, which is left to the caller: it returns when the
// host has asked for the end, with nil, or when it cannot go on.
func Run(cfg Config) error {
	// First the dial: the shim waits for it, and can send its first request while the rest is done.
	control, err := dialHost(api.ControlPort)
	if err != nil {
		return err
	}
	defer control.Close()
	cfg.Stages.Mark("dialed")
	if err := guest.Mount(); err != nil {
		return fmt.Errorf("prepare guest: %w", err)
	}
	cfg.Stages.Mark("mounts")
	ctx, cancel := context.WithCancel(context.Background())
	var reaper reap.Reaper
	var owned sync.WaitGroup
	owned.Go(func() {
		if err := reaper.Run(ctx); err != nil {
			cfg.Log.Error("orphans are no longer collected", "error", err)
		}
	})
	defer owned.Wait()
	defer cancel()
	return serve(ctx, cfg, control, &reaper)
}

// forContainers is what only containers need of the guest. It costs as much as the rest of the boot, so it
// is done after the shim has its answer that the sandbox is up, while that makes a container's root file system.
func forContainers(stages *guest.Stages) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{{"share", guest.MountRest}, {"cgroups", guest.Cgroups}, {"limits", guest.Limits}} {
		if err := step.do(); err != nil {
			return fmt.Errorf("prepare guest: %w", err)
		}
		stages.Mark(step.name)
	}
	return nil
}

// serve answers on control until the connection ends or the host asks for the end.
func serve(ctx context.Context, cfg Config, control net.Conn, reaper *reap.Reaper) error {
	ready := sync.OnceValue(func() error { return forContainers(cfg.Stages) })
	one := newOneConn(control)
	names := newNamespaces(reaper)
	sandbox := newSandbox(cfg, names, ready)
	sandbox.ending = one.mark
	tasks := task.New(whenReady{cfg.Runtime(reaper, names, cfg.Log), ready}, dialStream, sandbox.events.oom, cfg.Log)
	names.initPID = tasks.InitPID

	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	api3.RegisterTTRPCTaskService(server, tasks.TTRPC())
	api.RegisterAgentService(server, sandbox)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, one) }()
	cfg.Stages.Mark("serving")

	select {
	case <-one.ended:
		cfg.Log.Info("the control connection has ended: the pod is over")
	case <-sandbox.off:
		one.flush()
	}
	_ = server.Close()
	if err := <-served; err != nil && !errors.Is(err, ttrpc.ErrServerClosed) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// whenReady is a runtime whose first container waits for the guest to be prepared.
type whenReady struct {
	task.Runtime
	ready func() error
}

// Create implements task.Runtime.
func (w whenReady) Create(id string, spec *specs.Spec, io *stdio.Set) (task.Container, task.Process, error) {
	if err := w.ready(); err != nil {
		return nil, nil, err
	}
	return w.Runtime.Create(id, spec, io)
}
