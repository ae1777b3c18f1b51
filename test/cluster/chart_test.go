package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the tests' node has in other places than any distribution. Krunpod comes there a second time, beside the one of the other
// tests: under a handler, a RuntimeClass and a directory of its own.
const chartValues = `
handler: krun-chart
prefix: /opt/krunpod-chart
runtimeClass: {name: krun-chart}
containerd:
  config: /etc/kpnode/config.toml
  dropIn: /etc/kpnode/krunpod.d
  program: /usr/local/bin/containerd
  socket: /run/kpnode/containerd/containerd.sock
  restartCommand: /etc/kpnode/start >/dev/null 2>&1 </dev/null
`

// Of a release that is for one node alone.
const chartNode = `
nodeSelector: {kubernetes.io/hostname: NODE}
`

// looker sees a node's files and processes. Only the file system that is mounted at / is read-only to it.
const looker = `
apiVersion: v1
kind: Pod
metadata: {name: looker}
spec:
  runtimeClassName: runc
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers:
  - {name: looker, image: IMAGE, command: [sleep, "10000"], volumeMounts: [{name: host, mountPath: /host, readOnly: true, mountPropagation: HostToContainer}]}
  volumes: [{name: host, hostPath: {path: /}}]
`

const chartPod = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: krun-chart
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"]}]
`

const chartJob = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: krun-chart
  restartPolicy: Never
  containers: [{name: c, image: IMAGE, command: ["true"]}]
`

// An administrator installs the chart with Helm 3, runs a pod, upgrades with Helm 4 while it runs, has a node fail and come back, and
// uninstalls; then installs it again, and forces its removal.
func chartLives(s *side) {
	c := newRelease(s)
	before := c.state()

	c.install("helm3")
	first := c.versions()
	c.apply(strings.Replace(chartPod, "NAME", "old", 1))
	c.ready("old")
	kernel := c.in("looker", "uname -r")
	if guest := c.in("old", "uname -r"); guest == kernel {
		c.Errorf("a pod of the RuntimeClass has the node's kernel, %s", guest)
	}
	_, errs, err := c.side.try(c.fill(strings.NewReplacer("NAME", "refused", "spec:", "spec:\n  hostNetwork: true").Replace(chartPod)), "apply", "-f", "-")
	if err == nil || !strings.Contains(errs, "hostNetwork") {
		c.Errorf("a pod with hostNetwork was not refused by name: %v, %s", err, errs)
	}

	c.upgrade(first)
	c.apply(strings.Replace(chartPod, "NAME", "new", 1))
	c.ready("new")
	c.metrics("old", "new")
	c.nodeFails()

	c.refused("2 pods of RuntimeClass krun-chart exist")
	c.in("old", "true")
	c.must("delete", "pod", "old", "new", waiting)
	c.helm("helm4", "uninstall", "krunpod", "--timeout=5m")
	c.same(before)
	// The directories of pods are there as long as containerd has these.
	if left := c.in("looker", "ls -Ad /host/run/krunpod/.[a-z]* /host/sys/fs/cgroup/krunpod 2>/dev/null || true"); left != "" {
		c.Errorf("no pod runs, and these are left: %s", left)
	}

	c.install("helm4")
	c.apply(strings.Replace(chartPod, "NAME", "lost", 1) + "---" + strings.Replace(chartJob, "NAME", "done", 1))
	c.ready("lost")
	c.ended("done")
	c.refused("1 pods of RuntimeClass krun-chart exist")
	c.force()
	// Their runtime is gone; they can be removed all the same.
	c.must("delete", "pod", "lost", "done", waiting)
	c.same(before)
}

// The chart on all nodes. A pod that has ended keeps its sandbox until it is deleted, and the chart can be removed before.
func TestChartIsRemovedWhileThereArePodsThatHaveEnded(t *testing.T) {
	s := newSide(t, "chart", "krun-chart")
	s.spread()
	c := newRelease(s)
	c.install("helm4")
	c.apply(strings.Replace(chartJob, "NAME", "done", 1))
	if phase := c.ended("done"); phase != "Succeeded" {
		s.Fatalf("the pod is %s", phase)
	}
	c.helm("helm4", "uninstall", "krunpod", "--timeout=5m")
	c.must("delete", "pod", "done", waiting)
}

// release is a release of the chart in the side's namespace.
type release struct {
	*side
	// on are its nodes.
	on            []string
	chart, values string
}

// newRelease is one that is not installed yet, for the side's node or for all, beside a pod that looks at a node.
func newRelease(s *side) *release {
	c := &release{side: s, on: nodes, chart: filepath.Join(os.Getenv(enableEnv), "charts/krunpod"), values: filepath.Join(s.TempDir(), "values.yaml")}
	values := chartValues
	if s.node != "" {
		c.on = []string{s.node}
		values += strings.Replace(chartNode, "NODE", s.node, 1)
	}
	if err := os.WriteFile(c.values, []byte(values), 0o600); err != nil {
		s.Fatal(err)
	}
	s.start(looker, "looker")
	s.Cleanup(c.remove)
	return c
}

