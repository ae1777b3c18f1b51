package e2e

import (
	"context"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// The tests below end containerd with pods at each stage that rests, then beside each call that is on its way, and beside
// the start of a pod: once as a restart does and once as a crash, and the other way round with the other sandboxer.

func TestLongRestartOfContainerdAtEveryStage(t *testing.T) {
	testContainerdEnds(t, handler, syscall.SIGTERM, syscall.SIGKILL)
}

func TestLongRestartOfContainerdAtEveryStageWithPodsandbox(t *testing.T) {
	testContainerdEnds(t, "krun-podsandbox", syscall.SIGKILL, syscall.SIGTERM)
}

func testContainerdEnds(t *testing.T, handler string, atRest, beside syscall.Signal) {
	n := newNodeFor(t, 9*time.Minute)
	n.endsAtRest(handler, atRest)
	n.endsBesideCalls(handler, beside)
	n.endsBesideTheStartOfAPod(handler, beside)
}

// containerdPID is the process that listens at containerd's socket (SO_PEERCRED, unix(7)).
func (n *node) containerdPID() int {
	n.Helper()
	conn, err := net.Dial("unix", testpod.Address())
	if err != nil {
		n.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		n.Fatal(err)
	}
	var peer *unix.Ucred
	var perr error
	if err := raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		n.Fatal(err)
	}
	if perr != nil {
		n.Fatal(perr)
	}
	return int(peer.Pid)
}

// replaceContainerd ends it with a signal, calls between once it cannot answer any more, and starts it anew.
func (n *node) replaceContainerd(sig syscall.Signal, between func()) {
	n.Helper()
	pid := n.containerdPID()
	if err := syscall.Kill(pid, sig); err != nil {
		n.Fatalf("end containerd, process %d: %v", pid, err)
	}
	between()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err := testpod.Poll(ctx, "containerd goes on", func() (bool, error) { return syscall.Kill(pid, 0) == syscall.ESRCH, nil })
	if err != nil {
		n.Fatal(err)
	}
	n.restartContainerd()
}

// endsAtRest looks at what a restart must keep: pods and containers in each state, an exec and an attach.
func (n *node) endsAtRest(handler string, sig syscall.Signal) {
	n.Helper()
	stopped := n.podOf(handler)
	if _, err := n.cri.Runtime.StopPodSandbox(n.ctx, &runtime.StopPodSandboxRequest{PodSandboxId: stopped.ID}); err != nil {
		n.Fatal(err)
	}
	p := n.podOf(handler)
	created, err := p.Create(n.ctx, testpod.ContainerConfig("created", "echo started; exec sleep 1000"))
	if err != nil {
		n.Fatal(err)
	}
	running := n.container(p, testpod.ContainerConfig("running", "while :; do date +%s; sleep 1; done"))
	exited := n.container(p, testpod.ContainerConfig("exited", "exit 7"))
	n.waitExit(exited)
	before, err := running.AttachStream(n.ctx, false)
	if err != nil {
		n.Fatalf("attach: %v", err)
	}
	exec := make(chan error, 1)
	go func() {
		_, _, _, err := running.Exec(n.ctx, "echo up >/dev/shm/exec; exec sleep 4321")
		exec <- err
	}()
	n.waitFor(running, "cat /dev/shm/exec", "up\n")

	n.replaceContainerd(sig, func() {
		if err := <-exec; err == nil {
			n.Error("an exec outlived the containerd that waited for it")
		}
		before.Vanish()
	})

	if out := n.exec(running, "echo alive"); out != "alive\n" {
		n.Errorf("exec says %q", out)
	}
	n.attached(running)
	if err := created.Start(n.ctx); err != nil {
		n.Errorf("start a container that was created before the restart: %v", err)
	}
	n.waitLog(created, "started\n")
	if st, err := exited.Status(n.ctx); err != nil || st.ExitCode != 7 {
		n.Errorf("the container that had ended: %v, %v", st, err)
	}
	n.container(p, testpod.ContainerConfig("late", "exec sleep 1000"))
	for id, want := range map[string]runtime.PodSandboxState{
		p.ID: runtime.PodSandboxState_SANDBOX_READY, stopped.ID: runtime.PodSandboxState_SANDBOX_NOTREADY,
	} {
		r, err := n.cri.Runtime.PodSandboxStatus(n.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil || r.Status.State != want {
			n.Errorf("pod %s is %v, %v; want %v", id, r.GetStatus().GetState(), err, want)
		}
	}
	n.removeNow(p) // a small node: the next ones need the memory
	n.removeNow(stopped)
}

// attached sees through an attach what the container says.
func (n *node) attached(k *testpod.Container) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	st, err := k.AttachStream(ctx, false)
	if err != nil {
		n.Fatalf("attach: %v", err)
	}
	defer st.Vanish()
	if err := st.WaitFor(ctx, "\n"); err != nil {
		n.Error(err)
	}
}

// waitFor runs a script until it prints want.
func (n *node) waitFor(k *testpod.Container, script, want string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err := testpod.Poll(ctx, script+" does not print "+want, func() (bool, error) {
		out, _, _, err := k.Exec(ctx, script)
		return out == want, err
	})
	if err != nil {
		n.Fatal(err)
	}
}

// onItsWay is how long a call that cannot end, since the shim is stopped, is given to reach it.
const onItsWay = 500 * time.Millisecond

