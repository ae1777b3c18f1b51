package krun

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	kvmDevice = "/dev/kvm"
	// kvmGetAPIVersion is KVM_GET_API_VERSION (linux/kvm.h); every kernel answers 12.
	kvmGetAPIVersion = 0xAE00
	kvmAPI           = 12
)

// kvmAPIVersion opens /dev/kvm and asks for the version of its interface.
func kvmAPIVersion() (int, error) {
	fd, err := unix.Open(kvmDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w: load kvm_intel or kvm_amd and enable virtualization in the firmware "+
			"(on a cloud machine: nested virtualization)", kvmDevice, err)
	}
	defer unix.Close(fd)
	v, err := unix.IoctlRetInt(fd, kvmGetAPIVersion)
	if err != nil {
		return 0, fmt.Errorf("KVM_GET_API_VERSION on %s: %w", kvmDevice, err)
	}
	if v != kvmAPI {
		return v, fmt.Errorf("%s speaks version %d of KVM's interface, not %d", kvmDevice, v, kvmAPI)
	}
	return v, nil
}
