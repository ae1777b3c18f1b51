package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// observeImage has busybox, and observe, which says what it sees of its container (test/images/observe).
const observeImage = "localhost/krunpod/observe:1"

// insiders are the containers in which TestSameInside looks around. Each has several settings that do not hide one
// another, since a container costs seconds in an emulated node.
var insiders = []struct {
	name string
	// exec is whether an exec looks around too.
	exec   bool
	change func(*runtime.ContainerConfig, *runtime.LinuxContainerSecurityContext)
}{
	{"plain", true, func(*runtime.ContainerConfig, *runtime.LinuxContainerSecurityContext) {}},
	{"user", true, func(c *runtime.ContainerConfig, sc *runtime.LinuxContainerSecurityContext) {
		sc.RunAsUser, sc.RunAsGroup = &runtime.Int64Value{Value: 1000}, &runtime.Int64Value{Value: 2000}
		sc.SupplementalGroups = []int64{3000, 4000}
		sc.NoNewPrivs = true
		c.Stdin = true
		c.WorkingDir = "/made/for/it"
		c.Envs = []*runtime.KeyValue{{Key: "EMPTY"}, {Key: "ODD", Value: []byte("a=b c\t\"'$x\\ü\x01\xff")},
			{Key: "HOME", Value: []byte("/h")}, {Key: "HOME", Value: []byte("/again")}}
	}},
	{"confined", false, func(c *runtime.ContainerConfig, sc *runtime.LinuxContainerSecurityContext) {
		sc.Capabilities = &runtime.Capability{DropCapabilities: []string{"ALL"}}
		sc.Seccomp = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
		c.Linux.Resources = &runtime.LinuxContainerResources{
			CpuPeriod: 100000, CpuQuota: 90000, CpuShares: 512, MemoryLimitInBytes: 96 << 20, OomScoreAdj: 500,
			Unified: map[string]string{"pids.max": "77", "memory.min": "1048576", "memory.high": "83886080", "memory.oom.group": "1",
				"memory.swap.max": "0"},
		}
	}},
	{"readonly", false, func(_ *runtime.ContainerConfig, sc *runtime.LinuxContainerSecurityContext) {
		sc.RunAsUser = &runtime.Int64Value{Value: 1000}
		sc.ReadonlyRootfs = true
		sc.MaskedPaths = []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/etc/passwd"}
		sc.ReadonlyPaths = []string{"/proc/sys", "/proc/sysrq-trigger", "/tmp"}
		sc.Capabilities = &runtime.Capability{AddCapabilities: []string{"NET_ADMIN", "SYS_NICE"},
			DropCapabilities: []string{"CHOWN", "MKNOD"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}
	}},
	{"privileged", false, func(c *runtime.ContainerConfig, sc *runtime.LinuxContainerSecurityContext) {
		sc.Privileged, c.Tty, c.Stdin = true, true, true
	}},
}

// What a container and an exec see and may do, for every setting of a security context.
func TestSameInside(t *testing.T) {
	// The node keeps this from its first microVM on; the guest has another of that name.
	if err := os.MkdirAll(cgroupRoot+"/krunpod", 0o755); err != nil {
		t.Fatal(err)
	}
	compareWithRunc(t, "inside", 3000, func(s *side) {
		p := s.startPod(func(c *runtime.PodSandboxConfig) {
			c.Linux.SecurityContext.Privileged = true // else no container may be
			c.Linux.Sysctls = map[string]string{"net.ipv4.ip_local_port_range": "20000 30000", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "20"}
			c.DnsConfig.Options = []string{"ndots:5", "edns0"}
		})
		for _, in := range insiders {
			config := testpod.ContainerConfig(in.name, "observe; exec sleep 1000")
			config.Image.Image = observeImage
			in.change(config, config.Linux.SecurityContext)
			s.lookInside(p, in.name, in.exec, config)
		}
	}, "krun", "krun-podsandbox")
}

func (s *side) lookInside(p *testpod.Pod, name string, exec bool, config *runtime.ContainerConfig) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 2*patience)
	defer cancel()
	k, err := p.Run(ctx, config)
	s.seeError(name+"/start", err)
	if err != nil {
		return
	}
	s.name(k.ID, "CONTAINER")
	s.waitLog(k, "observed to the end")
	out, errs, err := k.Log()
	if err != nil {
		s.Fatal(err)
	}
	s.seeLines(name+"/", out)
	s.see(name+"/stderr", errs)
	if exec {
		s.observed(k, name+"/exec/")
	}
	// One at a time: the memory of a small guest is shared.
	if err := k.Stop(ctx, 0); err != nil {
		s.Error(err)
	}
}

// seeLines records what observe printed.
func (s *side) seeLines(prefix, text string) {
	for l := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(l, "\r\n"), " "); ok {
			s.see(prefix+key, value)
		}
	}
}

// observed runs observe in a running container.
func (s *side) observed(k *testpod.Container, prefix string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	out, errs, exit, err := k.Exec(ctx, "exec observe")
	if err != nil {
		s.Fatalf("%s: %v", s.handler, err)
	}
	s.seeLines(prefix, out)
	s.see(prefix+"exit", fmt.Sprint(exit, " ", errs))
}
