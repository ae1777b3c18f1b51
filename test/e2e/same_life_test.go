package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// The bytes of the log, and what CRI tells of pods, containers and what they use.
func TestSameLogsAndStatistics(t *testing.T) {
	compareWithRunc(t, "life", func(s *side) {
		parent := s.podCgroup("life-" + s.handler)
		s.name(parent, "PARENT")
		p := s.startPod(func(c *runtime.PodSandboxConfig) { c.Linux.CgroupParent = parent })
		s.lookAtLog(p)
		s.lookAtTerminal(p)
		s.lookAtNeighbours(p)
		s.lookAtImageVolume(p)
		s.lookAtStatistics(p)
	}, "krun")
}

// lookAtLog compares line by line, without the time: KIND, P or F, and what was written.
func (s *side) lookAtLog(p *testpod.Pod) {
	s.Helper()
	k := s.container(p, testpod.ContainerConfig("log", `printf 'one\n\n\r\ntab\there\000nul\377\n'; echo err >&2
		head -c 40000 /dev/zero | tr '\000' x; echo; printf 'e\nno newline' >&2; printf 'none here either'`))
	s.name(k.ID, "CONTAINER")
	s.waitExit(k)
	data, err := os.ReadFile(k.LogPath())
	if err != nil {
		s.Fatal(err)
	}
	n := map[string]int{}
	last, inOrder := "", true
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(line, " ", 3)
		_, err := time.Parse(time.RFC3339Nano, f[0])
		inOrder = inOrder && err == nil && f[0][:19] >= last
		last = f[0][:19]
		text := f[2]
		if len(text) > 1000 {
			text = fmt.Sprintf("%s %d bytes of sha256 %x", text[:1], len(text), sha256.Sum256([]byte(text)))
		}
		s.see(fmt.Sprint("log/", f[1], ".", n[f[1]]), text)
		n[f[1]]++
	}
	s.see("log/in-order", fmt.Sprint(inOrder))
}

func (s *side) lookAtTerminal(p *testpod.Pod) {
	s.Helper()
	config := testpod.ContainerConfig("terminal", `tty; stty -a; printf 'a\nb'; echo err >&2; test -t 0 && echo in; env | sort`)
	config.Tty = true
	k := s.container(p, config)
	s.waitExit(k)
	out, errs, err := k.Log()
	s.see("terminal/log", fmt.Sprint(out, "/", errs, "/", err))
}

// lookAtNeighbours is what containers of a pod share.
func (s *side) lookAtNeighbours(p *testpod.Pod) {
	s.Helper()
	a := s.container(p, testpod.ContainerConfig("a", "hostname; echo from-a >/dev/shm/a; cp /bin/true /dev/shm/true; nc -l -p 7777 -e echo hello; exec sleep 1000"))
	s.waitLog(a, "\n")
	target := testpod.ContainerConfig("debug", "exec sleep 2000")
	target.Linux.SecurityContext.NamespaceOptions = &runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET, TargetId: a.ID}
	b := s.container(p, target)
	for name, script := range map[string]string{
		"shm": "cat /dev/shm/a", "shm-execute": "/dev/shm/true && echo yes", "hostname": "hostname; cat /proc/sys/kernel/hostname",
		"localhost": "nc 127.0.0.1 7777", "root-of-target": "cat /proc/1/root/etc/passwd | head -1",
		"signal-target": "kill -0 1 && echo yes",
	} {
		out, errs, exit, err := b.Exec(s.ctx, script)
		s.see("neighbours/"+name, fmt.Sprint(out, errs, exit, err))
	}
}

// lookAtImageVolume mounts an image as a volume, and part of one.
func (s *side) lookAtImageVolume(p *testpod.Pod) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	config := testpod.ContainerConfig("image-volume", `ls -l /image | head -3; ls /part | head -3
		touch /image/written; echo $?; grep -E ' /(image|part) ' /proc/self/mounts | cut -d' ' -f2,4 | cut -d, -f1; /part/true && echo executed`)
	image := &runtime.ImageSpec{Image: testpod.DefaultImage}
	config.Mounts = []*runtime.Mount{
		{ContainerPath: "/image", Image: image, Readonly: true},
		{ContainerPath: "/part", Image: image, ImageSubPath: "bin", Readonly: true},
	}
	k, err := p.Run(ctx, config)
	s.seeError("image-volume/start", err)
	if err != nil {
		return
	}
	s.name(k.ID, "CONTAINER")
	s.waitExit(k)
	out, errs, err := k.Log()
	s.see("image-volume/log", fmt.Sprint(out, errs, err))
}

