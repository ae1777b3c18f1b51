package cluster

import (
	"strconv"
	"strings"
	"testing"
)

// What the pod of TestSizeOfAPod may have, in MiB: its limit, the overhead of the RuntimeClass krun
// (hack/kubernetes/manifests), and the shim's vm.overhead_mib by default.
const (
	limitMiB         = 100
	classOverheadMiB = 128
	guestOverheadMiB = 64
	// libkrun gives the guest its kernel's memory on top.
	kernelMiB = 32
)

const small = `
apiVersion: v1
kind: Pod
metadata: {name: small}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], resources: {requests: {cpu: 50m}, limits: {cpu: "1", memory: 100Mi}}}]
`

// Limits are the VM's size, and so what the pod's programs find when they ask how much there is; cgroup and status are as under runc.
func TestSizeOfAPod(t *testing.T) {
	under(t, "size", func(s *side) {
		s.apply(small)
		s.ready("small")
		s.see("cgroup", s.in("small", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"))
		s.see("requests", s.get("pod/small", "{.status.containerStatuses[0].resources}"))
		if s.handler == "krun" {
			s.isOfSize("small", 1, limitMiB, limitMiB+classOverheadMiB+guestOverheadMiB+kernelMiB)
		}
	})
}

// isOfSize checks what a pod's programs are told of CPUs, and of MiB of memory.
func (s *side) isOfSize(pod string, cpus, least, most int) {
	s.Helper()
	if got := strings.TrimSpace(s.in(pod, "nproc")); got != strconv.Itoa(cpus) {
		s.Errorf("the VM has %s CPUs, not %d", got, cpus)
	}
	kib, err := strconv.Atoi(strings.TrimSpace(s.in(pod, "awk '/^MemTotal/ {print $2}' /proc/meminfo")))
	if err != nil {
		s.Fatal(err)
	}
	if mib := kib >> 10; mib < least || mib > most {
		s.Errorf("the VM has %d MiB of memory, which is not between %d and %d", mib, least, most)
	}
}
