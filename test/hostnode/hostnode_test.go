package hostnode

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	enableEnv = "KRUNPOD_HOSTNODE"
	// number is of a node that nothing else uses.
	number = "9"
	script = "../../hack/node"
)

func TestMain(m *testing.M) {
	if os.Getenv(enableEnv) == "" {
		println("hack/check-node runs these tests: they make a node of this machine")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// hackNode runs a command of hack/node.
func hackNode(args ...string) *exec.Cmd {
	cmd := exec.Command(script, append([]string{"-n", number}, args...)...)
	cmd.Env = append(os.Environ(), "KRUNPOD_NODE=host")
	return cmd
}

// node runs a command of hack/node that must succeed, and returns its standard output.
func node(t *testing.T, args ...string) string {
	t.Helper()
	cmd := hackNode(args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hack/node %q: %v: %s", args, err, errs.String())
	}
	return string(out)
}

// up makes the node, which the end of the test removes; it skips the test where the machine does not let it be.
func up(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a node of this machine needs root")
	}
	t.Cleanup(func() {
		if out, err := hackNode("down").CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
		for _, left := range leftovers(t) {
			t.Errorf("left behind: %s", left)
		}
	})
	out, err := hackNode("up").CombinedOutput()
	if reason := lineWith(string(out), "this machine cannot be a node"); err != nil && reason != "" {
		t.Skip(reason)
	}
	if err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
}

func lineWith(text, part string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// leftovers lists what bears the name of the node: mounts, cgroups (and so processes), network namespaces, interfaces.
func leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if line := lineWith(string(mounts), "/node/"+number+"/"); line != "" {
		left = append(left, "mount "+line)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/kp-nodes*-" + number, "/sys/fs/cgroup/unified/kp-nodes*-" + number,
		"/run/netns/kp-nodes*-" + number, "/sys/class/net/kptap" + number, filepath.Join(cache(t), "node", number)} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	return left
}

func cache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("KRUNPOD_CACHE"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, ".cache", "krunpod")
}

func TestExecPassesArgumentsStreamsAndExitCode(t *testing.T) {
	up(t)
	if got := node(t, "exec", "--", "printf", "%s|", "a b", `"$HOME"`, ""); got != `a b|"$HOME"||` {
		t.Errorf("arguments arrive as %q", got)
	}
	cat := hackNode("exec", "--", "cat")
	cat.Stdin = strings.NewReader("to stdin\n")
	if out, err := cat.Output(); err != nil || string(out) != "to stdin\n" {
		t.Errorf("cat of standard input: %q, %v", out, err)
	}
	var exit *exec.ExitError
	if err := hackNode("exec", "--", "sh", "-c", "exit 7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit 7 arrives as %v", err)
	}
}

func TestNodeIsApartFromTheMachine(t *testing.T) {
	up(t)
	before, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(node(t, "exec", "--", "cat", "/proc/sys/kernel/hostname")); got != "node"+number {
		t.Errorf("the node's name is %q", got)
	}
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the machine's name was %q and is %q", before, after)
	}
	if got := strings.Fields(node(t, "exec", "--", "sh", "-c", "cd /sys/class/net && echo *")); strings.Join(got, " ") != "eth0 lo" {
		t.Errorf("the node sees the interfaces %q", got)
	}
	if got := node(t, "exec", "--", "cat", "/proc/1/cmdline"); !strings.Contains(got, "krunpod-init") {
		t.Errorf("process 1 is %q", got)
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		link := "/proc/self/ns/" + kind
		ours, err := os.Readlink(link)
		if err != nil {
			t.Fatal(err)
		}
		if theirs := strings.TrimSpace(node(t, "exec", "--", "readlink", link)); theirs == ours || theirs == "" {
			t.Errorf("namespace %s: the machine's is %s, the node's %q", kind, ours, theirs)
		}
	}
	const file = "/etc/krunpod-hostnode-test"
	node(t, "exec", "--", "touch", file)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s, made on the node, is on the machine: %v", file, err)
	}
	node(t, "exec", "--", "ping", "-q", "-c", "1", "-W", "5", "10.88.0.1")
}

func TestFilesGoBothWays(t *testing.T) {
	up(t)
	here, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	if err := os.MkdirAll(filepath.Join(here, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(here, "sub", "file"), []byte("content"), 0o600),
		os.Chmod(filepath.Join(here, "sub", "file"), 0o750)); err != nil {
		t.Fatal(err)
	}
	node(t, "push", here, "/root/there")
	node(t, "pull", "/root/there", back)
	got, err := os.ReadFile(filepath.Join(back, "sub", "file"))
	if err != nil || string(got) != "content" {
		t.Errorf("a directory comes back as %q, %v", got, err)
	}
	node(t, "push", filepath.Join(here, "sub", "file"), "/root/alone")
	if mode := strings.TrimSpace(node(t, "exec", "--", "stat", "-c", "%a", "/root/alone")); mode != "750" {
		t.Errorf("a file of mode 750 arrives with %s", mode)
	}
}

func TestDownEndsWhatRunsThere(t *testing.T) {
	up(t)
	if out := strings.TrimSpace(node(t, "status")); out != "ok" {
		t.Errorf("status %q", out)
	}
	node(t, "exec", "--", "sh", "-c", "setsid sleep 86399 </dev/null >/dev/null 2>&1 &")
	node(t, "exec", "--", "mount", "-t", "tmpfs", "left", "/opt")
	running := hackNode("exec", "--", "sleep", "86399")
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	node(t, "down")
	if err := running.Wait(); err == nil {
		t.Error("an exec outlives its node")
	}
	if out, _ := exec.Command("pgrep", "-f", "sleep 86399").Output(); len(out) > 0 {
		t.Errorf("processes outlive their node: %s", out)
	}
	out, err := hackNode("status").Output()
	var exit *exec.ExitError
	if strings.TrimSpace(string(out)) != "down" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("status after down: %q, %v", out, err)
	}
}

func TestContainerdRunsContainers(t *testing.T) {
	up(t)
	prepare := exec.Command("../../hack/prepare-node", number)
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("prepare-node: %v: %s", err, out)
	}
	if out := node(t, "exec", "--", "crictl", "images"); !strings.Contains(out, "krunpod/busybox") {
		t.Errorf("crictl images: %s", out)
	}
	// Not through CRI, which sets limits: cgroup v2 may lack its controllers on a machine that cannot run krun pods.
	const run = `cd /root && mkdir root && runc spec &&
		jq '.process.terminal = false | .process.args = ["echo", "from the container"] | .root.path = "/root/root"' config.json >c.json &&
		ctr images mount --rw localhost/krunpod/busybox:1 root >/dev/null &&
		ctr run --rm --config c.json hostnode-test`
	if out := node(t, "exec", "--", "sh", "-c", run); strings.TrimSpace(out) != "from the container" {
		t.Errorf("the container says %q", out)
	}
}
