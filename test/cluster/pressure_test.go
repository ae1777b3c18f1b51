package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
)

// What the hog uses is more than the kubelet is told to leave of what is available now, in MiB.
const (
	hogMiB   = 320
	spareMiB = 160
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
metadata: {name: hog, annotations: {krun.dev/memory-mib: "512"}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sh, -c, "until [ -e /go ]; do sleep 1; done; dd if=/dev/zero bs=HOGM count=1 | sleep 10000"]}]
`

// A node that runs out of memory evicts the pod that uses the most beyond what it asked for, and says so. The kubelet is told to
// see an end of memory where there is none, so that nothing else is in danger.
func evictionForMemory(s *side) {
	s.apply(strings.ReplaceAll(hogs, "HOG", fmt.Sprint(hogMiB)))
	s.ready("modest", "hog")
	kubelet := func(change string) {
		s.hackNode(s.node, "exec", "--", "sh", "-c", "cd /etc/kubernetes && "+change+" && ./start")
	}
	kubelet(fmt.Sprintf("cp kubelet.yaml kubelet.kept && sed -i 's/memory.available: [^,]*/memory.available: %dMi/' kubelet.yaml", s.availableMiB()-spareMiB))
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
	if err := json.Unmarshal([]byte(s.must("get", "--raw", "/api/v1/nodes/"+s.node+"/proxy/stats/summary")), &sum); err != nil {
		s.Fatal(err)
	}
	if sum.Node.Memory.AvailableBytes>>20 <= hogMiB {
		s.Fatalf("%s has %d MiB of memory left", s.node, sum.Node.Memory.AvailableBytes>>20)
	}
	return sum.Node.Memory.AvailableBytes >> 20
}
