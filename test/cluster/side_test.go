package cluster

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"krun.dev/krunpod/test/compare"
	"krun.dev/krunpod/test/deadline"
)

// differences is the table of those from runc that have a reason, as test/e2e has one.
//
//go:embed differences.txt
var differences string

// side is a namespace of the cluster in which pods are of one RuntimeClass, and what was seen of them there.
type side struct {
	*testing.T
	ctx     context.Context
	handler string
	ns      string
	// node is where its pods are, empty for anywhere.
	node  string
	scope string
	seen  compare.Seen
	// way is krun.dev/network of its pods.
	way string
}

// under runs look under runc and under krun, and fails for each difference in what it saw that is not in the table. Most of a
// look is waiting, so both run beside each other, and beside other tests. It runs once more under krun for each further way into the
// network (krun.dev/network).
func under(t *testing.T, scope string, look func(*side), ways ...string) {
	t.Helper()
	t.Parallel()
	inTime(t)
	var partly atomic.Bool
	table, err := compare.Parse(differences)
	if err != nil {
		t.Fatal(err)
	}
	runc, others := compare.Seen{}, map[string]compare.Seen{"krun": {}}
	for _, way := range ways {
		others["krun-"+way] = compare.Seen{}
	}
	// It runs when all have ended.
	t.Cleanup(func() {
		if t.Failed() || partly.Load() {
			return
		}
		unknown, stale := table.Of(scope).Check(runc, others)
		for _, d := range unknown {
			t.Errorf("not as under runc, and not in differences.txt: %s", d)
		}
		for _, l := range stale {
			t.Errorf("in differences.txt, and not seen: %s", l)
		}
		t.Logf("%d things compared under %s", len(runc), scope)
	})
	one := func(name string, seen compare.Seen) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Skipped() {
					partly.Store(true)
				}
			})
			handler, way, _ := strings.Cut(name, "-")
			s := newSide(t, scope, handler)
			s.seen, s.way = seen, cmp.Or(way, s.way)
			look(s)
		})
	}
	for name, seen := range others {
		one(name, seen)
	}
	one("runc", runc) // the last, since before a deadline it is what can be missed
}

// prefix begins the name of every namespace of the tests, and serial tells those apart that are made in the same second.
const prefix = "e2e-"

var serial atomic.Uint32

const namespace = `
apiVersion: v1
kind: Namespace
metadata: {name: NAME, annotations: {SELECTOR: kubernetes.io/hostname=NODE}}
`

// inTime leaves the test out after the deadline.
func inTime(t *testing.T) {
	t.Helper()
	if due.Passed() {
		t.Skip(deadline.Reason)
	}
}

// newSide makes the namespace, unless it is too late to begin. Its pods are on one node, which is one of on, or any without that. When
// the test ends the namespace goes with all that is in it: of a node that was asked for before the next test has it, else beside other
// tests (namespacesLeft).
func newSide(t *testing.T, scope, handler string, on ...string) *side {
	t.Helper()
	inTime(t)
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	t.Cleanup(cancel)
	s := &side{T: t, ctx: ctx, handler: handler, scope: scope, ns: fmt.Sprintf("%s%s-%s-%d-%d", prefix, scope, handler, time.Now().Unix()%1e6, serial.Add(1)), seen: compare.Seen{}, way: "tap"}
	end := []string{"delete", "namespace", s.ns, "--wait=false"}
	if len(on) > 0 {
		end = []string{"delete", "namespace", s.ns, waiting}
	} else {
		on = nodes
	}
	s.node = s.choose(on)
	s.apply(strings.NewReplacer("NAME", s.ns, "SELECTOR", nodeSelector, "NODE", s.node).Replace(namespace))
	t.Cleanup(func() {
		s.ctx, cancel = context.WithTimeout(context.Background(), patience+time.Minute)
		defer cancel()
		if t.Failed() {
			t.Log(s.tell())
		}
		s.must(end...)
	})
	// Pods are refused until it is there.
	s.until("the default service account", func() bool { return s.exists("serviceaccount/default") })
	return s
}

// tell is what a person would look at first.
func (s *side) tell() string {
	out, _, _ := s.try("", "get", "pods,events", "-o", "wide")
	return out
}

// see records an observation.
func (s *side) see(key, value string) { s.seen[s.scope+"/"+key] = value }
