package cluster

import (
	"strings"
	"testing"
)

// What happens to a whole node disturbs all that is on it. These tests have one to themselves, as many beside each other as there are
// nodes; all other tests come before or after.
func TestANodeOfItsOwn(t *testing.T) {
	free := make(chan string, 16)
	for _, n := range nodes(t) {
		free <- n
	}
	// The longest first.
	for _, test := range []struct {
		name, handler string
		run           func(*side)
	}{
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

// nodes are the names of the cluster's.
func nodes(t *testing.T) []string {
	t.Helper()
	s := &side{T: t, ctx: t.Context(), ns: "default"}
	return strings.Fields(s.get("nodes", "{.items[*].metadata.name}"))
}
