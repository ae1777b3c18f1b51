package guest

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/sysctl"
)

const (
	// CgroupRoot is where the cgroup2 hierarchy of the guest is mounted.
	CgroupRoot = "/sys/fs/cgroup"
	// ContainersGroup is the cgroup below which each container has its own, so that the pod's sum can be read.
	ContainersGroup = "/krunpod"
	agentGroup      = "/agent"

	// threadReserve is how many of the guest's threads (threads-max of proc(5)) are kept from the containers together:
	// a pod that forks without end must still be stopped, and looked into.
	threadReserve = 512
)

// Cgroups moves the agent into a cgroup of its own and hands every controller to the containers' group.
func Cgroups() error {
	for _, g := range []string{agentGroup, ContainersGroup} {
		if err := os.Mkdir(CgroupRoot+g, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if err := os.WriteFile(CgroupRoot+agentGroup+"/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	list, err := os.ReadFile(CgroupRoot + "/cgroup.controllers")
	if err != nil {
		return err
	}
	controllers := strings.Fields(string(list))
	for _, g := range []string{"", ContainersGroup} {
		file := filepath.Join(CgroupRoot, g, "cgroup.subtree_control")
		if err := os.WriteFile(file, []byte(enableAll(controllers)), 0); err != nil {
			return fmt.Errorf("enable %v: %w", controllers, err)
		}
	}
	return reserveThreads()
}

// reserveThreads bounds the threads of all containers together: pids.max of cgroup-v2's pids controller.
func reserveThreads() error {
	most, err := threadsMax()
	if err != nil {
		return err
	}
	limit := max(most-threadReserve, most/2)
	if err := os.WriteFile(CgroupRoot+ContainersGroup+"/pids.max", []byte(strconv.Itoa(limit)), 0); err != nil {
		return fmt.Errorf("reserve threads for the agent: %w", err)
	}
	return nil
}

// threadsMax is how many threads the guest can have: the kernel sizes threads-max by its memory, and every thread needs
// an id.
func threadsMax() (int, error) {
	most := math.MaxInt
	for _, name := range []string{"threads-max", "pid_max"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return 0, fmt.Errorf("kernel.%s: %w", name, err)
		}
		most = min(most, n)
	}
	return most, nil
}

func enableAll(controllers []string) string {
	var b strings.Builder
	for _, c := range controllers {
		b.WriteString("+" + c + " ")
	}
	return b.String()
}

// Limits raises what containers inherit from PID 1 to what they inherit from a containerd with its own unit file
// (LimitNOFILE, LimitNPROC), except that nobody here collects core files, so that there are none unless a container
// raises its soft limit. It sets the kernel parameters that the kubelet sets on a node, except that a
// kernel in trouble stops at once: its end is the pod's end, which the host sees.
func Limits() error {
	const files = 1 << 20
	limits := []struct {
		what       int
		soft, hard uint64
	}{
		{unix.RLIMIT_NOFILE, files, files},
		{unix.RLIMIT_NPROC, unix.RLIM_INFINITY, unix.RLIM_INFINITY},
		{unix.RLIMIT_CORE, 0, unix.RLIM_INFINITY},
	}
	for _, l := range limits {
		// Package syscall's: package unix's would leave the Go runtime with the old value to restore in children.
		if err := syscall.Setrlimit(l.what, &syscall.Rlimit{Cur: l.soft, Max: l.hard}); err != nil {
			return fmt.Errorf("set resource limit %d: %w", l.what, err)
		}
	}
	total, err := totalMemory()
	if err != nil {
		return err
	}
	if err := sysctl.Apply(sysctl.Root, map[string]string{
		"vm.min_free_kbytes":   strconv.FormatUint(minFreeKiB(total>>10), 10),
		"kernel.panic":         "-1",
		"kernel.panic_on_oops": "1",
		"vm.overcommit_memory": "1",
		"kernel.pid_max":       "32768", // a kernel of CONFIG_BASE_SMALL, as libkrunfw's is, starts with 4096
	}); err != nil {
		return err
	}
	for name, value := range whereKnown {
		if err := sysctl.Write(sysctl.Root, name, value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func totalMemory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("size of the guest's memory: %w", err)
	}
	return info.Totalram * uint64(info.Unit), nil
}

// minFreeKiB is how much of the guest's memory its kernel keeps free, from which it lets nobody take but itself: what it
// computes from its size (calculate_min_free_kbytes, mm/page_alloc.c). With transparent huge pages it then takes 22 MiB
// instead, however small it is (set_recommended_min_free_kbytes, mm/khugepaged.c), which a pod would have to pay for.
func minFreeKiB(totalKiB uint64) uint64 {
	const least, most = 128, 256 << 10
	return min(max(uint64(math.Sqrt(float64(totalKiB*16))), least), most)
}

// whereKnown are parameters that a kernel may lack. The first ones are what distributions set on every node. Without the one after them
// the guest looks twice a second whether its memory should be compacted ahead of need (kcompactd, mm/compaction.c), which wakes an idle pod. The next is
// for a guest whose way to the node takes longer than the half millisecond of a machine of metal: each frame is dear there, and TCP makes
// small ones of what is slow (tcp_tso_autosize, net/ipv4/tcp_output.c), which is slow then because of them, and stays so. With 12 a frame
// may be 64 KiB where the shortest round trip takes less than 4 ms, not 0.5, and half as large for each 4 ms more. The last
// one lets a container with CAP_SYS_NICE have real-time threads: with CONFIG_RT_GROUP_SCHED, as libkrunfw has it, a
// cgroup has no time for them otherwise, and cgroup v2 no file to give it some.
var whereKnown = map[string]string{
	"fs.protected_hardlinks":           "1",
	"fs.protected_symlinks":            "1",
	"kernel.dmesg_restrict":            "1",
	"kernel.unprivileged_bpf_disabled": "2",
	"vm.mmap_min_addr":                 "65536",
	"vm.compaction_proactiveness":      "0",
	"net.ipv4.tcp_tso_rtt_log":         "12",
	"kernel.sched_rt_runtime_us":       "-1",
}

// clockTolerance is how far the guest's clock may be off before it is set: less is the cost of the way here.
const clockTolerance = 500 * time.Millisecond

// SetClock sets the wall clock to now, the host's, unless it is right already.
func SetClock(now time.Time) error {
	if d := time.Since(now); d < clockTolerance && d > -clockTolerance {
		return nil
	}
	t := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &t); err != nil {
		return fmt.Errorf("set clock: %w", err)
	}
	return nil
}
