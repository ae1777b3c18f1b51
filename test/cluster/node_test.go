package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// administrator is root on a node.
const administrator = `
apiVersion: v1
kind: Pod
metadata: {name: administrator}
spec:
  runtimeClassName: runc
  hostPID: true
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: IMAGE, command: [sleep, "10000"], securityContext: {privileged: true}}]
`

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
		s.apply(administrator)
		s.ready("administrator")
		file := "/etc/kubernetes/static/" + s.ns + ".yaml"
		onNode := func(stdin, script string) {
			s.Helper()
			if out, errs, err := s.try(stdin, "exec", "-i", "administrator", "--", "nsenter", "-t", "1", "-m", "sh", "-c", script); err != nil {
				s.Fatalf("on the node: %s: %v: %s%s", script, err, out, errs)
			}
		}
		onNode(s.fill(strings.Replace(static, "NAMESPACE", s.ns, 1)), "cat >"+file)
		pod := "static-" + s.node
		s.until("the pod in the API", func() bool { return s.ok("get", "pod", pod) })
		s.ready(pod)
		s.until("its log", func() bool { return s.must("logs", pod) != "" })
		s.see("log", s.must("logs", pod))
		onNode("", "rm "+file)
		s.must("wait", "--for=delete", "pod/"+pod, waiting)
	})
}

// The kubelet and containerd are started anew, as for an update: pods go on.
func restartOfServices(s *side) {
	s.apply(administrator)
	s.apply(client)
	s.ready("administrator", "client")
	id := s.get("pod/client", "{.status.containerStatuses[0].containerID}")
	s.in("client", "echo kept >/tmp/kept")
	onNode := []string{"exec", "administrator", "--", "nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "sh", "-c"}
	pids := func() (string, error) {
		out, _, err := s.try("", append(onNode, "cat /run/kpnode/containerd.pid /run/kubernetes/kubelet.pid")...)
		return out, err
	}
	before, err := pids()
	if err != nil {
		s.Fatal(err)
	}
	// Both carry the exec's streams, so it must not wait.
	s.must(append(onNode, "setsid sh -c 'sleep 1; /etc/kpnode/start && /etc/kubernetes/start' >/dev/null 2>&1 </dev/null &")...)
	s.until("both to be others", func() bool {
		after, err := pids()
		old, now := strings.Fields(before), strings.Fields(after)
		return err == nil && len(now) == 2 && now[0] != old[0] && now[1] != old[1]
	})
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

// A node that was switched off comes back with its pods, their volumes on disk, and one restart each.
func reboot(s *side) {
	for _, handler := range []string{"runc", "krun"} {
		s.apply(strings.ReplaceAll(surviving, "NAME", handler))
	}
	s.ready("runc", "krun")
	lived := func(handler string, times int) {
		s.until(handler+" to have written", func() bool { return s.in(handler, "grep -c . /kept/lives || true") == fmt.Sprintln(times) })
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
