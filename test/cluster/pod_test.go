package cluster

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const twoContainers = `
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  runtimeClassName: RUNTIME
  terminationGracePeriodSeconds: 2
  containers:
  - name: web
    image: IMAGE
    command: [sh, -c, "echo started; mkdir -p /www; echo page >/www/index.html; exec httpd -f -p 8080 -h /www"]
    ports: [{containerPort: 8080, hostPort: HOSTPORT}]
  - name: other
    image: IMAGE
    stdin: true
    command: [sh, -c, "while read line; do echo got $line; done; exec sleep 10000"]
`

// What kubectl does with a pod: logs, exec, attach, cp, port-forward, debug.
func TestPod(t *testing.T) {
	under(t, "pod", func(s *side) {
		hostPort := map[string]string{"runc": "18080", "krun": "18081"}[s.handler]
		s.start(strings.Replace(twoContainers, "HOSTPORT", hostPort, 1), "two")
		s.see("logs", s.must("logs", "two", "-c", "web"))
		s.see("status.qos", s.get("pod/two", "{.status.qosClass}"))
		s.see("status.restarts", s.get("pod/two", "{.status.containerStatuses[*].restartCount}"))
		s.lookAtKernel()
		s.lookAtExec()
		s.lookAtAttach()
		s.lookAtCopy()
		s.lookAtPortForward()
		s.see("host-port", s.fetch("http://"+s.get("pod/two", "{.status.hostIP}")+":"+hostPort+"/"))
		s.lookAtTerminal()
		s.lookAtDebug()
	})
}

func (s *side) lookAtKernel() {
	s.Helper()
	own, err := exec.Command("uname", "-r").Output()
	if err != nil {
		s.Fatal(err)
	}
	node := s.get("node", "{.items[0].status.nodeInfo.kernelVersion}")
	guest := strings.TrimSpace(s.in("two", "uname -r"))
	if s.handler == "krun" && (guest == node || guest == strings.TrimSpace(string(own))) {
		s.Errorf("the pod's kernel is %s, the node's %s", guest, node)
	}
	s.see("localhost", s.must("exec", "two", "-c", "other", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"))
}

func (s *side) lookAtExec() {
	s.Helper()
	out, _, err := s.try("typed\n", "exec", "-i", "two", "-c", "web", "--", "sh", "-c", "read a; echo $a; echo err >&2; exit 7")
	s.see("exec", fmt.Sprint(out, s.exit(err)))
	_, _, err = s.try("", "exec", "two", "-c", "web", "--", "/no/such/command")
	s.see("exec.missing", fmt.Sprint(s.exit(err)))
	out, _, err = s.try("", "exec", "two", "-c", "other", "--", "sh", "-c", "hostname; id; echo $HOSTNAME; ls /var/run/secrets/kubernetes.io/serviceaccount")
	s.see("exec.other", fmt.Sprint(out, s.exit(err)))
}

func (s *side) lookAtAttach() {
	s.Helper()
	cmd := exec.CommandContext(s.ctx, "kubectl", "--namespace", s.ns, "attach", "-i", "two", "-c", "other")
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	_, wrote := io.WriteString(in, "hello\n")
	answer, read := bufio.NewReader(out).ReadString('\n')
	// attach ends with its input.
	if err := errors.Join(wrote, read, in.Close(), cmd.Wait()); err != nil {
		s.Fatalf("attach said %q and %q: %v", answer, errs.String(), err)
	}
	s.see("attach", answer)
	s.until("the answer in the log", func() bool { return strings.Contains(s.log("two", "other"), "got hello") })
}

func (s *side) lookAtCopy() {
	s.Helper()
	dir := s.TempDir()
	data := strings.Repeat("0123456789abcdef", 100_000)
	path := filepath.Join(dir, "there")
	if err := os.WriteFile(path, []byte(data), 0o640); err != nil {
		s.Fatal(err)
	}
	s.must("cp", path, s.ns+"/two:/tmp/file", "-c", "web")
	s.see("cp.there", s.must("exec", "two", "-c", "web", "--", "sh", "-c", "sha256sum </tmp/file; stat -c %a /tmp/file"))
	back := filepath.Join(dir, "back")
	s.must("cp", s.ns+"/two:/tmp/file", back, "-c", "web")
	got, err := os.ReadFile(back)
	if err != nil || sha256.Sum256(got) != sha256.Sum256([]byte(data)) {
		s.Errorf("copied back: %d bytes, %v", len(got), err)
	}
}

// lookAtDebug adds an ephemeral container, which sees the processes and files of another.
func (s *side) lookAtDebug() {
	s.Helper()
	s.must("debug", "two", "--image="+image, "--target=other", "--container=look", "--profile=general", "--",
		"sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo; ls /proc/1/root/bin/sleep; hostname; exec sleep 1000")
	s.until("the ephemeral container", func() bool {
		return s.get("pod/two", "{.status.ephemeralContainerStatuses[0].state.running}") != ""
	})
	s.until("what it says", func() bool { return strings.Count(s.log("two", "look"), "\n") >= 3 })
	s.see("debug", s.must("logs", "two", "-c", "look"))
}

// lookAtPortForward asks the server through a port that kubectl chose.
func (s *side) lookAtPortForward() {
	s.Helper()
	s.see("port-forward", s.page("pod/two", 8080, "/"))
}

// page is the status and the page that a server answers through kubectl port-forward.
func (s *side) page(target string, remote int, path string) string {
	s.Helper()
	cmd := exec.CommandContext(s.ctx, "kubectl", "--namespace", s.ns, "port-forward", target, fmt.Sprintf(":%d", remote))
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var port int
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "Forwarding from 127.0.0.1:%d", &port)
	}
	if err != nil {
		s.Fatalf("port-forward said %q: %v", line, err)
	}
	return s.fetch(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
}

// fetch is the status and the page that a server answers this machine.
func (s *side) fetch(url string) string {
	s.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		s.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, string(page), err)
}

func TestLogsFollow(t *testing.T) {
	under(t, "follow", func(s *side) {
		s.apply(`
apiVersion: v1
kind: Pod
metadata: {name: teller}
spec:
  runtimeClassName: RUNTIME
  restartPolicy: Never
  containers:
  - name: teller
    image: IMAGE
    command: [sh, -c, "for i in 1 2 3 4 5; do echo line $i; echo err $i >&2; sleep 1; done; exit 3"]
`)
		s.begun("teller") // it may have ended before it was seen ready
		out := s.must("logs", "-f", "teller")
		for i := range 5 {
			if !strings.Contains(out, fmt.Sprintf("line %d\n", i+1)) || !strings.Contains(out, fmt.Sprintf("err %d\n", i+1)) {
				s.Errorf("followed %q", out)
			}
		}
		s.see("phase", s.ended("teller"))
		s.see("exit", s.get("pod/teller", "{.status.containerStatuses[0].state.terminated.exitCode} {.status.containerStatuses[0].state.terminated.reason}"))
	})
}
