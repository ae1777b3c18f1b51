package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// restartEnv is the command that restarts containerd; the default is that of the nodes of hack/node.
const (
	restartEnv     = "KRUNPOD_E2E_RESTART"
	restartDefault = "/etc/kpnode/start"
)

func (n *node) restartContainerd() {
	n.Helper()
	command := os.Getenv(restartEnv)
	if command == "" {
		command = restartDefault
	}
	if out, err := exec.Command("/bin/sh", "-c", command).CombinedOutput(); err != nil {
		n.Fatalf("restart containerd: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err := testpod.Poll(ctx, "containerd did not come back", func() (bool, error) {
		_, err := n.cri.Runtime.Version(ctx, &runtime.VersionRequest{})
		return err == nil, nil
	})
	if err != nil {
		n.Fatal(err)
	}
}

func TestPodSurvivesARestartOfContainerd(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done"))
	n.waitLog(k, "line 2\n")
	n.restartContainerd()
	out := n.exec(k, "echo alive")
	if out != "alive\n" {
		t.Errorf("after the restart exec says %q", out)
	}
	before, _, err := k.Log()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err = testpod.Poll(ctx, "no log line after the restart", func() (bool, error) {
		now, _, err := k.Log()
		return len(now) > len(before), err
	})
	if err != nil {
		t.Error(err)
	}
	if err := k.Stop(n.ctx, 1); err != nil {
		t.Errorf("stop after the restart: %v", err)
	}
	if st := n.waitExit(k); st.ExitCode != 137 {
		t.Errorf("exit code %d", st.ExitCode)
	}
}

// killContainerd ends containerd as a crash does.
func (n *node) killContainerd() {
	n.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		n.Fatal(err)
	}
	killed := 0
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || string(name) != "containerd\n" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			n.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.Fatal(err)
		}
		killed++
	}
	if killed != 1 {
		n.Fatalf("killed %d processes named containerd", killed)
	}
}

func TestOutputAndEndOfAContainerWaitForContainerd(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	// More than a pipe holds (64 KiB, pipe(7)), so that it cannot be handed over.
	k := n.container(p, testpod.ContainerConfig("main", "echo ready; sleep 5; seq 1 60000; exit 7"))
	n.waitLog(k, "ready\n")
	n.killContainerd()
	time.Sleep(5*time.Second + 30*time.Second) // longer than a reader that is there may take
	n.restartContainerd()
	if st := n.waitExit(k); st.ExitCode != 7 {
		t.Errorf("exit code %d", st.ExitCode)
	}
	out, _, err := k.Log()
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out, "\n"); lines != 60001 || !strings.HasSuffix(out, "\n60000\n") {
		t.Errorf("%d lines, which end in %q", lines, out[max(0, len(out)-20):])
	}
}

func TestPodsandboxSandboxer(t *testing.T) {
	n := newNode(t)
	p := n.podOf("krun-podsandbox")
	a := n.container(p, testpod.ContainerConfig("a", "uname -r; exec sleep 1000"))
	b := n.container(p, testpod.ContainerConfig("b", "echo b; exec sleep 1000"))
	kernel := strings.TrimSpace(n.waitLog(a, "\n"))
	if kernel == hostKernel(t) {
		t.Errorf("the pod runs on the host's kernel %s", kernel)
	}
	n.waitLog(b, "b\n")
	if resolv := n.exec(a, "cat /etc/resolv.conf; ls -d /dev/shm"); !strings.Contains(resolv, "10.96.0.10") {
		t.Errorf("resolv.conf: %q", resolv)
	}
	n.exec(a, "echo shared > /dev/shm/x")
	if got := n.exec(b, "cat /dev/shm/x"); got != "shared\n" {
		t.Errorf("/dev/shm is not the pod's: %q", got)
	}
}

func TestContainerWithoutAPodIsASandboxOfOne(t *testing.T) {
	n := newNode(t)
	task := n.startTask("alone", "/bin/sh", "-c", "uname -r; exit 9")
	out := make(chan []byte, 1)
	go func() {
		data, err := os.ReadFile(task.stdout)
		if err != nil {
			data = []byte(err.Error())
		}
		out <- data
	}()
	task.start()
	if exit := task.wait(); exit != 9 {
		t.Errorf("exit code %d", exit)
	}
	if kernel := strings.TrimSpace(string(<-out)); kernel == hostKernel(t) || !strings.HasPrefix(kernel, "6.") {
		t.Errorf("the kernel is %q", kernel)
	}
}

