package cluster

import (
	"fmt"
	"strings"
)

const hogs = `
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], resources: {requests: {memory: 64Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: hog, annotations: {krun.dev/memory-mib: "VMMIB"}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sh, -c, "until [ -e /go ]; do sleep 1; done; dd if=/dev/zero bs=HOGMIBM count=1 | sleep 10000"]}]
`

// A node that runs out of memory evicts the pod that uses the most beyond what it asked for, and says so. The kubelet is told to
// see an end of memory where there is none, so that nothing else is in danger.
func evictionForMemory(s *side) {
	// What the hog uses is twice what the kubelet is told to leave of what is available, and more than a large node's memory goes
	// up and down by itself.
	hogMiB := max(320, s.availableMiB()/16)
	s.start(strings.NewReplacer("HOGMIB", fmt.Sprint(hogMiB), "VMMIB", fmt.Sprint(hogMiB+192)).Replace(hogs), "modest", "hog")
	kubelet := func(change string) {
		s.hackNode(s.node, "exec", "--", "sh", "-c", "cd /etc/kubernetes && "+change+" && ./start")
	}
	kubelet(fmt.Sprintf("cp kubelet.yaml kubelet.kept && sed -i 's/memory.available: [^,]*/memory.available: %dMi/' kubelet.yaml", s.availableMiB()-hogMiB/2))
	defer kubelet("mv kubelet.kept kubelet.yaml")
	s.until("the kubelet to be there again", func() bool { return s.ok("exec", "hog", "--", "touch", "/go") })
	if phase := s.ended("hog"); phase != "Failed" {
		s.Errorf("hog is %s", phase)
	}
	if why := s.get("pod/hog", "{.status.reason}: {.status.message}"); !strings.Contains(why, "Evicted: The node was low on resource: memory.") {
		s.Errorf("hog ended with %s", why)
	}
	if phase := s.get("pod/modest", "{.status.phase} {.status.containerStatuses[0].restartCount}"); phase != "Running 0" {
		s.Errorf("modest is %s", phase)
	}
}

// availableMiB is what the kubelet thinks is left of the node's memory.
func (s *side) availableMiB() int {
	s.Helper()
	var sum struct {
		Node struct{ Memory struct{ AvailableBytes int } }
	}
	s.summary(&sum)
	if sum.Node.Memory.AvailableBytes>>20 <= 512 {
		s.Fatalf("%s has %d MiB of memory left", s.node, sum.Node.Memory.AvailableBytes>>20)
	}
	return sum.Node.Memory.AvailableBytes >> 20
}
