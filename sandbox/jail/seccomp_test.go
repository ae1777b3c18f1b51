package jail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/krun"
)

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); <-tick.C {
		if cond() {
			return
		}
	}
	t.Fatal("waited 10 s in vain")
}

// verdict is what the runner's filter says to a call.
func verdict(t *testing.T, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	return verdictOf(t, allowed(), arch, number, args...)
}

// verdictOf runs a filter in a virtual machine of its own on a call.
func verdictOf(t *testing.T, rules []rule, arch, number uint32, args ...uint64) uint32 {
	t.Helper()
	vm, err := bpf.NewVM(instructions(rules))
	if err != nil {
		t.Fatal(err)
	}
	// The virtual machine loads in network byte order, the kernel in its own: each word is stored turned round.
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offsetNumber:], number)
	binary.BigEndian.PutUint32(data[offsetArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offsetArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offsetArgs+8*i+4:], uint32(a>>32))
	}
	out, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(out)
}

func TestBareFilterVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		number uint32
		args   []uint64
		want   [3]uint32 // with NoSockets, Dial and Serve
	}{
		{"read", unix.SYS_READ, nil, [3]uint32{allow, allow, allow}},
		{"connect", unix.SYS_CONNECT, nil, [3]uint32{refuse, allow, allow}},
		{"TCP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_NONBLOCK}, [3]uint32{refuse, allow, allow}},
		{"UDP", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, [3]uint32{refuse, allow, allow}},
		{"TCP by number", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, [3]uint32{refuse, allow, allow}},
		{"UDP by number", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}, [3]uint32{refuse, allow, allow}},
		{"MPTCP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, [3]uint32{refuse, refuse, refuse}},
		{"SCTP", unix.SYS_SOCKET, []uint64{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SCTP}, [3]uint32{refuse, refuse, refuse}},
		{"ping", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP}, [3]uint32{refuse, refuse, refuse}},
		{"accept", unix.SYS_ACCEPT4, nil, [3]uint32{refuse, refuse, allow}},
		{"datagram to anyone", unix.SYS_SENDTO, nil, [3]uint32{refuse, refuse, allow}},
		{"end of a direction", unix.SYS_SHUTDOWN, nil, [3]uint32{refuse, refuse, allow}},
		{"raw IP", unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW}, [3]uint32{refuse, refuse, refuse}},
		{"packets", unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_DGRAM}, [3]uint32{refuse, refuse, refuse}},
		{"netlink", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_DGRAM}, [3]uint32{refuse, refuse, refuse}},
		{"bind", unix.SYS_BIND, nil, [3]uint32{refuse, refuse, refuse}},
		{"listen", unix.SYS_LISTEN, nil, [3]uint32{refuse, refuse, refuse}},
		{"open", unix.SYS_OPENAT, nil, [3]uint32{refuse, refuse, refuse}},
		{"ioctl", unix.SYS_IOCTL, nil, [3]uint32{refuse, refuse, refuse}},
		{"code", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, [3]uint32{refuse, refuse, refuse}},
		{"process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, [3]uint32{refuse, refuse, refuse}},
		{"program", unix.SYS_EXECVE, nil, [3]uint32{kill, kill, kill}},
	} {
		for _, sockets := range []Sockets{NoSockets, Dial, Serve} {
			if got := verdictOf(t, bareCalls(sockets), auditArch, tc.number, tc.args...); got != tc.want[sockets] {
				t.Errorf("%s with %d: %#x, want %#x", tc.name, sockets, got, tc.want[sockets])
			}
		}
	}
}

