package jail

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// What the filter answers (seccomp(2), SECCOMP_RET_). A call that is on no list fails with EPERM, so that a new version
// of libc, which tries newer calls first, does not cost a pod; a call that only an intruder makes ends the VM, and
// the kernel logs it (audit, type SECCOMP). What is refused is not logged: libc's tries would fill the log on each
// start of a pod, and an intruder could at will.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// absent makes libc fall back to the older call.
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill   = unix.SECCOMP_RET_KILL_PROCESS
)

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// rule allows one system call, if all conditions hold.
type rule struct {
	number     uint32
	conditions []condition
}

// condition holds when one 32-bit half of an argument, under the mask of one of the alternatives, has its value.
type condition struct {
	arg          uint32
	high         bool
	alternatives []masked
}

type masked struct{ mask, value uint32 }

// program is the filter as the kernel is given it.
func program(rules []rule) ([]bpf.RawInstruction, error) {
	return bpf.Assemble(instructions(rules))
}

// instructions checks the architecture, then goes through the lists from top to bottom. The kernel remembers the
// answers that do not depend on arguments in a bitmap (since 5.11), so the order does not cost.
func instructions(rules []rule) []bpf.Instruction {
	list := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	for _, r := range rules {
		body := r.body()
		list = append(list, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.number, SkipFalse: uint8(len(body))})
		list = append(list, body...)
	}
	answer := func(numbers []uint32, with uint32) {
		for _, n := range numbers {
			list = append(list, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipFalse: 1}, bpf.RetConstant{Val: with})
		}
	}
	answer(fallBack, absent)
	answer(hostile, kill)
	return append(list, bpf.RetConstant{Val: refuse})
}

// body ends in an answer on every path.
func (r rule) body() []bpf.Instruction {
	var list []bpf.Instruction
	for _, c := range r.conditions {
		list = append(list, c.instructions()...)
	}
	return append(list, bpf.RetConstant{Val: allow})
}

// instructions falls through when the condition holds and refuses otherwise.
func (c condition) instructions() []bpf.Instruction {
	offset := offsetArgs + 8*c.arg
	//lint:ignore S1002 the constant is false on big-endian machines
	if c.high == littleEndian {
		offset += 4
	}
	const each = 3
	var list []bpf.Instruction
	for i, a := range c.alternatives {
		after := uint8(each*(len(c.alternatives)-i-1) + 1)
		list = append(list,
			bpf.LoadAbsolute{Off: offset, Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: a.mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.value, SkipTrue: after},
		)
	}
	return append(list, bpf.RetConstant{Val: refuse})
}

// installFilter puts the filter on all threads at once.
func installFilter(rules []rule) error {
	raw, err := program(rules)
	if err != nil {
		return fmt.Errorf("jail: assemble the seccomp filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)}
	var pin runtime.Pinner
	pin.Pin(prog.Filter)
	defer pin.Unpin()
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(prog)))
	switch {
	case errno != 0:
		return fmt.Errorf("jail: install the seccomp filter: %w", errno)
	case thread != 0:
		return fmt.Errorf("jail: thread %d does not take the seccomp filter", thread)
	}
	return nil
}
