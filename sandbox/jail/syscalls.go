package jail

import "golang.org/x/sys/unix"

const (
	// cloneNamespaces are clone(2)'s flags that make namespaces.
	cloneNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	exact = ^uint32(0)
	// The ioctls of Rust's standard library (FIOCLEX, FIONBIO) and of libkrun's tap (TUNSETIFF, TUNSETOFFLOAD,
	// TUNSETVNETHDRSZ). KVM's have one type byte, 0xAE, of which all are the VM's.
	kvmType = 0xAE << 8
	anyType = 0xFF << 8
	fioClex = 0x5451
	fioNbio = 0x5421
)

// allowed is what Go's runtime, libc and libkrun 1.19.7 call once the jail is closed. The groups say for whom.
func allowed() []rule {
	return append(unconditional(memoryAndThreads, descriptors, files, sockets, olderCalls), conditional()...)
}

// unconditional allows calls whatever their arguments are.
func unconditional(groups ...[]uint32) (rules []rule) {
	for _, group := range groups {
		for _, n := range group {
			rules = append(rules, rule{number: n})
		}
	}
	return rules
}

// memoryAndThreads: Go's runtime, Rust's std, libc's malloc and pthreads.
var memoryAndThreads = []uint32{
	unix.SYS_BRK, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_FUTEX, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY,
	unix.SYS_RESTART_SYSCALL, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_TGKILL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	unix.SYS_GETRANDOM,
}

// descriptors: the event loops of libkrun's devices, its console, taps and sockets.
var descriptors = []uint32{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FCNTL, unix.SYS_LSEEK,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
}

// files: virtio-fs (krun-devices, virtio/fs/linux/passthrough.rs), each request with the guest's ids and, where a write
// clears setuid bits, without FSETID for its length.
var files = []uint32{
	unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_FSTATFS, unix.SYS_GETDENTS64,
	unix.SYS_READLINKAT, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2, unix.SYS_MKDIRAT,
	unix.SYS_MKNODAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT, unix.SYS_FTRUNCATE,
	unix.SYS_FALLOCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_COPY_FILE_RANGE,
	unix.SYS_FGETXATTR, unix.SYS_FSETXATTR, unix.SYS_FLISTXATTR, unix.SYS_FREMOVEXATTR,
	unix.SYS_LGETXATTR, unix.SYS_LSETXATTR, unix.SYS_LLISTXATTR, unix.SYS_LREMOVEXATTR,
	unix.SYS_UMASK, unix.SYS_GETUID, unix.SYS_GETGID, unix.SYS_GETEUID, unix.SYS_GETEGID,
	unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_CAPGET, unix.SYS_CAPSET,
}

// sockets: vsock's way to the sockets of the shim. Making one is conditional.
var sockets = []uint32{
	unix.SYS_CONNECT, unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT,
}

// conditional are the calls whose arguments decide.
func conditional() []rule {
	is := func(values ...uint32) []masked {
		var list []masked
		for _, v := range values {
			list = append(list, masked{mask: exact, value: v})
		}
		return list
	}
	noExec := []condition{{arg: 2, alternatives: []masked{{mask: unix.PROT_EXEC, value: 0}}}}
	ioctls := append([]masked{{mask: anyType, value: kvmType}},
		is(unix.TUNSETIFF, unix.TUNSETOFFLOAD, unix.TUNSETVNETHDRSZ, fioClex, fioNbio, unix.TCGETS)...)
	return []rule{
		// No new code: what runs was mapped before the jail closed.
		{number: unix.SYS_MMAP, conditions: noExec},
		{number: unix.SYS_MPROTECT, conditions: noExec},
		// Threads only: no processes, no namespaces.
		{number: unix.SYS_CLONE, conditions: []condition{{arg: 0, alternatives: []masked{
			{mask: unix.CLONE_THREAD | cloneNamespaces, value: unix.CLONE_THREAD}}}}},
		{number: unix.SYS_IOCTL, conditions: []condition{{arg: 1, alternatives: ioctls}}},
		{number: unix.SYS_SOCKET, conditions: []condition{{arg: 0, alternatives: is(unix.AF_UNIX)}}},
		{number: unix.SYS_PRCTL, conditions: []condition{{arg: 0, alternatives: is(unix.PR_SET_NAME, unix.PR_GET_NAME,
			unix.PR_SET_VMA, unix.PR_SET_THP_DISABLE, unix.PR_CAPBSET_READ)}}},
		// Asking for one's own limits, not setting any.
		{number: unix.SYS_PRLIMIT64, conditions: []condition{
			{arg: 0, alternatives: is(0)},
			{arg: 2, alternatives: is(0)},
			{arg: 2, high: true, alternatives: is(0)}}},
	}
}

// fallBack are calls whose arguments the filter cannot see: libc has an older one for each.
var fallBack = []uint32{unix.SYS_CLONE3, unix.SYS_OPENAT2, unix.SYS_FCHMODAT2}

// hostile are calls that neither libkrun nor a later libc makes: who makes one has taken over the process.
var hostile = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_OPEN, unix.SYS_KCMP,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG,
}
