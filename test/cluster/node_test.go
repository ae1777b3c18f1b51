package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const static = `
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: NAMESPACE}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sh, -c, "echo here; exec sleep 10000"]}]
`

// A pod that a file on the node describes.
func TestStaticPod(t *testing.T) {
	under(t, "static", func(s *side) {
		file := "/etc/kubernetes/static/" + s.ns + ".yaml"
		end := s.turn()
		s.hackNode(s.node, "exec", "--", "sh", "-c", `echo "$0" >"$1"`, s.fill(strings.Replace(static, "NAMESPACE", s.ns, 1)), file)
		pod := "static-" + s.node
		s.until("the pod in the API", func() bool { return s.exists("pod/" + pod) })
		s.ready(pod)
		end()
		s.until("its log", func() bool { return s.log(pod, "") != "" })
		s.see("log", s.must("logs", pod))
		s.hackNode(s.node, "exec", "--", "rm", file)
		s.until("the pod to be gone", func() bool { return !s.exists("pod/" + pod) })
	})
}

// A VMM that dies, of whatever, is told to who asks kubectl, and its pod runs again in another microVM.
func TestVMThatDies(t *testing.T) {
	t.Parallel()
	s := newSide(t, "dies", "krun")
	s.start(client, "client")
	end := s.turn()
	s.hackNode(s.node, "exec", "--", "sh", "-c", `kill -9 "$(/opt/krunpod/bin/krunctl ps | awk -v pod="$0" '$3 == pod {print $5}')"`, s.ns+"/client")
	s.until("the pod's second life", func() bool { return s.get("pod/client", "{.status.containerStatuses[0].restartCount}") == "1" })
	s.ready("client")
	end()
	// The first life's end may be known to the kubelet only after the second has begun.
	for _, words := range []string{`Last State: +Terminated`, `Exit Code: +137`, `SandboxChanged .*Pod sandbox changed, it will be killed and re-created`} {
		s.until("kubectl describe to say "+words, func() bool { return regexp.MustCompile(words).MatchString(s.must("describe", "pod", "client")) })
	}
}

// The kubelet and containerd are started anew, as for an update: pods go on.
func restartOfServices(s *side) {
	s.start(client, "client")
	id := s.get("pod/client", "{.status.containerStatuses[0].containerID}")
	s.in("client", "echo kept >/tmp/kept")
	pids := func() []string {
		return strings.Fields(s.hackNode(s.node, "exec", "--", "cat", "/run/kpnode/containerd.pid", "/run/kubernetes/kubelet.pid"))
	}
	before := pids()
	s.hackNode(s.node, "exec", "--", "sh", "-c", "/etc/kpnode/start && /etc/kubernetes/start")
	if after := pids(); len(after) != 2 || after[0] == before[0] || after[1] == before[1] {
		s.Fatalf("containerd and the kubelet were processes %q, and are %q", before, after)
	}
	s.until("the pod to answer", func() bool { return s.ok("exec", "client", "--", "cat", "/tmp/kept") })
	s.ready("client")
	if got := s.get("pod/client", "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}"); got != id+" 0" {
		s.Errorf("container %s is now %s", id, got)
	}
}

const surviving = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  runtimeClassName: NAME
  terminationGracePeriodSeconds: 1
  volumes: [{name: kept, emptyDir: {}}]
  containers: [{name: c, image: IMAGE, command: [sh, -c, "date >>/kept/lives; exec sleep 10000"], volumeMounts: [{name: kept, mountPath: /kept}]}]
`

// hackNode runs hack/node for a node, and returns its output.
func (s *side) hackNode(node string, args ...string) string {
	s.Helper()
	cmd := exec.CommandContext(s.ctx, filepath.Join(os.Getenv(enableEnv), "hack/node"), append([]string{"-n", strings.TrimPrefix(node, "node")}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("hack/node for %s: %q: %v: %s", node, args, err, errs.String())
	}
	return string(out)
}

// clockAhead is how far the node's clock is ahead of this machine's, which is the API server's. It is too little by the time that the answer takes.
func (s *side) clockAhead() time.Duration {
	s.Helper()
	text := strings.TrimSpace(s.hackNode(s.node, "exec", "--", "date", "-u", "+%Y-%m-%dT%H:%M:%S.%NZ"))
	now := time.Now()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		s.Fatalf("the clock of %s: %v", s.node, err)
	}
	return at.Sub(now)
}

// sharesKernel is whether the node is this machine itself (hack/node's kind host): a boot has one id.
func (s *side) sharesKernel() bool {
	s.Helper()
	const id = "/proc/sys/kernel/random/boot_id"
	own, err := os.ReadFile(id)
	if err != nil {
		s.Fatal(err)
	}
	return s.hackNode(s.node, "exec", "--", "cat", id) == string(own)
}

// A node that was switched off comes back with its pods, their volumes on disk, and one restart each.
func reboot(s *side) {
	if s.sharesKernel() {
		s.Skip("the node is of kind host: its kernel is this machine's")
	}
	s.start(strings.ReplaceAll(surviving, "NAME", "runc")+"---"+strings.ReplaceAll(surviving, "NAME", "krun"), "runc", "krun")
	lived := func(handler string, times int) {
		s.in(handler, comes(fmt.Sprintf("[ $(grep -c . /kept/lives) = %d ]", times)))
	}
	lived("runc", 1)
	lived("krun", 1)
	s.hackNode(s.node, "reboot")
	s.hackNode(s.node, "exec", "--", "sh", "-c", "/etc/kpnode/start && /etc/kubernetes/start")
	for _, handler := range []string{"runc", "krun"} {
		s.until(handler+" to be restarted", func() bool {
			return s.get("pod/"+handler, "{.status.containerStatuses[0].restartCount}") == "1"
		})
		s.ready(handler)
		lived(handler, 2)
	}
}
