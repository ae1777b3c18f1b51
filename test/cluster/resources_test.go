package cluster

import (
	"strconv"
	"strings"
	"testing"
)

const sized = `
apiVersion: v1
kind: Pod
metadata: {name: NAME, annotations: ANNOTATIONS}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sleep, "10000"]
    resources: {requests: {cpu: 100m, memory: 48Mi}, limits: {cpu: 500m, memory: 48Mi}}
`

// resize asks for other limits of a pod's container.
func (s *side) resize(pod, limits string) {
	s.Helper()
	s.must("patch", "pod", pod, "--subresource=resize", "--patch", `{"spec":{"containers":[{"name":"c","resources":{"limits":`+limits+`}}]}}`)
}

// refusesToGrow waits until a pod says why it cannot have the memory.
func (s *side) refusesToGrow(pod, memory, why string) {
	s.Helper()
	s.resize(pod, `{"memory":"`+memory+`"}`)
	condition := ""
	s.until("the refusal of "+pod, func() bool {
		condition = s.get("pod/"+pod, `{.status.conditions[?(@.type=="PodResizeInProgress")].message}`)
		return condition != ""
	})
	if !strings.Contains(condition, why) {
		s.Errorf("more memory than the VM of %s has: %s", pod, condition)
	}
	s.in(pod, "true")
}

// Limits are the VM's size, and so what the pod's programs find when they ask how much there is; cgroup and status are as under
// runc. Limits change in place, as far as the VM goes; what is beyond is said on the pod.
func TestResizeInPlace(t *testing.T) {
	under(t, "resize", func(s *side) {
		pod := func(name, annotations string) {
			s.start(strings.NewReplacer("NAME", name, "ANNOTATIONS", annotations).Replace(sized), name)
		}
		pod("sized", `{krun.dev/memory-mib: "512"}`)
		s.see("requests", s.get("pod/sized", "{.status.containerStatuses[0].resources}"))
		s.see("before", s.in("sized", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"))
		for _, to := range []struct{ cpu, memory string }{{"900m", "96Mi"}, {"400m", "56Mi"}} {
			s.resize("sized", `{"cpu":"`+to.cpu+`","memory":"`+to.memory+`"}`)
			s.until("the new limits", func() bool {
				return s.get("pod/sized", "{.status.containerStatuses[0].resources.limits.cpu} {.status.containerStatuses[0].resources.limits.memory}") == to.cpu+" "+to.memory
			})
			s.see("after."+to.cpu, s.in("sized", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"))
		}
		s.see("restarts", s.get("pod/sized", "{.status.containerStatuses[0].restartCount}"))
		if s.handler != "krun" {
			return
		}
		s.refusesToGrow("sized", "1Gi", "512 MiB that the pod's microVM has")
		// The VM is as large as its limits, the overhead and the guest's need.
		pod("tight", "{}")
		s.isOfSize("tight", 1, limitMiB, limitMiB+classOverheadMiB+guestOverheadMiB+kernelMiB)
		s.refusesToGrow("tight", "64Mi", "memory limits of the pod need a VM of 256 MiB, and it has 240 MiB")
	})
}

// A pod's limit in MiB (sized), the overhead of the RuntimeClass krun (hack/kubernetes/manifests), the shim's vm.overhead_mib by
// default, and what libkrun gives the guest's kernel on top.
const (
	limitMiB         = 48
	classOverheadMiB = 128
	guestOverheadMiB = 64
	kernelMiB        = 32
)

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

const quota = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {limits.memory: 400Mi}}
`

const counted = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: RUNTIME
  schedulingGates: [{name: krun.dev/counted-is-enough}]
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], resources: {limits: {memory: MEMORY}}}]
`

// A quota counts the overhead of the RuntimeClass too.
func TestQuotaCountsTheOverhead(t *testing.T) {
	under(t, "quota", func(s *side) {
		s.apply(quota)
		pod := func(name, memory string) string {
			return s.fill(strings.NewReplacer("NAME", name, "MEMORY", memory).Replace(counted))
		}
		s.until("the quota's controller", func() bool { return s.get("resourcequota/quota", "{.status.hard.limits\\.memory}") == "400Mi" })
		s.apply(pod("first", "64Mi"))
		s.until("the quota to count", func() bool { return s.get("resourcequota/quota", "{.status.used.limits\\.memory}") != "0" })
		s.see("used", s.get("resourcequota/quota", "{.status.used.limits\\.memory}"))
		_, errs, err := s.try(pod("second", "350Mi"), "apply", "-f", "-")
		if err == nil || !strings.Contains(errs, "exceeded quota") {
			s.Errorf("a pod beyond the quota: %v, %s", err, errs)
		}
	})
}

const hoarders = `
apiVersion: v1
kind: Pod
metadata: {name: in-a-volume}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  volumes: [{name: small, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - {name: c, image: IMAGE, command: [sh, -c, "dd if=/dev/zero of=/small/x bs=1M count=6; exec sleep 10000"], volumeMounts: [{name: small, mountPath: /small}]}
---
apiVersion: v1
kind: Pod
metadata: {name: in-the-root}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: IMAGE, command: [sh, -c, "dd if=/dev/zero of=/x bs=1M count=12; exec sleep 10000"], resources: {limits: {ephemeral-storage: 4Mi}}}
`

// Pods that fill the node's disk beyond their limits are evicted, with the reason.
func TestEvictionForStorage(t *testing.T) {
	under(t, "evicted", func(s *side) {
		end := s.turn()
		s.apply(hoarders)
		s.begun("in-a-volume", "in-the-root")
		end()
		for _, p := range []string{"in-a-volume", "in-the-root"} {
			s.see(p+".phase", s.ended(p))
			s.see(p+".reason", s.get("pod/"+p, "{.status.reason}: {.status.message}"))
		}
	})
}
