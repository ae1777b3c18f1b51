package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// The bytes of the log, and what CRI tells of pods, containers and what they use.
func TestSameLogsAndStatistics(t *testing.T) {
	compareWithRunc(t, "life", func(s *side) {
		p := s.startPod()
		s.lookAtLog(p)
		s.lookAtTerminal(p)
		s.lookAtNeighbours(p)
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

const load = `head -c 16000000 /dev/zero >/dev/shm/load; head -c 2000000 /dev/zero >/written
	sleep 999 & sleep 998 & echo ready; exec sleep 1000`

// lookAtStatistics runs a load and compares what is measured of it, then changes its limits.
func (s *side) lookAtStatistics(p *testpod.Pod) {
	s.Helper()
	config := testpod.ContainerConfig("load", load)
	config.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, CpuPeriod: 100000, CpuQuota: 80000, CpuShares: 1024}
	k := s.container(p, config)
	s.name(k.ID, "CONTAINER")
	s.waitLog(k, "ready")
	s.lookAtUsage(k)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
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

func (s *side) seeUsage(prefix string, cpu *runtime.CpuUsage, memory *runtime.MemoryUsage) {
	s.see(prefix+"cpu-used", fmt.Sprint(cpu.GetUsageCoreNanoSeconds().GetValue() > 0))
	s.see(prefix+"cpu-time", fmt.Sprint(cpu.GetTimestamp() > 0))
	s.see(prefix+"working-set~", fmt.Sprint(memory.GetWorkingSetBytes().GetValue()))
	s.see(prefix+"memory~", fmt.Sprint(memory.GetUsageBytes().GetValue()))
	s.see(prefix+"rss-told", fmt.Sprint(memory.GetRssBytes().GetValue() > 0)) // a few pages of a shell: no measure
	s.see(prefix+"available~", fmt.Sprint(memory.GetAvailableBytes().GetValue()))
}
