package shim

import (
	"cmp"
	"strings"

	"github.com/containerd/log"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/sandbox"
)

// pin keeps the VM to the CPUs and NUMA nodes of the host that its containers have together, with those of one more: the
// kubelet's CPU and memory managers count on it that a container stays where it was put, and leaves to others what
// is theirs. Within the guest the numbers of the host mean nothing.
func (s *service) pin(sb *sandbox.Sandbox, more ...*specs.LinuxResources) error {
	s.pinning.Lock()
	defer s.pinning.Unlock()
	all := append(s.resources(), more...)
	cpus := together(all, func(c *specs.LinuxCPU) string { return c.Cpus })
	mems := together(all, func(c *specs.LinuxCPU) string { return c.Mems })
	return sb.Pin(cpus, mems)
}

// unpin takes back what a container that is gone had.
func (s *service) unpin(sb *sandbox.Sandbox) {
	if err := s.pin(sb); err != nil {
		log.L.WithError(err).Warn("the microVM keeps the CPUs of a container that is gone")
	}
}

// keepPin: an update that names no CPUs or nodes leaves them as they are.
func keepPin(had, want *specs.LinuxResources) {
	if had == nil || had.CPU == nil {
		return
	}
	if want.CPU == nil {
		want.CPU = &specs.LinuxCPU{}
	}
	want.CPU.Cpus = cmp.Or(want.CPU.Cpus, had.CPU.Cpus)
	want.CPU.Mems = cmp.Or(want.CPU.Mems, had.CPU.Mems)
}

func (s *service) resources() (all []*specs.LinuxResources) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if !c.init.isSandbox() {
			all = append(all, c.limits())
		}
	}
	return all
}

// together joins lists of the kernel's format; one that is empty stands for everything, and so do all together then.
func together(all []*specs.LinuxResources, of func(*specs.LinuxCPU) string) string {
	var lists []string
	for _, r := range all {
		if r == nil || r.CPU == nil || of(r.CPU) == "" {
			return ""
		}
		lists = append(lists, of(r.CPU))
	}
	return strings.Join(lists, ",")
}
