package jail

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// kept are the capabilities of capabilities(7) that serving files for the guest's root takes. Each is needed by name in
// krun-devices' virtio/fs/linux/passthrough.rs, or by what a container may do with its files under runc.
var kept = []uint{
	unix.CAP_CHOWN,        // chown
	unix.CAP_DAC_OVERRIDE, // the guest's root opens what belongs to its users
	unix.CAP_FOWNER,       // chmod, utimes, O_NOATIME for the same
	unix.CAP_FSETID,       // setgid bits survive a chmod; dropped for a moment where a write must clear them
	unix.CAP_SETUID,       // each request runs with the guest's uid …
	unix.CAP_SETGID,       // … and gid
	unix.CAP_SETFCAP,      // file capabilities, e.g. when a package is installed in a container
	unix.CAP_MKNOD,        // device nodes in an image or made by a container; every mount is nodev
}

// secbitNoSetuidFixup is SECBIT_NO_SETUID_FIXUP of linux/securebits.h.
const secbitNoSetuidFixup = 1 << 2

// dropCapabilities leaves those in keep as the permitted and effective sets of all threads, empties the inheritable and ambient
// ones, and takes all others from the bounding set.
func dropCapabilities(keep []uint) error {
	var mask uint64
	for _, c := range keep {
		mask |= 1 << c
	}
	for c := uintptr(0); ; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			break // EINVAL: the kernel knows no further one
		}
		if mask&(1<<c) != 0 {
			continue
		}
		if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c); err != nil {
			return fmt.Errorf("jail: drop capability %d from the bounding set: %w", c, err)
		}
	}
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return fmt.Errorf("jail: clear ambient capabilities: %w", err)
	}
	// libkrun makes a file as the guest's user, so that it is his. By default a thread loses its capabilities with that
	// (capabilities(7), effect of user ID changes), and a container's root in a user namespace, who is not 0 here, could
	// make nothing in a directory of another. Whether he may is what the guest's kernel has checked before
	// (default_permissions of virtio-fs), and no wall of ours: the guest can name uid 0 at any time.
	if err := keepOverChangesOfUser(); err != nil {
		return err
	}
	if err := onAllThreads(unix.SYS_SETGROUPS, 0, 0); err != nil {
		return fmt.Errorf("jail: drop supplementary groups: %w", err)
	}
	return setCapabilities(mask)
}

func keepOverChangesOfUser() error {
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secbitNoSetuidFixup); err != nil {
		return fmt.Errorf("jail: keep capabilities over changes of user: %w", err)
	}
	return nil
}

func setCapabilities(mask uint64) error {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := &[2]unix.CapUserData{
		{Effective: uint32(mask), Permitted: uint32(mask)},
		{Effective: uint32(mask >> 32), Permitted: uint32(mask >> 32)},
	}
	var pin runtime.Pinner
	pin.Pin(header)
	pin.Pin(data)
	defer pin.Unpin()
	err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
	if err != nil {
		return fmt.Errorf("jail: set capabilities: %w", err)
	}
	return nil
}

// setNoNewPrivs makes sure that no execve(2), which seccomp denies anyway, could bring privileges back.
func setNoNewPrivs() error {
	if err := onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("jail: PR_SET_NO_NEW_PRIVS: %w", err)
	}
	return nil
}

// onAllThreads makes one system call on every thread of the process: credentials belong to threads, and what is dropped
// on one only is not dropped.
func onAllThreads(call uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := psx.Syscall6(call, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}
