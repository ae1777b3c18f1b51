package cluster

import "testing"

// What happens to a whole node disturbs all that is on it, and how fast many pods start is a matter of what else is there. These tests
// have a node to themselves, as many beside each other as there are nodes; all other tests come before or after.
func TestANodeOfItsOwn(t *testing.T) {
	free := make(chan string, 16)
	for _, n := range nodes {
		free <- n
	}
	// The longest first.
	for _, test := range []struct {
		name, handler string
		run           func(*side)
	}{
		{"chart", "krun-chart", chartLives},
		{"many", "krun", manyPodsAtOnce},
		{"reboot", "krun", reboot},
		{"pressure", "krun", evictionForMemory},
		{"pressure", "runc", evictionForMemory},
		{"restart", "krun", restartOfServices},
	} {
		t.Run(test.name+" "+test.handler, func(t *testing.T) {
			t.Parallel()
			node := <-free
			t.Cleanup(func() { free <- node })
			test.run(newSide(t, test.name, test.handler, node))
		})
	}
}
