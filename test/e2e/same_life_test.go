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
	compareWithRunc(t, "life", 80, func(s *side) {
		parent := s.podCgroup("life-" + s.handler)
		s.name(parent, "PARENT")
		p := s.startPod(func(c *runtime.PodSandboxConfig) { c.Linux.CgroupParent = parent })
		s.lookAtLog(p)
		s.lookAtLogRotation(p)
		s.lookAtTerminal(p)
		s.lookAtNeighbours(p)
		s.lookAtImageVolume(p)
		s.lookAtStatistics(p)
		s.lookAtRefusals(p)
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

// lookAtLogRotation moves a log away as the kubelet does, which then asks for a new file: no line may be lost or come twice.
func (s *side) lookAtLogRotation(p *testpod.Pod) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	k := s.container(p, testpod.ContainerConfig("rotated", "seq 1 2000; until [ -e /dev/shm/rotated ]; do sleep 0.1; done; seq 2001 4000; echo done"))
	s.name(k.ID, "CONTAINER")
	s.waitLog(k, "\n2000\n")
	old := k.LogPath() + ".1"
	if err := os.Rename(k.LogPath(), old); err != nil {
		s.Fatal(err)
	}
	_, err := s.cri.Runtime.ReopenContainerLog(ctx, &runtime.ReopenContainerLogRequest{ContainerId: k.ID})
	s.seeError("rotation/error", err)
	s.exec(k, "touch /dev/shm/rotated")
	s.waitLog(k, "done\n")
	s.waitExit(k)
	after, _, err := k.Log()
	if err != nil {
		s.Fatal(err)
	}
	data, err := os.ReadFile(old)
	if err != nil {
		s.Fatal(err)
	}
	before, _, err := testpod.ParseLog(data)
	s.see("rotation/old", fmt.Sprintf("%d lines of sha256 %x, %v", strings.Count(before, "\n"), sha256.Sum256([]byte(before)), err))
	s.see("rotation/new", fmt.Sprintf("%d lines of sha256 %x", strings.Count(after, "\n"), sha256.Sum256([]byte(after))))
	_, err = s.cri.Runtime.ReopenContainerLog(ctx, &runtime.ReopenContainerLogRequest{ContainerId: k.ID})
	s.seeError("rotation/error-after-the-end", err)
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

// load takes an amount of memory, of the writable layer, and of CPU time: of that so many seconds, since the same work
// takes longer in a nested VM.
const load = `dd if=/dev/zero of=/dev/shm/load bs=1000000 count=16; dd if=/dev/zero of=/written bs=100000 count=20 conv=fsync
	timeout 6 sh -c 'while :; do :; done'; sleep 999 & sleep 998 & echo ready; exec sleep 1000`

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
	s.see("limits/hugepages", s.exec(k, "cd /sys/fs/cgroup && cat hugetlb.2MB.max hugetlb.2MB.rsvd.max"))
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
	var stats *runtime.ContainerStats
	// containerd looks at the snapshots in rounds.
	err := testpod.Poll(ctx, "the writable layer holds nothing", func() (bool, error) {
		r, err := s.cri.Runtime.ContainerStats(ctx, &runtime.ContainerStatsRequest{ContainerId: k.ID})
		stats = r.GetStats()
		return stats.GetWritableLayer().GetUsedBytes().GetValue() >= 2000000, err
	})
	s.seeError("stats/error", err)
	s.seeUsage("stats/container.", stats.GetCpu(), stats.GetMemory())
	s.see("stats/container.cpu-seconds~", fmt.Sprint(float64(stats.GetCpu().GetUsageCoreNanoSeconds().GetValue())/1e9))
	s.see("stats/container.written~", fmt.Sprint(stats.GetWritableLayer().GetUsedBytes().GetValue()))
	s.see("stats/container.inodes", fmt.Sprint(stats.GetWritableLayer().GetInodesUsed().GetValue()))
}

// frames and frameSize are a fixed traffic, against which what an interface says by itself does not count.
const frames, frameSize = 20, 1400

// lookAtPodStatistics compares what is told of the pod as a whole.
func (s *side) lookAtPodStatistics(p *testpod.Pod, k *testpod.Container) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.exec(k, fmt.Sprintf("ping -c %d -s %d -i 0.2 $(ip route | sed -n 's|default via \\([^ ]*\\).*|\\1|p')", frames, frameSize))
	var pod *runtime.LinuxPodSandboxStats
	// containerd gathers these in rounds: at first there are none.
	err := testpod.Poll(ctx, "statistics of the pod", func() (bool, error) {
		r, err := s.cri.Runtime.PodSandboxStats(ctx, &runtime.PodSandboxStatsRequest{PodSandboxId: p.ID})
		pod = r.GetStats().GetLinux()
		return pod.GetMemory().GetUsageBytes().GetValue() > 0 && pod.GetNetwork().GetDefaultInterface().GetTxBytes().GetValue() > frames*frameSize, err
	})
	s.seeError("stats/pod-error", err)
	s.seeUsage("stats/pod.", pod.GetCpu(), pod.GetMemory())
	eth := pod.GetNetwork().GetDefaultInterface()
	s.see("stats/pod.interface", eth.GetName())
	s.see("stats/pod.received~", fmt.Sprint(eth.GetRxBytes().GetValue()))
	s.see("stats/pod.sent~", fmt.Sprint(eth.GetTxBytes().GetValue()))
	s.see("stats/pod.errors", fmt.Sprint(eth.GetRxErrors().GetValue(), eth.GetTxErrors().GetValue()))
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

// lookAtRefusals asks for what a node may not have.
func (s *side) lookAtRefusals(p *testpod.Pod) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	for name, change := range map[string]func(*runtime.LinuxContainerSecurityContext){
		"selinux": func(sc *runtime.LinuxContainerSecurityContext) {
			sc.SelinuxOptions = &runtime.SELinuxOption{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0:c1,c2"}
		},
		"selinux-wrong": func(sc *runtime.LinuxContainerSecurityContext) {
			sc.SelinuxOptions = &runtime.SELinuxOption{Level: "no level"}
		},
		"apparmor-localhost": func(sc *runtime.LinuxContainerSecurityContext) {
			sc.Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "localhost/e2e-none"}
		},
		"apparmor-default": func(sc *runtime.LinuxContainerSecurityContext) {
			sc.Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}
		},
		"apparmor-unconfined": func(sc *runtime.LinuxContainerSecurityContext) {
			sc.Apparmor = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
		},
	} {
		config := testpod.ContainerConfig(name, "tr '\\0' ' ' </proc/self/attr/current; exit 3")
		change(config.Linux.SecurityContext)
		k, err := p.Create(ctx, config)
		s.seeError(name+"/create", err)
		if err != nil {
			continue
		}
		s.name(k.ID, "CONTAINER")
		err = k.Start(ctx)
		s.seeError(name+"/start", err)
		if err == nil {
			s.see(name+"/exit", fmt.Sprint(s.waitExit(k).ExitCode))
			out, errs, err := k.Log()
			s.see(name+"/log", fmt.Sprint(out, errs, err))
		}
	}
	k := s.container(p, testpod.ContainerConfig("checkpointed", "exec sleep 1000"))
	s.name(k.ID, "CONTAINER")
	_, err := s.cri.Runtime.CheckpointContainer(ctx, &runtime.CheckpointContainerRequest{ContainerId: k.ID, Location: p.Config.LogDirectory + "/checkpoint"})
	s.seeError("checkpoint/error", err)
	s.see("checkpoint/afterwards", s.exec(k, "echo fine"))
}
