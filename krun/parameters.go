package krun

import (
	"fmt"
	"strings"
)

// baseParameters is DEFAULT_KERNEL_CMDLINE of libkrun's krun-vmm with its init=; an external kernel gets none of it
// from libkrun. reboot=k: the reset of the keyboard controller is what ends the VM.
const baseParameters = "reboot=k panic=-1 panic_print=0 nomodule console=hvc0 rootfstype=virtiofs rw quiet no-kvmapf " +
	"init=/init.krun"

// commandLine is what krun_set_kernel is given: it replaces libkrun's own.
func (k *Kernel) commandLine() string {
	return strings.TrimSpace(baseParameters + " " + k.Cmdline)
}

// reportingOrder is the size of the free blocks that the guest gives back to the host, as a power of two of pages:
// 32 KiB, the kernel's PAGE_ALLOC_COSTLY_ORDER, instead of 2 MiB. Measured with libkrunfw 5.5.0: a guest that used and freed
// 100 MiB holds 35 MiB a minute later instead of 51, for the same number of exits.
const reportingOrder = 3

// rootDAX reports whether the guest maps its root's file from the host. An external kernel may not be able to
// (CONFIG_FUSE_DAX), and a root made of memory has no file.
func (c *Config) rootDAX() bool { return c.Root != "" && !c.Kernel.external() }

// guestParameters are appended to the kernel command line of every guest.
func guestParameters(c *Config) []string {
	// A driver that is built in would make an interface dummy0, which no pod asked for. The random numbers of CPU jitter, which
	// nobody uses where the kernel is not in FIPS mode, are tested at each boot: 2 % of it.
	// A kernel with one CPU would write over the 10000 lock prefixes of its text, with a change of page tables for each
	// (alternatives_smp_unlock, arch/x86/kernel/alternative.c): a sixth of a boot.
	// The time stamp counter, which is the host's, would be compared with KVM's clock twice a second where it is not invariant
	// (clocksource_watchdog, kernel/time/clocksource.c): an idle pod would wake for it.
	// A guest with memory above 4 GiB would keep 64 MiB for devices that do not reach so far; virtio's do.
	list := []string{"dummy.numdummies=0", "initcall_blacklist=jent_mod_init", "noreplace-smp", "tsc=nowatchdog", "swiotlb=noforce",
		fmt.Sprintf("page_reporting.page_reporting_order=%d", reportingOrder)}
	if c.rootDAX() {
		list = append(list, "rootflags=dax=always")
	}
	if c.Kernel != nil && !c.Kernel.external() {
		list = append(list, strings.Fields(c.Kernel.Cmdline)...)
	}
	return list
}
