package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/testpod"
)

// runtimeType is what ctr run --runtime names.
const runtimeType = "io.containerd.krun.v2"

// ctrTask is a container made without CRI, as by ctr run: its stdio are FIFOs that the test reads itself.
type ctrTask struct {
	n              *node
	ctx            context.Context
	container      containerd.Container
	task           containerd.Task
	stdout, stderr string
	exit           <-chan containerd.ExitStatus
	execs          atomic.Int64
}

// startTask makes a container alone with the default image; start runs it.
func (n *node) startTask(name string, args ...string) *ctrTask {
	n.Helper()
	t := n.newContainer(name, oci.WithProcessArgs(args...))
	dir := n.TempDir()
	t.stdout, t.stderr = filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")
	for _, p := range []string{t.stdout, t.stderr} {
		if err := unix.Mkfifo(p, 0o600); err != nil {
			n.Fatal(err)
		}
	}
	t.create(func(string) (cio.IO, error) {
		return fifos{cio.Config{Stdout: t.stdout, Stderr: t.stderr}}, nil
	})
	return t
}

// newContainer makes a container alone without a task.
func (n *node) newContainer(name string, opts ...oci.SpecOpts) *ctrTask {
	n.Helper()
	client, err := containerd.New(testpod.Address())
	if err != nil {
		n.Fatal(err)
	}
	t := &ctrTask{n: n, ctx: namespaces.WithNamespace(n.ctx, "k8s.io")}
	n.Cleanup(func() {
		t.remove()
		client.Close()
	})
	image, err := client.GetImage(t.ctx, testpod.DefaultImage)
	if err != nil {
		n.Fatal(err)
	}
	opts = append([]oci.SpecOpts{oci.WithImageConfig(image)}, opts...)
	t.container, err = client.NewContainer(t.ctx, name, containerd.WithNewSnapshot(name, image),
		containerd.WithNewSpec(opts...), containerd.WithRuntime(runtimeType, nil))
	if err != nil {
		n.Fatal(err)
	}
	return t
}

// create makes the task and waits for its end in the background.
func (t *ctrTask) create(io cio.Creator) {
	t.n.Helper()
	var err error
	if t.task, err = t.container.NewTask(t.ctx, io); err != nil {
		t.n.Fatalf("create task: %v", err)
	}
	if t.exit, err = t.task.Wait(t.ctx); err != nil {
		t.n.Fatal(err)
	}
}

// fifos is a cio.IO whose ends the test opens itself.
type fifos struct{ config cio.Config }

func (f fifos) Config() cio.Config { return f.config }
func (fifos) Cancel()              {}
func (fifos) Wait()                {}
func (fifos) Close() error         { return nil }

// adopt gives the containerd side of a container that CRI made.
func (n *node) adopt(id string) *ctrTask {
	n.Helper()
	client, err := containerd.New(testpod.Address())
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { client.Close() })
	t := &ctrTask{n: n, ctx: namespaces.WithNamespace(n.ctx, "k8s.io")}
	if t.container, err = client.LoadContainer(t.ctx, id); err != nil {
		n.Fatal(err)
	}
	if t.task, err = t.container.Task(t.ctx, nil); err != nil {
		n.Fatal(err)
	}
	return t
}

func (t *ctrTask) start() {
	t.n.Helper()
	if err := t.task.Start(t.ctx); err != nil {
		t.n.Fatalf("start task: %v", err)
	}
}

func (t *ctrTask) wait() uint32 {
	t.n.Helper()
	select {
	case st := <-t.exit:
		if err := st.Error(); err != nil {
			t.n.Fatal(err)
		}
		return st.ExitCode()
	case <-time.After(patience):
		t.n.Fatal("no exit event")
	}
	return 0
}

