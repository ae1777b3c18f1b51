package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts are what the capabilities, the seccomp filter, the device list and the mounts let this process do.
func attempts() {
	runtime.LockOSThread() // some change the thread they run on
	touch()
	look()
	nodes()
	calls()
	clones()
	change()
}

func may(what string, err error) { seeError("may."+strings.ReplaceAll(what, " ", "-"), err) }

// touch writes where a container may or may not: as it was, where it may.
func touch() {
	for _, dir := range []string{"/", "/tmp", "/dev", "/dev/shm", "/sys/fs/cgroup", "/etc", "/run"} {
		made := filepath.Join(dir, "made")
		err := os.Mkdir(made, 0o755)
		if err == nil {
			err = os.Remove(made)
		}
		may("make in "+dir, err)
	}
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd", "/proc/sys/kernel/panic_on_oops",
		"/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax", "/proc/sys/fs/mqueue/msg_max", "/proc/sysrq-trigger",
		"/sys/kernel/mm/transparent_hugepage/defrag", "/sys/class/net/eth0/mtu", "/sys/fs/cgroup/memory.max",
		"/sys/fs/cgroup/cgroup.procs", "/proc/self/attr/current", "/proc/irq/default_smp_affinity", "/dev/kmsg", "/dev/console"} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			err = f.Close()
		}
		may("open to write "+path, err)
	}
	may("lower oom_score_adj", os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0))
}

func look() {
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug", "/proc/kallsyms",
		"/proc/interrupts", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/1/environ", "/etc/passwd", "/sys/kernel/security/lsm",
		"/proc/sys/kernel/cad_pid", "/sys/devices/virtual/powercap", "/proc/asound", "/proc/scsi", "/proc/acpi", "/sys/firmware"} {
		f, err := os.Open(path)
		n := 0
		if err == nil {
			buf := make([]byte, 1)
			n, err = f.Read(buf)
			if e, ok := err.(*os.PathError); ok && e.Err == unix.EISDIR {
				names, _ := f.Readdirnames(1)
				n, err = len(names), nil
			}
			_ = f.Close()
		}
		if n == 0 && err == nil {
			may("read "+path, os.ErrNotExist)
			continue
		}
		may("read "+path, err)
	}
}