// of is a value of each of its nodes.
func (c *release) of(jsonpath string) (all []string) {
	c.Helper()
	for _, n := range c.on {
		all = append(all, c.get("node/"+n, jsonpath))
	}
	return all
}

// says is whether each of its nodes has the label of a node that krun is ready on, or not.
func (c *release) says(state string) bool {
	c.Helper()
	return !slices.ContainsFunc(c.of(`{.metadata.labels.krun\.dev/runtime}`), func(label string) bool { return label != state })
}

// install installs the first version.
func (c *release) install(generation string) {
	c.Helper()
	before := c.containerd()
	c.helm(generation, "install", "krunpod", c.chart, "--values", c.values, "--set", "image.tag=first", "--wait", "--timeout=5m")
	c.must("rollout", "status", "daemonset/krunpod-installer", waiting)
	c.until("the nodes' labels", func() bool { return c.says("ready") })
	if c.containerd() == before {
		c.Error("containerd was not restarted by the installation: its process is not what this test thinks")
	}
}

// upgrade upgrades from the version first, with Helm 4 and with metrics. containerd and what runs go on.
func (c *release) upgrade(first []string) {
	c.Helper()
	containerd := c.containerd()
	c.helm("helm4", "upgrade", "krunpod", c.chart, "--values", c.values, "--set", "image.tag=next,metrics.enabled=true", "--wait", "--timeout=5m")
	c.must("rollout", "status", "daemonset/krunpod-installer", waiting)
	c.until("the next version on all nodes", func() bool {
		next := slices.Compact(c.versions())
		return len(next) == 1 && next[0] != "" && next[0] != first[0]
	})
	if got := c.in("looker", "chroot /host /opt/krunpod-chart/bin/krunctl --version"); !strings.HasSuffix(strings.TrimSpace(got), " next") {
		c.Errorf("after the upgrade the node has %s", got)
	}
	if now := c.containerd(); now != containerd {
		c.Errorf("the upgrade restarted containerd: process %s, then %s", containerd, now)
	}
	c.in("old", "true")
}

// containerd is the process id of the looker's node's.
func (c *release) containerd() string {
	c.Helper()
	return strings.TrimSpace(c.in("looker", "pidof containerd"))
}

// metricsPods are the pods that serve metrics.
func (c *release) metricsPods() []string {
	c.Helper()
	return strings.Fields(c.get("pods", `{.items[?(@.metadata.labels.app\.kubernetes\.io/name=="krunpod-metrics")].metadata.name}`))
}

// metrics are of all pods of a node, whichever installation they are of.
func (c *release) metrics(pods ...string) {
	c.Helper()
	told := ""
	for _, pod := range c.metricsPods() {
		c.ready(pod)
		told += c.page("pod/"+pod, 9464, "/metrics")
	}
	for _, pod := range pods {
		if !regexp.MustCompile(`krunpod_sandbox_up\{namespace="`+c.ns+`",pod="`+pod+`",sandbox="[^"]+"\} 1\n`).MatchString(told) ||
			!regexp.MustCompile(`krunpod_sandbox_memory_bytes\{namespace="`+c.ns+`",pod="`+pod+`",sandbox="[^"]+"\} [1-9]`).MatchString(told) {
			c.Errorf("the metrics lack the pod %s: %s", pod, told)
		}
	}
}

// nodeFails takes KVM away from the looker's node and brings it back.
func (c *release) nodeFails() {
	c.Helper()
	node := c.get("pod/looker", "{.spec.nodeName}")
	serving := c.metricsPods()
	back := func() { c.in("looker", "if [ -e /host/dev/kvm.away ]; then mv /host/dev/kvm.away /host/dev/kvm; fi") }
	c.in("looker", "mv /host/dev/kvm /host/dev/kvm.away")
	defer back()
	// A new installer looks at the node at once.
	c.must("delete", "pod", "--selector=app.kubernetes.io/name=krunpod", "--field-selector=spec.nodeName="+node, waiting)
	c.until("the node's annotation", func() bool {
		return strings.Contains(c.get("node/"+node, `{.metadata.annotations.krun\.dev/not-ready}`), "/dev/kvm")
	})
	events := func(reason string) string {
		return c.must("get", "events", "--namespace=default", "--field-selector=involvedObject.name="+node+",reason="+reason, "-o", "jsonpath={.items[*].message}")
	}
	c.until("its event", func() bool { return strings.Contains(events("KrunNotPossible"), "/dev/kvm") })
	if !c.says("not-ready") {
		c.Errorf("without KVM the node is labelled %q", c.of("{.metadata.labels}"))
	}
	c.in("old", "true")
	c.must("rollout", "status", "daemonset/krunpod-metrics", waiting)
	if now := c.metricsPods(); !slices.Equal(now, serving) {
		c.Errorf("metrics were served by %q, and on a node that is not ready by %q", serving, now)
	}
	back()
	c.until("the node to be ready again", func() bool { return c.says("ready") })
	if why := c.get("node/"+node, `{.metadata.annotations.krun\.dev/not-ready}`); why != "" {
		c.Errorf("it is ready, and it is not: %s", why)
	}
}

