package cluster

import (
	"sync"
)

// nodeSelector is where the API server's plugin PodNodeSelector finds on which nodes a namespace's pods may be.
const nodeSelector = "scheduler.alpha.kubernetes.io/node-selector"

// sides is how much of the sides that exist is on each node.
var sides = struct {
	sync.Mutex
	on map[string]int
}{on: map[string]int{}}

// choose takes the node with the least to do. A microVM is about twice the work of a container.
func (s *side) choose(nodes []string) string {
	sides.Lock()
	defer sides.Unlock()
	least, weight := nodes[0], 1
	for _, n := range nodes {
		if sides.on[n] < sides.on[least] {
			least = n
		}
	}
	if s.handler != "runc" {
		weight = 2
	}
	sides.on[least] += weight
	s.Cleanup(func() {
		sides.Lock()
		defer sides.Unlock()
		sides.on[least] -= weight
	})
	return least
}

// spread lets the pods that are made from now on be on any node.
func (s *side) spread() {
	s.must("annotate", "namespace", s.ns, nodeSelector+"-")
	s.node = ""
}

// startsAtOnce is how many sides start pods on a node beside each other: enough that one can wait for another thing than the
// processor, and so few that none takes long. A dozen sides that began together on two emulated nodes had hardly a pod after three
// minutes.
const startsAtOnce = 2

// turns are the starts on each node.
var turns = map[string]chan struct{}{}

// turn waits for the side's turn to start pods, and returns what ends it; the end of the test does too.
func (s *side) turn() (end func()) {
	on := []string{s.node}
	if s.node == "" {
		on = nodes // always in the same order, so that no two wait for each other
	}
	for _, n := range on {
		turns[n] <- struct{}{}
	}
	end = sync.OnceFunc(func() {
		for _, n := range on {
			<-turns[n]
		}
	})
	s.Cleanup(end)
	return end
}
