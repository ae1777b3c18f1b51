package cluster

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"krun.dev/krunpod/test/compare"
)

const (
	// enableEnv says that KUBECONFIG is that of a cluster to test on.
	enableEnv = "KRUNPOD_CLUSTER"
	// patience bounds what the kubelet does by itself, on an emulated node beside others; waiting is the same for kubectl.
	patience = 5 * time.Minute
	waiting  = "--timeout=5m"
	image    = "localhost/krunpod/busybox:1"
	// helper is image with the command helper: test/images.
	helper = "localhost/krunpod/helper:1"
)

func TestMain(m *testing.M) {
	if os.Getenv(enableEnv) == "" {
		println("tests of a cluster run on one: hack/cluster-test")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

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
	table, err := compare.Parse(differences)
	if err != nil {
		t.Fatal(err)
	}
	runc, others := compare.Seen{}, map[string]compare.Seen{"krun": {}}
	for _, way := range ways {
		others["krun-"+way] = compare.Seen{}
	}
	// It runs when both have ended.
	t.Cleanup(func() {
		if t.Failed() {
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
			handler, way, _ := strings.Cut(name, "-")
			s := newSide(t, scope, handler)
			s.seen, s.way = seen, cmp.Or(way, s.way)
			look(s)
		})
	}
	one("runc", runc)
	for name, seen := range others {
		one(name, seen)
	}
}

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

// serial tells namespaces apart that are made in the same second.
var serial atomic.Uint32

// newSide makes the namespace, which goes with all that is in it when the test ends. Its pods are on one node, which is one of on, or
// any without that.
func newSide(t *testing.T, scope, handler string, on ...string) *side {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	t.Cleanup(cancel)
	s := &side{T: t, ctx: ctx, handler: handler, scope: scope, ns: fmt.Sprintf("e2e-%s-%s-%d-%d", scope, handler, time.Now().Unix()%1e6, serial.Add(1)), seen: compare.Seen{}, way: "tap"}
	s.must("create", "namespace", s.ns)
	if len(on) == 0 {
		on = nodes(t)
	}
	s.node = s.choose(on)
	s.must("annotate", "namespace", s.ns, nodeSelector+"=kubernetes.io/hostname="+s.node)
	t.Cleanup(func() {
		s.ctx, cancel = context.WithTimeout(context.Background(), patience+time.Minute)
		defer cancel()
		if t.Failed() {
			t.Log(s.tell())
		}
		s.must("delete", "namespace", s.ns, waiting)
	})
	// Pods are refused until it is there.
	s.until("the default service account", func() bool { return s.ok("get", "serviceaccount", "default") })
	return s
}

// tell is what a person would look at first.
func (s *side) tell() string {
	out, _, _ := s.try("", "get", "pods,events", "-o", "wide")
	return out
}

// see records an observation.
func (s *side) see(key, value string) { s.seen[s.scope+"/"+key] = value }

// try runs kubectl in the side's namespace.
func (s *side) try(stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(s.ctx, "kubectl", append([]string{"--namespace", s.ns}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (s *side) ok(args ...string) bool {
	_, _, err := s.try("", args...)
	return err == nil
}

// must runs kubectl, which must succeed, and returns what it said.
func (s *side) must(args ...string) string {
	s.Helper()
	out, errs, err := s.try("", args...)
	if err != nil {
		s.Fatalf("kubectl %q: %v: %s", args, err, errs)
	}
	return out
}

// exit is the exit code of a command that kubectl ran in a container.
func (s *side) exit(err error) int {
	s.Helper()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		s.Fatal(err)
	}
	if err != nil {
		return status.ExitCode()
	}
	return 0
}

// apply creates what the manifests say; RUNTIME stands for the RuntimeClass, NETWORK for the annotation that chooses the
// way into the network, and IMAGE and HELPER for images with a shell.
func (s *side) apply(manifests string) {
	s.Helper()
	if _, errs, err := s.try(s.fill(manifests), "apply", "-f", "-"); err != nil {
		s.Fatalf("kubectl apply: %v: %s", err, errs)
	}
}

func (s *side) fill(manifests string) string {
	return strings.NewReplacer("RUNTIME", s.handler, "NETWORK", "krun.dev/network: "+s.way, "IMAGE", image, "HELPER", helper).Replace(manifests)
}

// ready waits until a pod is.
func (s *side) ready(pods ...string) {
	s.Helper()
	for _, p := range pods {
		s.must("wait", "--for=condition=Ready", "pod/"+p, waiting)
	}
}

// ended waits until a pod has, and returns its phase.
func (s *side) ended(pod string) string {
	s.Helper()
	phase := ""
	s.until(pod+" to end", func() bool {
		phase = s.get("pod/"+pod, "{.status.phase}")
		return phase == "Succeeded" || phase == "Failed"
	})
	return phase
}

// get is a value out of an object.
func (s *side) get(what, jsonpath string) string {
	s.Helper()
	return s.must("get", what, "-o", "jsonpath="+jsonpath)
}

// until polls.
func (s *side) until(what string, f func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// in runs a shell's script in a container of a pod.
func (s *side) in(pod, script string) string {
	s.Helper()
	out, errs, err := s.try("", "exec", pod, "--", "sh", "-c", script)
	if err != nil {
		s.Fatalf("in %s: %q: %v: %s%s", pod, script, err, out, errs)
	}
	return out
}

// eventSays waits for an event of a pod that has all of the words.
func (s *side) eventSays(pod string, words ...string) {
	s.Helper()
	var all string
	s.until(fmt.Sprintf("an event of %s with %q", pod, words), func() bool {
		all = s.must("get", "events", "--field-selector", "involvedObject.name="+pod, "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
		for line := range strings.Lines(all) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return true
			}
		}
		return false
	})
}