// refused is a removal that does not take place.
func (c *release) refused(why string) {
	c.Helper()
	if out, err := c.try("helm4", "uninstall", "krunpod", "--timeout=5m"); err == nil {
		c.Errorf("uninstalled while pods run: %s", out)
	}
	if log := c.must("logs", "job/krunpod-installer-retire"); !strings.Contains(log, why) {
		c.Errorf("the removal does not say %q: %s", why, log)
	}
	if !c.says("ready") {
		c.Errorf("after it the nodes are labelled %q", c.of("{.metadata.labels}"))
	}
}

// force is the way that docs/install.md has for a release whose removal was refused.
func (c *release) force() {
	c.Helper()
	hooks, err := c.try("helm4", "get", "hooks", "krunpod")
	if err != nil || !strings.Contains(hooks, "--force=false") {
		c.Fatalf("helm get hooks: %v: %s", err, hooks)
	}
	if _, errs, err := c.side.try(strings.Replace(hooks, "--force=false", "--force=true", 1), "replace", "--force", "-f", "-"); err != nil {
		c.Fatalf("the forced job: %v: %s", err, errs)
	}
	c.must("wait", "--for=condition=Complete", "job/krunpod-installer-retire", waiting)
	c.helm("helm4", "uninstall", "krunpod", "--no-hooks")
	c.must("delete", "job", "krunpod-installer-retire")
}

// try runs Helm.
func (c *release) try(generation string, args ...string) (string, error) {
	out, err := exec.CommandContext(c.ctx, filepath.Join(os.Getenv("HELM"), generation), append([]string{"--namespace", c.ns}, args...)...).CombinedOutput()
	return string(out), err
}

// helm runs Helm, which must succeed.
func (c *release) helm(generation string, args ...string) {
	c.Helper()
	if out, err := c.try(generation, args...); err != nil {
		c.Fatalf("%s %q: %v: %s%s", generation, args, err, out, c.logs())
	}
}

func (c *release) logs() string {
	out, _, _ := c.side.try("", "logs", "--selector=app.kubernetes.io/instance=krunpod", "--prefix", "--tail=40")
	return out
}

// versions is what the nodes say of their installations.
func (c *release) versions() []string {
	c.Helper()
	return c.of(`{.metadata.annotations.krun\.dev/installed}`)
}

// volatile are the places of a node where files come and go by themselves: those of the kernel, of containerd and the kubelet, logs.
var volatile = []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/tmp", "/var/lib/kpnode", "/var/lib/kubelet", "/var/lib/cni",
	"/var/lib/containerd", "/var/cache"}

// state is what its nodes say of the installation, and all files of the looker's, with a sum of those in /etc.
func (c *release) state() map[string]bool {
	c.Helper()
	all := map[string]bool{}
	for _, what := range []string{"labels", `annotations.krun\.dev/installed`, `annotations.krun\.dev/not-ready`, `annotations.krun\.dev/uninstall`} {
		all[fmt.Sprintf("%s: %q", what, c.of("{.metadata."+what+"}"))] = true
	}
	prune := "-path ." + strings.Join(volatile, " -o -path .")
	for line := range strings.Lines(c.in("looker", "cd /host && find . -xdev \\( "+prune+" \\) -prune -o -print && find etc -xdev -type f -exec sha256sum {} +")) {
		all[line] = true
	}
	return all
}

// same checks that the nodes are as they were.
func (c *release) same(before map[string]bool) {
	c.Helper()
	after := c.state()
	for line := range before {
		if !after[line] {
			c.Errorf("gone: %s", line)
		}
	}
	for line := range after {
		if !before[line] {
			c.Errorf("new: %s", line)
		}
	}
	if c.ok("get", "runtimeclass", "krun-chart") {
		c.Error("the RuntimeClass is left")
	}
}

// remove is for a test that failed half-way: the other tests must find the node as it was.
func (c *release) remove() {
	c.ctx = context.Background()
	if _, err := c.try("helm4", "status", "krunpod"); err == nil {
		c.side.try("", "delete", "pods", "--selector=!app.kubernetes.io/instance", waiting)
		if out, err := c.try("helm4", "uninstall", "krunpod", "--timeout=5m"); err != nil {
			c.Errorf("helm uninstall: %v: %s%s", err, out, c.logs())
		}
	}
}
