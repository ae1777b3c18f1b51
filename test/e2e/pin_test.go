package e2e

import (
	"os"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// pinnedTo is what the sandbox's cgroup says of the node's CPUs.
func pinnedTo(t *testing.T, p *testpod.Pod) string {
	t.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := os.ReadFile(cgroupRoot + st.Cgroup + "/cpuset.cpus")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(cpus))
}

func TestAPodStaysOnTheCPUsOfItsContainers(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	exclusive := testpod.ContainerConfig("exclusive", "exec sleep 1000")
	exclusive.Linux.Resources = &runtime.LinuxContainerResources{CpusetCpus: "0"}
	k := n.container(p, exclusive)
	if got := pinnedTo(t, p); got != "0" {
		t.Errorf("the microVM may run on CPUs %q", got)
	}
	free := n.container(p, testpod.ContainerConfig("free", "exec sleep 1000"))
	all, err := os.ReadFile(cgroupRoot + "/cpuset.cpus.effective")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := pinnedTo(t, p), strings.TrimSpace(string(all)); got != want {
		t.Errorf("with a container that may run on all, it may run on CPUs %q, want %q", got, want)
	}
	// What the kubelet's CPU manager does to those that share CPUs.
	_, err = n.cri.Runtime.UpdateContainerResources(n.ctx, &runtime.UpdateContainerResourcesRequest{
		ContainerId: free.ID, Linux: &runtime.LinuxContainerResources{CpusetCpus: "0"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := pinnedTo(t, p); got != "0" {
		t.Errorf("after the update it may run on CPUs %q", got)
	}
	if out := n.exec(k, "echo runs"); out != "runs\n" {
		t.Errorf("exec says %q", out)
	}
}
