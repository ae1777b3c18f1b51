package e2e

import (
	"context"
	"os"
	"os/exec"
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
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	if err := syscall.Kill(runnerOf(t, p.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if st := n.waitExit(k); st.ExitCode != 137 {
		t.Errorf("exit code %d", st.ExitCode)
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

func TestStopWhileThePodStarts(t *testing.T) {
	n := newNode(t)
	config := n.cri.PodConfig("hasty")
	ctx, cancel := context.WithTimeout(n.ctx, 1500*time.Millisecond)
	defer cancel()
	p, err := n.cri.Run(ctx, handler, config)
	if err == nil {
		t.Log("the pod was quicker than its client's patience")
		if err := p.Remove(n.ctx); err != nil {
			t.Error(err)
		}
		return
	}
	// The client has gone.
	n.removeAs(config)
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