// beside ends containerd while a call waits for the pod's shim, which is stopped meanwhile and then carries the call
// out, with nobody to tell. The call fails; what it left is the next one's.
func (n *node) beside(p *testpod.Pod, sig syscall.Signal, what string, call func(context.Context) error) {
	n.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		n.Fatal(err)
	}
	thaw := sync.OnceFunc(func() {
		if err := syscall.Kill(st.Shim, syscall.SIGCONT); err != nil {
			n.Errorf("let the shim go on: %v", err)
		}
	})
	if err := syscall.Kill(st.Shim, syscall.SIGSTOP); err != nil {
		n.Fatal(err)
	}
	defer thaw()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	returned := make(chan error, 1)
	go func() { returned <- call(ctx) }()
	time.Sleep(onItsWay)
	n.replaceContainerd(sig, func() {
		err = <-returned
		thaw()
	})
	if err == nil {
		n.Errorf("the %s succeeded without shim and containerd", what)
	}
	n.Logf("%s, without containerd: %v", what, err)
}

func (n *node) endsBesideCalls(handler string, sig syscall.Signal) {
	n.Helper()
	p := n.podOf(handler)
	k := n.container(p, testpod.ContainerConfig("main", stubborn))
	n.waitLog(k, "up\n")

	n.beside(p, sig, "exec", func(ctx context.Context) error {
		_, _, _, err := k.Exec(ctx, "exec sleep 4321")
		return err
	})
	if left := n.exec(k, "ps -o args | grep 'sleep [4]321' || true"); left != "" {
		n.Errorf("an exec that was never started runs: %q", left)
	}

	hasty, err := p.Create(n.ctx, testpod.ContainerConfig("hasty", "exec sleep 1000"))
	if err != nil {
		n.Fatal(err)
	}
	n.beside(p, sig, "start of a container", hasty.Start)
	n.worksOrIsNamed(hasty)
	n.gone(hasty)

	n.beside(p, sig, "stop of a container", func(ctx context.Context) error { return k.Stop(ctx, 5) })
	if err := k.Stop(n.ctx, 0); err != nil {
		n.Errorf("stop, once more: %v", err)
	}
	if st := n.waitExit(k); st.ExitCode != 137 {
		n.Errorf("exit code %d", st.ExitCode)
	}
	n.gone(k)

	removed := n.container(p, testpod.ContainerConfig("removed", "exec sleep 1000"))
	n.beside(p, sig, "removal of a container", removed.Remove)
	n.gone(removed)
	if out := n.exec(n.container(p, testpod.ContainerConfig("last", "exec sleep 1000")), "echo alive"); out != "alive\n" {
		n.Errorf("after all that an exec says %q", out)
	}

	n.beside(p, sig, "stop of a pod", func(ctx context.Context) error {
		_, err := n.cri.Runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.ID})
		return err
	})
	n.removeNow(p)
	p = n.podOf(handler)
	n.beside(p, sig, "removal of a pod", func(ctx context.Context) error {
		_, err := n.cri.Runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.ID})
		return err
	})
	n.removeNow(p)
}

// worksOrIsNamed looks at a container whose start nobody saw the end of: it runs, or it can be started, or CRI says why not.
func (n *node) worksOrIsNamed(k *testpod.Container) {
	n.Helper()
	st, err := k.Status(n.ctx)
	if err != nil {
		n.Errorf("the status of a container whose start broke off: %v", err)
		return
	}
	if st.State == runtime.ContainerState_CONTAINER_CREATED {
		if err := k.Start(n.ctx); err != nil {
			n.Logf("it cannot be started any more: %v", err)
			return
		}
		st.State = runtime.ContainerState_CONTAINER_RUNNING
	}
	n.Logf("the container whose start broke off: %v, exit code %d, %q", st.State, st.ExitCode, st.Reason)
	if st.State != runtime.ContainerState_CONTAINER_RUNNING {
		return
	}
	if out := n.exec(k, "echo alive"); out != "alive\n" {
		n.Errorf("an exec says %q", out)
	}
}

// gone removes a container as the kubelet does: it stops it first. Then nobody knows it.
func (n *node) gone(k *testpod.Container) {
	n.Helper()
	if err := k.Stop(n.ctx, 0); err != nil && !strings.Contains(err.Error(), "not found") {
		n.Errorf("stop a container, once more: %v", err)
	}
	if err := k.Remove(n.ctx); err != nil {
		n.Errorf("remove a container, once more: %v", err)
	}
	if st, err := k.Status(n.ctx); err == nil {
		n.Errorf("a container that was removed: %v", st)
	}
}

func (n *node) endsBesideTheStartOfAPod(handler string, sig syscall.Signal) {
	n.Helper()
	for what, reached := range stages {
		config := n.cri.PodConfig("hasty")
		began := make(chan error, 1)
		go func() {
			_, err := n.cri.Run(n.ctx, handler, config)
			began <- err
		}()
		n.waitStage(config, reached)
		n.replaceContainerd(sig, func() { n.Logf("the start of a pod, without containerd from where %s: %v", what, <-began) })
		n.removeAs(config)
	}
}

// stages of the start of a pod, as its state on disk shows them.
var stages = map[string]func(*sandbox.State) bool{
	"its directory is there": func(*sandbox.State) bool { return true },
	"its runner boots":       func(st *sandbox.State) bool { return st.Runner != nil },
}

// waitStage waits until the state of the pod of a configuration is as asked for. It looks often: on hardware a boot takes
// a tenth of a second.
func (n *node) waitStage(config *runtime.PodSandboxConfig, reached func(*sandbox.State) bool) {
	n.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		dirs, err := sandbox.List("/run/krunpod")
		if err != nil {
			n.Fatal(err)
		}
		for _, d := range dirs {
			st, err := sandbox.LoadState(d)
			if err == nil && st.Pod.Name == config.Metadata.Name && reached(st) {
				return
			}
		}
	}
	n.Fatal("the start of the pod did not come so far")
}