const load = `head -c 16000000 /dev/zero >/dev/shm/load; head -c 2000000 /dev/zero >/written
	sleep 999 & sleep 998 & echo ready; exec sleep 1000`

// lookAtStatistics runs a load and compares what is measured of it, then changes its limits.
func (s *side) lookAtStatistics(p *testpod.Pod) {
	s.Helper()
	config := testpod.ContainerConfig("load", load)
	config.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, CpuPeriod: 100000, CpuQuota: 80000, CpuShares: 1024,
		HugepageLimits: []*runtime.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}}}
	k := s.container(p, config)
	s.name(k.ID, "CONTAINER")
	s.waitLog(k, "ready")
	s.lookAtUsage(k)
	s.lookAtPodStatistics(p, k)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.see("limits/hugepages", s.exec(k, "cat /sys/fs/cgroup/hugetlb.2MB.max"))
	_, err := s.cri.Runtime.UpdateContainerResources(ctx, &runtime.UpdateContainerResourcesRequest{ContainerId: k.ID,
		Linux: &runtime.LinuxContainerResources{MemoryLimitInBytes: 160 << 20, CpuPeriod: 50000, CpuQuota: 30000, CpuShares: 256}})
	s.seeError("update/error", err)
	s.see("update/cgroup", s.exec(k, "cd /sys/fs/cgroup && cat cpu.max cpu.weight memory.max"))
	st, err := k.Status(ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.seeMessage("status", st)
	s.seeMessage("pod-status", s.status(p))
}

func (s *side) lookAtUsage(k *testpod.Container) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	r, err := s.cri.Runtime.ContainerStats(ctx, &runtime.ContainerStatsRequest{ContainerId: k.ID})
	s.seeError("stats/error", err)
	s.seeUsage("stats/container.", r.GetStats().GetCpu(), r.GetStats().GetMemory())
}

// lookAtPodStatistics compares what is told of the pod as a whole.
func (s *side) lookAtPodStatistics(p *testpod.Pod, k *testpod.Container) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.exec(k, "ping -c 3 $(ip route | sed -n 's|default via \\([^ ]*\\).*|\\1|p')")
	var pod *runtime.LinuxPodSandboxStats
	// containerd gathers these in rounds: at first there are none.
	err := testpod.Poll(ctx, "statistics of the pod", func() (bool, error) {
		r, err := s.cri.Runtime.PodSandboxStats(ctx, &runtime.PodSandboxStatsRequest{PodSandboxId: p.ID})
		pod = r.GetStats().GetLinux()
		return pod.GetMemory().GetUsageBytes().GetValue() > 0 && pod.GetNetwork().GetDefaultInterface().GetTxBytes().GetValue() > 0, err
	})
	s.seeError("stats/pod-error", err)
	s.seeUsage("stats/pod.", pod.GetCpu(), pod.GetMemory())
	eth := pod.GetNetwork().GetDefaultInterface()
	s.see("stats/pod.interface", eth.GetName())
	s.see("stats/pod.received", fmt.Sprint(eth.GetRxBytes().GetValue() > 0, eth.GetRxErrors().GetValue()))
	s.see("stats/pod.sent", fmt.Sprint(eth.GetTxBytes().GetValue() > 0, eth.GetTxErrors().GetValue()))
	s.see("stats/pod.processes", fmt.Sprint(pod.GetProcess().GetProcessCount().GetValue()))
	var names []string
	for _, c := range pod.GetContainers() {
		names = append(names, c.GetAttributes().GetMetadata().GetName())
	}
	slices.Sort(names)
	s.see("stats/pod.containers", fmt.Sprint(names))
}

func (s *side) seeUsage(prefix string, cpu *runtime.CpuUsage, memory *runtime.MemoryUsage) {
	s.see(prefix+"cpu-used", fmt.Sprint(cpu.GetUsageCoreNanoSeconds().GetValue() > 0))
	s.see(prefix+"cpu-time", fmt.Sprint(cpu.GetTimestamp() > 0))
	s.see(prefix+"working-set~", fmt.Sprint(memory.GetWorkingSetBytes().GetValue()))
	s.see(prefix+"memory~", fmt.Sprint(memory.GetUsageBytes().GetValue()))
	s.see(prefix+"rss-told", fmt.Sprint(memory.GetRssBytes().GetValue() > 0)) // a few pages of a shell: no measure
	s.see(prefix+"available~", fmt.Sprint(memory.GetAvailableBytes().GetValue()))
}