func TestBinaryLogDriverGetsAllOutput(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	// containerd's contract: 3 and 4 are the container's streams, 5 is closed when the driver is ready.
	driver := "#!/bin/sh\nexec 5>&-\ncat <&3 >\"$2.out\" &\ncat <&4 >\"$2.err\" &\nwait\n"
	if err := os.WriteFile(dir+"/driver", []byte(driver), 0o755); err != nil {
		t.Fatal(err)
	}
	task := n.newContainer("logged", oci.WithProcessArgs("/bin/sh", "-c", "seq 1 20000; echo oops >&2"))
	task.create(cio.BinaryIO(dir+"/driver", map[string]string{"to": dir + "/log"}))
	task.start()
	if exit := task.wait(); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	var out []byte
	err := testpod.Poll(ctx, "the log is not whole", func() (_ bool, err error) {
		out, err = os.ReadFile(dir + "/log.out")
		return strings.HasSuffix(string(out), "\n20000\n"), err
	})
	if err != nil || strings.Count(string(out), "\n") != 20000 {
		t.Errorf("%d lines, %v", strings.Count(string(out), "\n"), err)
	}
	if errs, err := os.ReadFile(dir + "/log.err"); err != nil || string(errs) != "oops\n" {
		t.Errorf("stderr %q, %v", errs, err)
	}
}

func TestVMThatDiesTakesItsContainersAlong(t *testing.T) {
	for _, h := range []string{handler, "krun-podsandbox"} {
		t.Run(h, func(t *testing.T) { testVMThatDies(t, h) })
	}
}

func testVMThatDies(t *testing.T, handler string) {
	n := newNode(t)
	p := n.podOf(handler)
	var containers []*testpod.Container
	for _, name := range []string{"a", "b", "c"} {
		containers = append(containers, n.container(p, testpod.ContainerConfig(name, "exec sleep 1000")))
	}
	if err := syscall.Kill(runnerOf(t, p.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, k := range containers {
		if st := n.waitExit(k); st.ExitCode != 137 {
			t.Errorf("exit code %d", st.ExitCode)
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err := testpod.Poll(ctx, "the sandbox is still ready", func() (bool, error) {
		r, err := n.cri.Runtime.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
		return r.GetStatus().GetState() == runtime.PodSandboxState_SANDBOX_NOTREADY, err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestShimThatDiesLeavesNothing(t *testing.T) { eachWay(t, testShimThatDiesLeavesNothing) }

func testShimThatDiesLeavesNothing(n *node, way func(*runtime.PodSandboxConfig)) {
	t := n.T
	p := n.pod(way)
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.Shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	err = testpod.Poll(ctx, "the runner outlived its shim", func() (bool, error) { return !st.Runner.Alive(), nil })
	if err != nil {
		t.Error(err)
	}
	// containerd learns it from the connection, and tries again for a second or two: until then it refuses removal.
	if st := n.waitExit(k); st.ExitCode == 0 {
		t.Error("the container of a dead shim ended well")
	}
	// The inventory at the end shows that the taps, mounts and directories are gone as well.
}

// A client that goes away while its pod starts is answered with an error or, too late, with a pod; either can be removed.
func TestStopWhileThePodStarts(t *testing.T) {
	for what, reached := range stages {
		t.Run(what, func(t *testing.T) {
			n := newNode(t)
			config := n.cri.PodConfig("hasty")
			ctx, cancel := context.WithTimeout(n.ctx, patience)
			defer cancel()
			began := make(chan error, 1)
			go func() {
				_, err := n.cri.Run(ctx, handler, config)
				began <- err
			}()
			n.waitStage(config, reached)
			cancel()
			t.Logf("the start says: %v", <-began)
			n.removeAs(config)
		})
	}
}

// A stop that comes while the container starts ends it, before or after.
func TestStopWhileTheContainerStarts(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	for i := range 5 {
		k, err := p.Create(ctx, testpod.ContainerConfig(fmt.Sprint("hasty-", i), stubborn))
		if err != nil {
			t.Fatal(err)
		}
		began := make(chan error, 1)
		go func() { began <- k.Start(ctx) }()
		// CRI takes a container that does not run yet for one that is stopped: so it is asked again, all the while.
		err = testpod.Poll(ctx, "the container goes on", func() (bool, error) {
			if err := k.Stop(ctx, 0); err != nil {
				return false, fmt.Errorf("stop while it starts: %w", err)
			}
			st, err := k.Status(ctx)
			return st.GetState() == runtime.ContainerState_CONTAINER_EXITED, err
		})
		if err != nil {
			t.Error(err)
		}
		if err := <-began; err != nil {
			t.Errorf("the start of a container that is stopped meanwhile: %v", err)
		}
		if st := n.waitExit(k); st.ExitCode != 137 {
			t.Errorf("exit code %d, reason %s", st.ExitCode, st.Reason)
		}
		if err := k.Remove(ctx); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
}

func TestContainerKilledBeforeItsStartEnds(t *testing.T) {
	n := newNode(t)
	task := n.newContainer("early", oci.WithProcessArgs("sleep", "1000"))
	task.create(cio.NullIO)
	if err := task.task.Kill(task.ctx, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := task.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if err := task.task.Start(task.ctx); err == nil {
		t.Error("it started afterwards")
	}
	if st, err := task.task.Status(task.ctx); err != nil || st.Status != containerd.Stopped {
		t.Errorf("status %v (%v)", st, err)
	}
}
