package jail

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_X86_64
	littleEndian = true
)

// olderCalls are those that newer architectures never had and libc still uses on this one.
var olderCalls = []uint32{
	unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_READLINK,
}
