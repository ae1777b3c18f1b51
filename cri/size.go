package cri

import (
	"fmt"
	goruntime "runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/config"
)

// limits is what a pod's containers may use together; 0 is no limit.
type limits struct {
	// CPU time in quota microseconds a period (cpu.max, Documentation/admin-guide/cgroup-v2.rst).
	cpuQuota, cpuPeriod int64
	// memory in bytes.
	memory int64
}

// cpus is the limit in whole CPUs, rounded up; 0 is no limit.
func (l limits) cpus() uint64 {
	if l.cpuQuota <= 0 || l.cpuPeriod <= 0 {
		return 0
	}
	return uint64((l.cpuQuota-1)/l.cpuPeriod + 1)
}

// limitsOf reads the limits of one container.
func limitsOf(r *specs.LinuxResources) (l limits) {
	if r == nil {
		return l
	}
	if r.Memory != nil && r.Memory.Limit != nil {
		l.memory = *r.Memory.Limit
	}
	if r.CPU != nil && r.CPU.Quota != nil && r.CPU.Period != nil {
		l.cpuQuota, l.cpuPeriod = *r.CPU.Quota, int64(*r.CPU.Period)
	}
	return l
}

// criLimits are those of CRI: of all containers together, and the RuntimeClass's overhead. Negative is no limit too.
func criLimits(res, overhead *runtime.LinuxContainerResources) limits {
	l := limits{cpuQuota: res.GetCpuQuota(), cpuPeriod: res.GetCpuPeriod(), memory: res.GetMemoryLimitInBytes()}
	if l.memory > 0 {
		l.memory += overhead.GetMemoryLimitInBytes()
	}
	return l
}

// size gives the VM's virtual CPUs and MiB of memory: the limits rounded up, memory plus the guest's overhead, the
// configured default where there is no limit, annotations over both, all within the administrator's bounds.
func size(l limits, annotations map[string]string, vm config.VM) (vcpus uint8, memoryMiB uint32, err error) {
	if err := checkAnnotations(annotations); err != nil {
		return 0, 0, err
	}
	maxCPUs, maxMiB := uint64(vm.MaxVCPUs), uint64(vm.MaxMemoryMiB)
	if maxCPUs == 0 {
		maxCPUs = uint64(min(goruntime.NumCPU(), 255))
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
	if n := l.cpus(); n > 0 {
		return n
	}
	return uint64(vm.DefaultVCPUs)
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
