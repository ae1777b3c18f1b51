package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
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

// looker sees a node's files.
const looker = `
apiVersion: v1
kind: Pod
metadata: {name: looker}
spec:
  runtimeClassName: runc
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

// An administrator installs the chart with Helm 3, runs a pod, upgrades with Helm 4 while it runs, and uninstalls.
func TestChart(t *testing.T) {
	s := newSide(t, "chart", "krun-chart")
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	c := &release{side: s, chart: filepath.Join(os.Getenv(enableEnv), "charts/krunpod"), values: filepath.Join(t.TempDir(), "values.yaml")}
	if err := os.WriteFile(c.values, []byte(chartValues), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(looker, "looker")
	s.spread()
	before := c.state()

	t.Cleanup(c.remove)
	c.helm("helm3", "install", "krunpod", c.chart, "--values", c.values, "--set", "image.tag=first", "--wait", "--timeout=5m")
	s.must("rollout", "status", "daemonset/krunpod-installer", waiting)
	s.until("the nodes' labels", func() bool {
		return strings.Count(s.get("nodes", `{.items[*].metadata.labels.krun\.dev/runtime}`), "ready") == len(nodes)
	})
	first := c.versions()
	s.apply(strings.Replace(chartPod, "NAME", "old", 1))
	s.ready("old")
	kernel := s.in("looker", "uname -r")
	if guest := s.in("old", "uname -r"); guest == kernel {
		t.Errorf("a pod of the RuntimeClass has the node's kernel, %s", guest)
	}
	_, errs, err := s.try(s.fill(strings.NewReplacer("NAME", "refused", "spec:", "spec:\n  hostNetwork: true").Replace(chartPod)), "apply", "-f", "-")
	if err == nil || !strings.Contains(errs, "hostNetwork") {
		t.Errorf("a pod with hostNetwork was not refused by name: %v, %s", err, errs)
	}

	c.helm("helm4", "upgrade", "krunpod", c.chart, "--values", c.values, "--set", "image.tag=next,metrics.enabled=true", "--wait", "--timeout=5m")
	s.must("rollout", "status", "daemonset/krunpod-installer", waiting)
	s.until("the next version on all nodes", func() bool {
		next := strings.Fields(c.versions())
		return len(next) == len(nodes) && len(slices.Compact(next)) == 1 && next[0] != strings.Fields(first)[0]
	})
	s.apply(strings.Replace(chartPod, "NAME", "new", 1))
	s.ready("new")
	if got := s.in("looker", "chroot /host /opt/krunpod-chart/bin/krunctl --version"); !strings.HasSuffix(strings.TrimSpace(got), " next") {
		t.Errorf("after the upgrade the node has %s", got)
	}
	s.in("old", "true") // what runs of the version before goes on
	// Metrics are of all pods of a node, whichever installation they are of.
	metrics := s.get("pods", `{.items[?(@.metadata.labels.app\.kubernetes\.io/name=="krunpod-metrics")].metadata.name}`)
	told := ""
	for _, pod := range strings.Fields(metrics) {
		s.ready(pod)
		told += s.page("pod/"+pod, 9464, "/metrics")
	}
	for _, pod := range []string{"old", "new"} {
		if !regexp.MustCompile(`krunpod_sandbox_up\{namespace="`+s.ns+`",pod="`+pod+`",sandbox="[^"]+"\} 1\n`).MatchString(told) ||
			!regexp.MustCompile(`krunpod_sandbox_memory_bytes\{namespace="`+s.ns+`",pod="`+pod+`",sandbox="[^"]+"\} [1-9]`).MatchString(told) {
			t.Errorf("the metrics lack the pod %s: %s", pod, told)
		}
	}

	if out, err := c.try("helm4", "uninstall", "krunpod", "--timeout=5m"); err == nil {
		t.Errorf("uninstalled while pods run: %s", out)
	}
	if why := s.must("logs", "job/krunpod-installer-retire"); !strings.Contains(why, "2 pods of RuntimeClass krun-chart exist") {
		t.Errorf("the removal does not name the pods that run: %s", why)
	}
	s.in("old", "true")
	s.must("delete", "pod", "old", "new", waiting)
	c.helm("helm4", "uninstall", "krunpod", "--timeout=5m")
	if after := c.state(); after != before {
		t.Errorf("the nodes before:\n%s\nand after:\n%s", before, after)
	}
	if s.exists("runtimeclass/krun-chart") {
		t.Error("the RuntimeClass is left")
	}
}

// release is a release of the chart in the side's namespace.
type release struct {
	*side
	chart, values string
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
func (c *release) versions() string {
	return c.get("nodes", `{.items[*].metadata.annotations.krun\.dev/installed}`)
}

// state is what the installation may change on the nodes, and the removal must bring back; the files are those of one.
func (c *release) state() string {
	c.Helper()
	labels := c.get("nodes", "{.items[*].metadata.labels}")
	mine := ""
	for _, a := range []string{"installed", "not-ready", "uninstall"} {
		mine += a + ": " + c.get("nodes", `{.items[*].metadata.annotations.krun\.dev/`+a+`}`) + "\n"
	}
	files := c.in("looker", "cd /host && ls -d opt/* && find etc/kpnode /host/etc/containerd 2>/dev/null | sort && sha256sum etc/kpnode/config.toml")
	return labels + "\n" + mine + files
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
