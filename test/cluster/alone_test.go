package cluster

import (
	"sync"
	"testing"
)

// What happens to a whole node disturbs all that is on it, and how fast many pods start is a matter of what else is there. These tests
// have a node to themselves, as many beside each other as there are nodes; all other tests come before or after.
func TestANodeOfItsOwn(t *testing.T) {
	type test struct {
		name, handler string
		run           func(*side)
	}
	// The longest first.
	queue := make(chan test, 16)
	queue <- test{"chart", "krun-chart", chartLives}
	queue <- test{"many", "krun", manyPodsAtOnce}
	queue <- test{"reboot", "krun", reboot}
	queue <- test{"pressure", "krun", evictionForMemory}
	queue <- test{"pressure", "runc", evictionForMemory}
	queue <- test{"restart", "krun", restartOfServices}
	close(queue)
	var done sync.WaitGroup
	for _, node := range nodes {
		done.Go(func() {
			for next := range queue {
				t.Run(next.name+" "+next.handler, func(t *testing.T) { next.run(newSide(t, next.name, next.handler, node)) })
			}
		})
	}
	done.Wait()
}