// nodes are devices, made and opened: null, and one (vhost-net's number) that no container is given.
func nodes() {
	for name, number := range map[string]uint64{"null": unix.Mkdev(1, 3), "vhost-net": unix.Mkdev(10, 238), "mem": unix.Mkdev(1, 1)} {
		path := "/tmp/" + name
		err := unix.Mknod(path, unix.S_IFCHR|0o600, int(number))
		may("make node "+name, err)
		if err != nil {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		may("open node "+name, err)
		if err == nil {
			_ = unix.Close(fd)
		}
		_ = unix.Unlink(path)
	}
}

// calls makes system calls with arguments that cannot succeed, so that the error shows who refuses: EPERM and ENOSYS
// are the filter's or the capabilities', others the call's own. No call here may change anything.
func calls() {
	null := uintptr(0)
	bad := ^uintptr(0)
	empty := uintptr(unsafe.Pointer(&[]byte{0}[0]))
	for _, c := range []struct {
		name string
		nr   uintptr
		args [3]uintptr
	}{
		{"acct", unix.SYS_ACCT, [3]uintptr{bad}},
		{"add_key", unix.SYS_ADD_KEY, [3]uintptr{bad, bad, bad}},
		{"bpf", unix.SYS_BPF, [3]uintptr{bad, null, 0}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [3]uintptr{0, bad}},
		{"clone3", unix.SYS_CLONE3, [3]uintptr{null, 0}},
		{"delete_module", unix.SYS_DELETE_MODULE, [3]uintptr{bad}},
		{"fanotify_init", unix.SYS_FANOTIFY_INIT, [3]uintptr{bad}},
		{"fsopen", unix.SYS_FSOPEN, [3]uintptr{bad}},
		{"init_module", unix.SYS_INIT_MODULE, [3]uintptr{bad, 1, bad}},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [3]uintptr{0, bad}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [3]uintptr{bad, bad, bad}},
		{"keyctl", unix.SYS_KEYCTL, [3]uintptr{bad}},
		{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, [3]uintptr{bad, bad, 0}},
		{"mbind", unix.SYS_MBIND, [3]uintptr{1, 0, bad}},
		{"mount", unix.SYS_MOUNT, [3]uintptr{empty, empty, empty}},
		{"move_mount", unix.SYS_MOVE_MOUNT, [3]uintptr{bad, bad, bad}},
		{"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [3]uintptr{bad, bad, bad}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [3]uintptr{bad, bad, 0}},
		{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [3]uintptr{bad}},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [3]uintptr{bad, 0}},
		{"pivot_root", unix.SYS_PIVOT_ROOT, [3]uintptr{bad, bad}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [3]uintptr{bad, 0, 0}},
		{"ptrace", unix.SYS_PTRACE, [3]uintptr{bad, bad, 0}},
		{"quotactl", unix.SYS_QUOTACTL, [3]uintptr{bad, bad, 0}},
		{"reboot", unix.SYS_REBOOT, [3]uintptr{bad, bad, bad}},
		{"request_key", unix.SYS_REQUEST_KEY, [3]uintptr{bad, bad, bad}},
		{"setdomainname", unix.SYS_SETDOMAINNAME, [3]uintptr{bad, 1}},
		{"sethostname", unix.SYS_SETHOSTNAME, [3]uintptr{bad, 1}},
		{"setns", unix.SYS_SETNS, [3]uintptr{bad, 0}},
		{"swapon", unix.SYS_SWAPON, [3]uintptr{bad, 0}},
		{"syslog", unix.SYS_SYSLOG, [3]uintptr{10}},
		{"umount2", unix.SYS_UMOUNT2, [3]uintptr{bad, 0}},
		{"userfaultfd", unix.SYS_USERFAULTFD, [3]uintptr{bad}},
		{"modify_ldt", unix.SYS_MODIFY_LDT, [3]uintptr{99}},
	} {
		_, _, errno := unix.Syscall6(c.nr, c.args[0], c.args[1], c.args[2], 0, 0, 0)
		see("call."+c.name, errno.Error())
	}
	for name, how := range map[string][2]int{"raw": {unix.AF_INET, unix.SOCK_RAW}, "packet": {unix.AF_PACKET, unix.SOCK_RAW},
		"netlink": {unix.AF_NETLINK, unix.SOCK_RAW}, "vsock": {unix.AF_VSOCK, unix.SOCK_STREAM}, "alg": {unix.AF_ALG, unix.SOCK_SEQPACKET},
		"ping": {unix.AF_INET, unix.SOCK_DGRAM}, "inet6": {unix.AF_INET6, unix.SOCK_STREAM}, "xdp": {unix.AF_XDP, unix.SOCK_RAW}} {
		protocol := 0
		if name == "raw" || name == "ping" {
			protocol = unix.IPPROTO_ICMP
		}
		fd, err := unix.Socket(how[0], how[1], protocol)
		may("open socket "+name, err)
		if err == nil {
			_ = unix.Close(fd)
		}
	}
	may("listen on port 80", listen(80))
}

func listen(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
}

// clones starts this program in new namespaces.
func clones() {
	for name, flag := range map[string]uintptr{"user": unix.CLONE_NEWUSER, "mount": unix.CLONE_NEWNS, "net": unix.CLONE_NEWNET} {
		cmd := exec.Command("/proc/self/exe", "end")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
		err := cmd.Run()
		if e, ok := err.(*os.PathError); ok {
			err = e.Err
		}
		may("make namespace "+name, err)
	}
}

// change is what alters this thread, so it comes last; the calls are raw, for Go's own apply to all threads.
func change() {
	raw := func(nr, a, b, c uintptr) error {
		if _, _, errno := unix.RawSyscall(nr, a, b, c); errno != 0 {
			return errno
		}
		return nil
	}
	root := uintptr(unsafe.Pointer(&[]byte("/\x00")[0]))
	var priority struct{ value int32 }
	priority.value = 5
	may("chroot", raw(unix.SYS_CHROOT, root, 0, 0))
	may("raise priority", raw(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, ^uintptr(4)))
	may("be scheduled real-time", raw(unix.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&priority))))
	may("raise nofile", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1<<20 + 1, Max: 1<<20 + 1}))
	may("lock memory", unix.Mlock(make([]byte, 4096)))
	if f, err := os.CreateTemp("/tmp", ""); err == nil {
		may("chown", unix.Fchown(int(f.Fd()), 7, 7))
		may("chmod setuid", unix.Fchmod(int(f.Fd()), 0o4755))
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	err := unix.Mount("x", "/tmp", "tmpfs", 0, "")
	may("mount tmpfs", err)
	if err == nil {
		may("unmount", unix.Unmount("/tmp", 0))
	}
	may("unshare mounts", raw(unix.SYS_UNSHARE, unix.CLONE_NEWNS, 0, 0))
	may("unshare uts", raw(unix.SYS_UNSHARE, unix.CLONE_NEWUTS, 0, 0))
	may("drop groups", raw(unix.SYS_SETGROUPS, 0, 0, 0))
	may("become 65534", raw(unix.SYS_SETRESUID, 65534, 65534, 65534))
}
