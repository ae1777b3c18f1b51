package e2e

import (
	"context"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// freeze stops the VM of a pod, which then is like a guest that answers nothing any more, until thaw.
func (n *node) freeze(p *testpod.Pod) (thaw func()) {
	n.Helper()
	runner := runnerOf(n.T, p.ID)
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(runner, sig); err != nil {
			n.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

func TestGuestThatIsFrozenDoesNotHoldItsPod(t *testing.T) {
	n := newNode(t)
	logged := n.containerdLog()
	p := n.pod()
	for _, name := range []string{"a", "b"} {
		n.container(p, testpod.ContainerConfig(name, "exec sleep 1000"))
	}
	n.freeze(p)
	// The kubelet allows for two minutes (runtimeRequestTimeout).
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	if err := p.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged(), "the microVM is killed") {
		t.Error("containerd's log does not say why the microVM ended")
	}
}

// The calls fill what lies between the host and the guest, so that the next one cannot even be sent.
func TestGuestThatTakesNoCallsDoesNotHoldItsPod(t *testing.T) {
	n := newNode(t)
	logged := n.containerdLog()
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("a", "exec sleep 1000"))
	n.freeze(p)
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	var calls sync.WaitGroup
	defer calls.Wait()
	for range 64 {
		calls.Go(func() { _, _, _, _ = k.Exec(ctx, ": "+strings.Repeat("x", 16<<10)) })
	}
	err := testpod.Poll(ctx, "the end of the pod, which was asked for nothing", func() (bool, error) {
		r, err := n.cri.Runtime.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
		return r.GetStatus().GetState() == runtime.PodSandboxState_SANDBOX_NOTREADY, err
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.Remove(ctx); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged(), "has taken nothing off the control connection") {
		t.Error("containerd's log does not say why the microVM ended")
	}
}

func TestGuestThatIsFrozenDoesNotHoldTheStatisticsOfOthers(t *testing.T) {
	n := newNode(t)
	frozen, other := n.pod(), n.pod()
	for _, name := range []string{"a", "b", "c"} {
		n.container(frozen, testpod.ContainerConfig(name, "exec sleep 1000"))
	}
	k := n.container(other, testpod.ContainerConfig("main", "exec sleep 1000"))
	thaw := n.freeze(frozen)
	defer thaw()
	began := time.Now()
	r, err := n.cri.Runtime.ListContainerStats(n.ctx, &runtime.ListContainerStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the statistics of the node took %v", took)
	}
	if !slices.ContainsFunc(r.Stats, func(s *runtime.ContainerStats) bool {
		return s.Attributes.Id == k.ID && s.Memory.GetUsageBytes().GetValue() > 0
	}) {
		t.Errorf("nothing of the other pod's container in %v", r.Stats)
	}
	pods, err := n.cri.Runtime.ListPodSandboxStats(n.ctx, &runtime.ListPodSandboxStatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*testpod.Pod{frozen, other} {
		if !slices.ContainsFunc(pods.Stats, func(s *runtime.PodSandboxStats) bool {
			return s.Attributes.Id == p.ID && s.Linux.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 0
		}) {
			t.Errorf("nothing of the pod %s in %v", p.ID, pods.Stats)
		}
	}
}
