package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

const (
	// enableEnv says that this machine is a node to test on: the tests start pods and restart containerd.
	enableEnv = "KRUNPOD_E2E"
	handler   = "krun"
	// patience bounds every step of a test, in an emulated node.
	patience = 90 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serve()
	}
	if dirs := os.Getenv(watchEnv); dirs != "" {
		watch(strings.Split(dirs, ":"))
	}
	if role := os.Getenv(neighbourEnv); role != "" {
		neighbour(role)
	}
	if role := os.Getenv(ipcEnv); role != "" {
		ipc(role)
	}
	if count := os.Getenv(hugeEnv); count != "" {
		takeHugePages(count)
	}
	if os.Getpid() == 1 {
		for { // the init of a guest that never answers, see TestGuestThatNeverAnswersIsGivenUp
			time.Sleep(time.Hour)
		}
	}
	if os.Getenv(enableEnv) == "" {
		println("end-to-end tests run on a node: make e2e (or " + enableEnv + "=1 on one's own)")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// node is what a test works with.
type node struct {
	*testing.T
	cri *testpod.Client
	ctx context.Context
}

// newNode connects to containerd and makes the test fail for what it leaves on the node.
func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeFor(t, 8*time.Minute)
}

// newNodeFor is newNode for a test that may take as long as limit.
func newNodeFor(t *testing.T, limit time.Duration) *node {
	t.Helper()
	before, err := testpod.TakeInventory()
	if err != nil {
		t.Fatal(err)
	}
	c, err := testpod.Dial(testpod.Address(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	n := &node{t, c, ctx}
	t.Cleanup(func() {
		defer cancel()
		n.checkLeftovers(before)
		c.Close()
	})
	return n
}

const cgroupRoot = "/sys/fs/cgroup"

// podCgroup makes the cgroup of a pod, as the kubelet does, for the time of the test.
func (n *node) podCgroup(name string) string {
	n.Helper()
	parent := "/krunpod-e2e-" + name
	if err := os.Mkdir(cgroupRoot+parent, 0o755); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		if err := os.Remove(cgroupRoot + parent); err != nil {
			n.Error(err)
		}
	})
	return parent
}

// checkLeftovers names what the test left on the node.
func (n *node) checkLeftovers(before testpod.Inventory) {
	left, err := testpod.Leftovers(context.Background(), before)
	for _, l := range left {
		n.Errorf("left behind: %s", l)
	}
	if err != nil {
		n.Error(err)
	}
}

// pod runs a pod and removes it when the test ends.
func (n *node) pod(change ...func(*runtime.PodSandboxConfig)) *testpod.Pod {
	n.Helper()
	return n.podOf(handler, change...)
}

func (n *node) podOf(handler string, change ...func(*runtime.PodSandboxConfig)) *testpod.Pod {
	n.Helper()
	config := n.cri.PodConfig("pod")
	for _, f := range change {
		f(config)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	p, err := n.cri.Run(ctx, handler, config)
	if err != nil {
		n.Fatalf("RunPodSandbox: %v", err)
	}
	n.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Remove(ctx); err != nil {
			n.Error(err)
		}
	})
	return p
}

// container runs a container in a pod.
func (n *node) container(p *testpod.Pod, config *runtime.ContainerConfig) *testpod.Container {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	k, err := p.Run(ctx, config)
	if err != nil {
		n.Fatalf("run container %s: %v", config.Metadata.Name, err)
	}
	return k
}

// exec runs a script in a container that must succeed, and returns its standard output.
func (n *node) exec(k *testpod.Container, script string) string {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	out, errs, exit, err := k.Exec(ctx, script)
	if err != nil {
		n.Fatalf("exec %q: %v", script, err)
	}
	if exit != 0 {
		n.Fatalf("exec %q: exit %d, stdout %q, stderr %q", script, exit, out, errs)
	}
	return out
}

func (n *node) waitLog(k *testpod.Container, text string) string {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	out, err := k.WaitLog(ctx, text)
	if err != nil {
		n.Fatal(err)
	}
	return out
}

func (n *node) waitExit(k *testpod.Container) *runtime.ContainerStatus {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	st, err := k.WaitExit(ctx)
	if err != nil {
		n.Fatal(err)
	}
	return st
}