// remove ends and deletes the container with whatever runs in it.
func (t *ctrTask) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), patience)
	defer cancel()
	if t.task != nil {
		if _, err := t.task.Delete(ctx, containerd.WithProcessKill); err != nil {
			t.n.Errorf("delete task: %v", err)
		}
	}
	if t.container != nil {
		if err := t.container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
			t.n.Errorf("delete container: %v", err)
		}
	}
}

// signalEvery sends a signal to the task until the returned function is called.
func (t *ctrTask) signalEvery(sig syscall.Signal, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// The task may end between two signals: its exit code is what the test looks at.
				_ = t.task.Kill(ctx, sig)
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// execPause lies between two execs of execsWhile.
const execPause = 10 * time.Second

// execsWhile runs small execs until done yields, which must be without an error, and returns the slowest one's time.
func (t *ctrTask) execsWhile(done <-chan error) (slowest time.Duration) {
	t.n.Helper()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.n.Fatal(err)
			}
			return slowest
		default:
		}
		ctx, cancel := context.WithTimeout(t.ctx, patience)
		began := time.Now()
		out, exit, err := t.tryExec(ctx, "", "echo", "here")
		cancel()
		if err == nil && exit == 0 && out == "here\n" {
			slowest = max(slowest, time.Since(began))
			// A pause: execs without one would be all that an emulated node does.
			select {
			case err := <-done:
				if err != nil {
					t.n.Fatal(err)
				}
				return slowest
			case <-time.After(execPause):
			}
			continue
		}
		// The container may have ended meanwhile: then its output ends too.
		select {
		case rerr := <-done:
			if rerr != nil {
				t.n.Fatal(rerr)
			}
			return slowest
		case <-time.After(10 * time.Second):
			t.n.Fatalf("an exec beside the output: %q, exit %d, %v", out, exit, err)
		}
	}
}

// exec runs a process beside the task's own and returns its output.
func (t *ctrTask) exec(ctx context.Context, stdin string, args ...string) (string, uint32) {
	t.n.Helper()
	out, exit, err := t.tryExec(ctx, stdin, args...)
	if err != nil {
		t.n.Fatalf("exec %s: %v", strings.Join(args, " "), err)
	}
	return out, exit
}

func (t *ctrTask) tryExec(ctx context.Context, stdin string, args ...string) (_ string, _ uint32, err error) {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	spec, err := t.container.Spec(ctx)
	if err != nil {
		return "", 0, err
	}
	p := *spec.Process
	p.Args, p.Terminal = args, false
	var out, errs bytes.Buffer // two: a bytes.Buffer takes from one reader at a time
	in := &closingReader{Reader: strings.NewReader(stdin), atEOF: make(chan struct{})}
	creator := cio.NewCreator(cio.WithStreams(in, &out, &errs))
	exec, err := t.task.Exec(ctx, fmt.Sprintf("exec-%d", t.execs.Add(1)), &p, creator)
	if err != nil {
		return "", 0, err
	}
	defer func() {
		_, derr := exec.Delete(context.WithoutCancel(ctx), containerd.WithProcessKill)
		err = errors.Join(err, derr)
	}()
	exit, err := exec.Wait(ctx)
	if err != nil {
		return "", 0, err
	}
	if err := exec.Start(ctx); err != nil {
		return "", 0, err
	}
	select {
	case <-in.atEOF:
	case <-ctx.Done():
		return "", 0, ctx.Err()
	}
	if err := exec.CloseIO(ctx, containerd.WithStdinCloser); err != nil && !errdefs.IsNotFound(err) {
		return "", 0, err
	}
	select {
	case st := <-exit:
		exec.IO().Wait()
		return out.String() + errs.String(), st.ExitCode(), st.Error()
	case <-ctx.Done():
		return "", 0, ctx.Err()
	}
}

// closingReader tells when it was read to its end, as ctr does to close the process's input.
type closingReader struct {
	io.Reader
	atEOF chan struct{}
	once  sync.Once
}

func (r *closingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		r.once.Do(func() { close(r.atEOF) })
	}
	return n, err
}
