package guest

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// syncLimit bounds the wait for file systems: a host that no longer answers virtio-fs must not keep the VM alive.
const syncLimit = 10 * time.Second

// KillAll kills every process but PID 1 and writes file systems back.
func KillAll() {
	if os.Getpid() != 1 {
		return // in a test: -1 would be everybody
	}
	_ = unix.Kill(-1, unix.SIGKILL) // ESRCH: there was none
	synced := make(chan struct{})
	go func() { // if it hangs, it ends with the VM
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(syncLimit):
	}
}

// PowerOff ends the VM. libkrun has no ACPI: what ends it is the reset by the keyboard controller on x86
// (krun-devices, legacy/i8042.rs, CMD_RESET_CPU; "reboot=k" on the kernel command line), PSCI elsewhere. A power-off
// would halt the virtual CPU and leave the VM.
func PowerOff() {
	if os.Getpid() != 1 {
		os.Exit(0)
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	<-context.Background().Done() // a PID 1 that returned would be a panic
}
