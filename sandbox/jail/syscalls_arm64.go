package jail

import "golang.org/x/sys/unix"

const (
	auditArch    = unix.AUDIT_ARCH_AARCH64
	littleEndian = true
)

// olderCalls: this architecture has none.
var olderCalls []uint32
