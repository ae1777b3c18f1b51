package cri

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/config"
)

// limits is what a pod's containers may use together; 0 is no limit.
type limits struct {
	// CPU time in quota microseconds a period (cpu.max, Documentation/admin-guide/cgroup-v2.rst).
	cpuQuota, cpuPeriod int64
	// memory in bytes.
	memory int64
}

// size gives the VM's virtual CPUs and MiB of memory: the limits rounded up, memory plus the guest's overhead, the
// configured default where there is no limit, annotations over both, all within the administrator's bounds.
func size(l limits, annotations map[string]string, vm config.VM) (vcpus uint8, memoryMiB uint32, err error) {
	if err := checkAnnotations(annotations); err != nil {
		return 0, 0, err
	}
	maxCPUs, maxMiB := uint64(vm.MaxVCPUs), uint64(vm.MaxMemoryMiB)
	if maxCPUs == 0 {
		maxCPUs = uint64(min(runtime.NumCPU(), 255))
	}
	if maxMiB == 0 {
		if maxMiB, err = nodeMemoryMiB(); err != nil {
			return 0, 0, err
		}
	}
	cpus, err := number(annotations, annotationVCPUs, maxCPUs)
	if err != nil {
		return 0, 0, err
	}
	mib, err := number(annotations, annotationMemoryMiB, maxMiB)
	if err != nil {
		return 0, 0, err
	}
	if cpus == 0 {
		cpus = min(cpusFor(l, vm), maxCPUs)
	}
	if mib == 0 {
		mib = min(memoryFor(l, vm), maxMiB)
	}
	return uint8(cpus), uint32(mib), nil
}

func cpusFor(l limits, vm config.VM) uint64 {
	if l.cpuQuota <= 0 || l.cpuPeriod <= 0 {
		return uint64(vm.DefaultVCPUs)
	}
	return max(1, uint64((l.cpuQuota+l.cpuPeriod-1)/l.cpuPeriod))
}

func memoryFor(l limits, vm config.VM) uint64 {
	if l.memory <= 0 {
		return uint64(vm.DefaultMemoryMiB)
	}
	return (uint64(l.memory)+1<<20-1)>>20 + uint64(vm.OverheadMiB)
}

func nodeMemoryMiB() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("read the node's memory: %w", err)
	}
	return uint64(info.Totalram) * uint64(info.Unit) >> 20, nil
}
