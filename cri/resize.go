package cri

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ResizeContainer refuses limits of a container that are beyond the VM and above those that it has: the VM's size is fixed when it
// boots. A quota of CPU time counts in whole CPUs, as it does for the VM. No limit is beyond nothing: it is what the VM has.
func ResizeContainer(had, want *specs.LinuxResources, vcpus uint8, memoryMiB uint32) error {
	h, w := limitsOf(had), limitsOf(want)
	if w.memory > max(h.memory, int64(memoryMiB)<<20) && w.memory < unlimited {
		return fmt.Errorf("a memory limit of %d MiB is more than the %d MiB that the pod's microVM has: its size is fixed when it "+
			"boots; make the pod anew, with the annotation %s if it is to leave room", w.memory>>20, memoryMiB, annotationMemoryMiB)
	}
	if cpus := w.cpus(); cpus > max(h.cpus(), uint64(vcpus)) {
		return fmt.Errorf("a limit of %d CPUs is more than the %d that the pod's microVM has: their number is fixed when it "+
			"boots; make the pod anew, with the annotation %s if it is to leave room", cpus, vcpus, annotationVCPUs)
	}
	return nil
}

// unlimited is as good as no limit: cgroup v1's largest value, which callers still send, is a page below 2^63.
const unlimited = 1 << 62