func TestFilterVerdicts(t *testing.T) {
	threadFlags := uint64(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD)
	for _, tc := range []struct {
		name   string
		number uint32
		args   []uint64
		want   uint32
	}{
		{"a read", unix.SYS_READ, nil, allow},
		{"opening a file", unix.SYS_OPENAT, nil, allow},
		{"KVM_RUN", unix.SYS_IOCTL, []uint64{4, 0xAE80}, allow},
		{"TUNSETIFF", unix.SYS_IOCTL, []uint64{4, unix.TUNSETIFF}, allow},
		{"typing into a terminal", unix.SYS_IOCTL, []uint64{4, unix.TIOCSTI}, refuse},
		{"changing an interface", unix.SYS_IOCTL, []uint64{4, unix.SIOCSIFFLAGS}, refuse},
		{"a UNIX socket", unix.SYS_SOCKET, []uint64{unix.AF_UNIX}, allow},
		{"an Internet socket", unix.SYS_SOCKET, []uint64{unix.AF_INET}, refuse},
		{"a netlink socket", unix.SYS_SOCKET, []uint64{unix.AF_NETLINK}, refuse},
		{"a packet socket", unix.SYS_SOCKET, []uint64{unix.AF_PACKET}, refuse},
		{"a host vsock", unix.SYS_SOCKET, []uint64{unix.AF_VSOCK}, refuse},
		{"a thread", unix.SYS_CLONE, []uint64{threadFlags}, allow},
		{"a process", unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, refuse},
		{"a thread in a user namespace", unix.SYS_CLONE, []uint64{threadFlags | unix.CLONE_NEWUSER}, refuse},
		{"clone3", unix.SYS_CLONE3, nil, absent},
		{"memory", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{"new code", unix.SYS_MMAP, []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse},
		{"data made code", unix.SYS_MPROTECT, []uint64{0, 4096, unix.PROT_EXEC}, refuse},
		{"asking for a limit", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_STACK, 0}, allow},
		{"setting a limit", unix.SYS_PRLIMIT64, []uint64{0, unix.RLIMIT_CORE, 0x7f00_0000_1000}, refuse},
		{"setting a limit from an address with a zero half", unix.SYS_PRLIMIT64,
			[]uint64{0, unix.RLIMIT_CORE, 0x7f00_0000_0000}, refuse},
		{"a limit of another process", unix.SYS_PRLIMIT64, []uint64{7, unix.RLIMIT_STACK, 0}, refuse},
		{"a thread's name", unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}, allow},
		{"huge pages", unix.SYS_PRCTL, []uint64{unix.PR_SET_THP_DISABLE, 0}, allow},
		{"core dumps again", unix.SYS_PRCTL, []uint64{unix.PR_SET_DUMPABLE, 1}, refuse},
		{"a call that no list names", unix.SYS_SETHOSTNAME, nil, refuse},
		{"execve", unix.SYS_EXECVE, nil, kill},
		{"a file handle", unix.SYS_OPEN_BY_HANDLE_AT, nil, kill},
		{"a mount", unix.SYS_MOUNT, nil, kill},
		{"io_uring", unix.SYS_IO_URING_SETUP, nil, kill},
	} {
		if got := verdict(t, auditArch, tc.number, tc.args...); got != tc.want {
			t.Errorf("%s: %#x, want %#x", tc.name, got, tc.want)
		}
	}
	if got := verdict(t, unix.AUDIT_ARCH_I386, 3); got != kill {
		t.Errorf("a call of another architecture: %#x", got)
	}
}

func TestNoCallIsOnTwoLists(t *testing.T) {
	seen := map[uint32]bool{}
	add := func(n uint32) {
		if seen[n] {
			t.Errorf("system call %d is listed twice: the second place is never reached", n)
		}
		seen[n] = true
	}
	for _, r := range allowed() {
		add(r.number)
	}
	for _, n := range append(append([]uint32{}, fallBack...), hostile...) {
		add(n)
	}
}

func TestFilterFitsTheKernel(t *testing.T) {
	raw, err := program(allowed())
	if err != nil {
		t.Fatal(err)
	}
	// BPF_MAXINSNS, linux/bpf_common.h.
	if len(raw) > 4096 {
		t.Fatalf("%d instructions", len(raw))
	}
}

