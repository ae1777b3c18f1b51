package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

func TestLimitBeyondTheVMIsRefusedByNameAndChangesNothing(t *testing.T) {
	n := newNode(t)
	config := testpod.ContainerConfig("main", "exec sleep 1000")
	config.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuPeriod: 100000, CpuQuota: 50000}
	k := n.container(n.pod(), config)
	const limits = "cd /sys/fs/cgroup && cat memory.max cpu.max"
	before := n.exec(k, limits)
	for what, c := range map[string]struct {
		resources  *runtime.LinuxContainerResources
		annotation string
	}{
		"memory": {&runtime.LinuxContainerResources{MemoryLimitInBytes: 1 << 40}, "krun.dev/memory-mib"},
		"CPUs":   {&runtime.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 100000 * 1000}, "krun.dev/vcpus"},
	} {
		ctx, cancel := context.WithTimeout(n.ctx, patience)
		defer cancel()
		_, err := n.cri.Runtime.UpdateContainerResources(ctx, &runtime.UpdateContainerResourcesRequest{ContainerId: k.ID, Linux: c.resources})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "microVM") || !strings.Contains(err.Error(), c.annotation) {
			t.Errorf("more %s than the VM has: %v", what, err)
		}
		if now := n.exec(k, limits); now != before {
			t.Errorf("after the refusal of more %s the limits are %q, before it %q", what, now, before)
		}
	}
}

// hugeEnv makes this binary one that takes so many huge pages and says whether it got them.
const hugeEnv = "KRUNPOD_E2E_HUGE_PAGES"

const hugePage = 2 << 20

func takeHugePages(count string) {
	n, err := strconv.Atoi(count)
	if err != nil {
		panic(err)
	}
	data, err := unix.Mmap(-1, 0, n*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	if err != nil {
		fmt.Println(n, "huge pages:", err)
		os.Exit(0)
	}
	for i := 0; i < len(data); i += hugePage {
		data[i] = 1
	}
	fmt.Println(n, "huge pages: taken")
	os.Exit(0)
}

// A container gets huge pages of the guest up to its limit. The guest has none until somebody who may makes them.
func TestHugePagesEndAtTheContainersLimit(t *testing.T) {
	n := newNode(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := n.pod(func(c *runtime.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := testpod.ContainerConfig("admin", "exec sleep 1000")
	config.Linux.SecurityContext.Privileged = true
	admin := n.container(p, config)
	if got := n.exec(admin, "echo 8 >/proc/sys/vm/nr_hugepages && cat /proc/sys/vm/nr_hugepages"); got != "8\n" {
		t.Fatalf("the guest makes %q of 8 huge pages", got)
	}
	config = testpod.ContainerConfig("limited", fmt.Sprintf("for n in 2 3; do %s=$n /e2e.test; done", hugeEnv))
	config.Mounts = []*runtime.Mount{{HostPath: self, ContainerPath: "/e2e.test", Readonly: true}}
	// The kubelet gives a limit for each size that the node has, which the guest need not have.
	config.Linux.Resources = &runtime.LinuxContainerResources{HugepageLimits: []*runtime.HugepageLimit{
		{PageSize: "2MB", Limit: 2 * hugePage}, {PageSize: "1GB", Limit: 0}}}
	k := n.container(p, config)
	n.waitExit(k)
	out, errs, err := k.Log()
	if want := "2 huge pages: taken\n3 huge pages: cannot allocate memory\n"; err != nil || out != want {
		t.Errorf("a container with a limit of 2 says %q, %q, %v; want %q", out, errs, err, want)
	}
}
