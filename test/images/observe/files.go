package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts are those of this mount namespace (proc_pid_mountinfo(5)): how, of what, and in which order.
func mounts() {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		seeError("mount", err)
	}
	var order []string
	for line := range strings.Lines(string(data)) {
		own, of, _ := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(own), strings.Fields(of)
		key := "mount." + left[4]
		if n := countOf(order, left[4]); n > 0 {
			key += fmt.Sprint("#", n)
		}
		order = append(order, left[4])
		see(key+".root", left[3])
		see(key+".options", left[5])
		// Peer groups have numbers of the whole kernel.
		propagation, _, _ := strings.Cut(strings.Join(left[6:], " "), ":")
		see(key+".propagation", propagation)
		see(key+".type", right[0])
		see(key+".source", right[1])
		// A newer kernel does not show inode64, its default, and an older one does.
		super := slices.DeleteFunc(strings.Split(right[2], ","), func(o string) bool { return o == "inode64" })
		slices.Sort(super)
		see(key+".super", strings.Join(super, ","))
	}
	see("mount-order", strings.Join(order, " "))
}

func countOf(list []string, s string) (n int) {
	for _, l := range list {
		if l == s {
			n++
		}
	}
	return n
}

func files() {
	devices, _ := filepath.Glob("/dev/*") // the pattern is well formed
	for _, path := range append(devices, "/", "/dev", "/dev/pts/ptmx", "/dev/pts/0", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
		"/etc/mtab", "/proc", "/sys", "/sys/fs/cgroup", "/tmp", "/run", "/var/run", "/root", "/etc/passwd", "/proc/acpi", "/proc/kcore",
		"/sys/firmware", "/made/for/it") {
		file(path)
	}
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		seeFile("content."+path, path)
	}
	for _, path := range []string{"/dev/shm", "/dev"} {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		see("size."+path, fmt.Sprint(st.Blocks*uint64(st.Bsize), " ", err))
	}
}

func file(path string) {
	key := "file." + path
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		seeError(key, err)
		return
	}
	kind := os.FileMode(0)
	to := ""
	if info, err := os.Lstat(path); err == nil {
		kind = info.Mode()
	}
	if kind&os.ModeSymlink != 0 {
		to, _ = os.Readlink(path)
		to = " to " + to
	}
	see(key, fmt.Sprintf("%v %d:%d device %d:%d%s", kind, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev), to))
}

// cgroup is which files there are, and those of the controllers that hold a setting.
func cgroup() {
	const root = "/sys/fs/cgroup/"
	list, err := filepath.Glob(root + "*")
	if err != nil || len(list) == 0 {
		see("cgroup", fmt.Sprint("none: ", err))
	}
	for _, path := range list {
		see("cgroup-file."+filepath.Base(path), "there")
	}
	for _, name := range []string{"cpu.max", "cpu.weight", "cpu.idle", "cpuset.cpus", "memory.max", "memory.min", "memory.low", "memory.high",
		"memory.swap.max", "memory.oom.group", "pids.max", "io.weight", "hugetlb.2MB.max", "cgroup.type", "cgroup.max.depth",
		"cgroup.subtree_control", "cgroup.controllers"} {
		seeFile("cgroup."+name, root+name)
	}
}

// parameters are those of the kernel that programs are known to depend on.
const parameters = `
kernel/shmmax kernel/shmall kernel/shmmni kernel/shm_rmid_forced kernel/msgmax kernel/msgmnb kernel/msgmni kernel/sem
kernel/hostname kernel/domainname kernel/core_pattern kernel/core_uses_pid kernel/cap_last_cap kernel/ngroups_max
kernel/pid_max kernel/randomize_va_space kernel/dmesg_restrict kernel/kptr_restrict kernel/unprivileged_bpf_disabled
kernel/perf_event_paranoid kernel/panic kernel/panic_on_oops kernel/sysrq kernel/yama/ptrace_scope kernel/ostype
kernel/modules_disabled vm/overcommit_memory vm/overcommit_ratio vm/max_map_count vm/swappiness vm/mmap_min_addr
fs/file-max fs/nr_open fs/mqueue/msg_max fs/mqueue/queues_max fs/mqueue/msgsize_max fs/inotify/max_user_instances
fs/protected_hardlinks fs/protected_symlinks fs/protected_fifos fs/protected_regular fs/pipe-max-size fs/suid_dumpable
fs/aio-max-nr net/core/somaxconn net/core/rmem_max net/core/wmem_max net/core/optmem_max
net/core/default_qdisc net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/ipv4/ip_local_port_range
net/ipv4/ping_group_range net/ipv4/tcp_keepalive_time net/ipv4/tcp_syncookies net/ipv4/tcp_congestion_control
net/ipv4/tcp_rmem net/ipv4/tcp_wmem net/ipv4/tcp_fin_timeout net/ipv4/tcp_tw_reuse net/ipv4/tcp_mtu_probing
net/ipv4/tcp_max_syn_backlog net/ipv4/tcp_tso_rtt_log net/ipv4/ip_default_ttl net/ipv4/conf/all/rp_filter net/ipv4/conf/default/rp_filter
net/ipv4/conf/eth0/rp_filter net/ipv4/conf/eth0/forwarding net/ipv4/conf/eth0/accept_redirects
net/ipv4/conf/eth0/send_redirects net/ipv4/conf/eth0/arp_ignore net/ipv4/conf/eth0/arp_announce
net/ipv4/conf/eth0/arp_notify net/ipv4/neigh/eth0/gc_stale_time net/ipv6/conf/all/disable_ipv6
net/ipv6/conf/lo/disable_ipv6 net/ipv6/conf/eth0/disable_ipv6 net/ipv6/conf/eth0/accept_dad
net/ipv6/conf/eth0/accept_ra net/ipv6/conf/all/forwarding net/ipv6/bindv6only net/unix/max_dgram_qlen`

func sysctls() {
	for _, name := range strings.Fields(parameters) {
		seeFile("sysctl."+name, "/proc/sys/"+name)
	}
}