func TestHostileCallsEndTheProcess(t *testing.T) {
	for _, action := range []string{"execve", "unshare", "mount", "handle"} {
		out, err := confined(t, action, nil)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
			t.Errorf("%s: ended with %v, want SIGSYS\n%s", action, err, out)
		}
	}
}

func TestOtherCallsAreRefused(t *testing.T) { expectSuccess(t, "filter", nil) }

func filterRefuses(*krun.Config) error {
	for name, call := range map[string]func() error{
		"an Internet socket": func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); return err },
		"a raw socket":       func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err },
		"new code": func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		},
		"the host name": func() error { return unix.Sethostname([]byte("x")) },
		"a limit": func() error {
			return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}, nil)
		},
		"a listening socket": func() error { return unix.Listen(0, 1) },
		"a signal to all":    func() error { return unix.Kill(-1, unix.SIGTERM) },
	} {
		if err := call(); err != unix.EPERM {
			return fmt.Errorf("%s: %v, want EPERM", name, err)
		}
	}
	return nil
}

// TestFileServerWorksUnderTheFilter makes the calls of libkrun's virtio-fs, threads and vsock for real.
func TestFileServerWorksUnderTheFilter(t *testing.T) {
	expectSuccess(t, "calls", nil)
}

func fileCallsWork(c *krun.Config) error {
	dir, err := unix.Open(c.Share, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fds, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var file int
	for _, step := range []struct {
		name string
		call func() error
	}{
		{"setresgid", func() error { return rawErr(unix.SYS_SETRESGID, ^uintptr(0), 1000, ^uintptr(0)) }},
		{"setresgid back", func() error { return rawErr(unix.SYS_SETRESGID, ^uintptr(0), 0, ^uintptr(0)) }},
		{"mkdirat", func() error { return unix.Mkdirat(dir, "d", 0o7777) }},
		{"fchownat", func() error { return unix.Fchownat(dir, "d", 1000, 1000, unix.AT_SYMLINK_NOFOLLOW) }},
		{"mknodat", func() error { return unix.Mknodat(dir, "n", unix.S_IFREG|0o644, 0) }},
		{"open through /proc/self/fd", func() error {
			path, err := unix.Openat(dir, "n", unix.O_PATH|unix.O_NOFOLLOW, 0)
			if err != nil {
				return err
			}
			file, err = unix.Openat(fds, fmt.Sprint(path), unix.O_RDWR, 0)
			return err
		}},
		{"pwrite", func() error { _, err := unix.Pwrite(file, []byte("x"), 9); return err }},
		{"fallocate", func() error { return unix.Fallocate(file, 0, 0, 4096) }},
		{"ftruncate", func() error { return unix.Ftruncate(file, 1) }},
		{"fsync", func() error { return unix.Fsync(file) }},
		{"fchmod", func() error { return unix.Fchmod(file, 0o4755) }},
		{"renameat2", func() error { return unix.Renameat2(dir, "n", dir, "m", 0) }},
		{"symlinkat", func() error { return unix.Symlinkat("m", dir, "s") }},
		{"linkat", func() error { return unix.Linkat(dir, "m", dir, "l", 0) }},
		{"unlinkat", func() error { return unix.Unlinkat(dir, "l", 0) }},
		{"statfs", func() error { return unix.Fstatfs(file, new(unix.Statfs_t)) }},
		{"a thread", func() error {
			done := make(chan struct{})
			for range 8 {
				go func() { time.Sleep(time.Millisecond); done <- struct{}{} }()
			}
			for range 8 {
				<-done
			}
			return nil
		}},
		{"connect", func() error {
			_, err := net.Dial("unix", filepath.Join(c.Sockets, "agent.sock"))
			if errors.Is(err, unix.ENOENT) {
				return nil // nobody listens in this test
			}
			return err
		}},
		{"console", func() error {
			f, err := os.Create("/proc/self/fd/1")
			if err == nil {
				err = f.Close()
			}
			return err
		}},
	} {
		if err := step.call(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

func rawErr(call, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(call, a, b, c); errno != 0 {
		return errno
	}
	return nil
}
