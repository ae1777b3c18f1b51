package jail

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// nobody is the user that a process without any right is: the kernel's overflowuid.
const nobody = 65534

// Sockets is what a bare process may do with those of the Internet.
type Sockets int

const (
	// NoSockets: it has all that it needs open.
	NoSockets Sockets = iota
	// Dial: it may connect to addresses of its network namespace.
	Dial
	// Serve: it may also accept connections where it listens already.
	Serve
)

// maxBareFiles bounds the descriptors of a process that a guest can make connect.
const maxBareFiles = 1024

// EnterBare closes a jail around this process, all of its threads, in which there is nothing: a root with no more than its own
// process in /proc, no capability, no user, and of the system calls those that carry data over what the process has open, and what
// sockets says. root is an empty directory of the host. The process must be PID 1 of mount, PID, IPC and UTS namespaces of its own.
// After an error it is half confined and must end.
func EnterBare(root string, sockets Sockets) error {
	if err := checkNamespaces(); err != nil {
		return err
	}
	if err := limitResources(); err != nil {
		return err
	}
	if err := limit(unix.RLIMIT_NOFILE, maxBareFiles); err != nil {
		return fmt.Errorf("jail: set RLIMIT_NOFILE to %d: %w", maxBareFiles, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("jail: make the mounts private: %w", err)
	}
	if err := makeRoot(root); err != nil {
		return err
	}
	// With cgo, as in tests with the race detector, the threads are found in its /proc.
	if err := moveIn(root); err != nil {
		return err
	}
	if err := checkProc(); err != nil {
		return err
	}
	if err := becomeNobody(); err != nil {
		return err
	}
	if err := dropCapabilities(nil); err != nil {
		return err
	}
	if err := setNoNewPrivs(); err != nil {
		return err
	}
	return installFilter(bareCalls(sockets))
}

// becomeNobody changes the user and keeps the capabilities, which are needed to drop them from the bounding set.
func becomeNobody() error {
	if err := keepOverChangesOfUser(); err != nil {
		return err
	}
	for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
		if err := onAllThreads(call, nobody, nobody, nobody); err != nil {
			return fmt.Errorf("jail: become nobody: %w", err)
		}
	}
	return nil
}

// bareCalls are those of Go's runtime and of its network poller.
func bareCalls(sockets Sockets) []rule {
	rules := unconditional(memoryAndThreads, []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FCNTL, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
		unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_GETSOCKOPT,
	})
	if sockets >= Dial {
		rules = append(rules, unconditional([]uint32{
			unix.SYS_CONNECT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME})...)
		families := []masked{{mask: exact, value: unix.AF_INET}, {mask: exact, value: unix.AF_INET6}}
		kinds := []masked{{mask: 0xf, value: unix.SOCK_STREAM}, {mask: 0xf, value: unix.SOCK_DGRAM}}
		// No other of the same kinds: MPTCP, SCTP, pings.
		protocols := []masked{{mask: exact, value: 0}, {mask: exact, value: unix.IPPROTO_TCP}, {mask: exact, value: unix.IPPROTO_UDP}}
		rules = append(rules, rule{number: unix.SYS_SOCKET, conditions: []condition{
			{arg: 0, alternatives: families}, {arg: 1, alternatives: kinds}, {arg: 2, alternatives: protocols}}})
	}
	if sockets == Serve {
		// Datagrams of a socket that many send to, and the end of one direction.
		rules = append(rules, unconditional([]uint32{
			unix.SYS_ACCEPT4, unix.SYS_RECVFROM, unix.SYS_SENDTO, unix.SYS_SHUTDOWN})...)
	}
	for _, r := range conditional() {
		if r.number == unix.SYS_MMAP || r.number == unix.SYS_MPROTECT || r.number == unix.SYS_CLONE {
			rules = append(rules, r)
		}
	}
	return rules
}
