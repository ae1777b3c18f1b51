package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"

	"krun.dev/krunpod/test/testpod"
)

// ctr runs containerd's own client, which removes its container at the end.
func (n *node) ctr(name string, args ...string) (code int, stdout, stderr string) {
	n.Helper()
	run := []string{"--address", testpod.Address(), "-n", "k8s.io", "run", "--rm", "--runtime", runtimeType}
	return n.tool("ctr", append(append(run, args...), testpod.DefaultImage, name, "/bin/sh", "-c", "uname -r; echo warned >&2; exit 7")...)
}

func TestCtrRunsAContainer(t *testing.T) {
	n := newNode(t)
	code, out, errs := n.ctr("plain")
	if code != 7 || len(out) < 4 || out == hostKernel(t)+"\n" || errs != "warned\n" {
		t.Errorf("exit code %d, output %q, error output %q", code, out, errs)
	}
}

// TestOutputGoesWhereCtrSays: to a file, and to a process, which says that it is ready by closing descriptor 5 or, the second
// version, by a byte (containerd's pkg/cio and docs, "binary" log driver).
func TestOutputGoesWhereCtrSays(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	logger := filepath.Join(dir, "logger")
	script := "#!/bin/sh\n[ $1 = byte ] && printf x >&5\nexec 5>&-\necho $CONTAINER_NAMESPACE/$CONTAINER_ID >$2\ncat <&3 >>$2\ncat <&4 >>$2\n"
	if err := os.WriteFile(logger, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ uri, head string }{
		"file":      {"file://%[2]s", ""},
		"binary":    {"binary://%[1]s?close=%[2]s", "k8s.io/binary\n"},
		"binary-v2": {"binary-v2://%[1]s?byte=%[2]s", "k8s.io/binary-v2\n"},
	} {
		log := filepath.Join(dir, name+".log")
		code, out, errs := n.ctr(name, "--log-uri", fmt.Sprintf(tc.uri, logger, log))
		if code != 7 {
			t.Errorf("%s: exit code %d, output %q, error output %q", name, code, out, errs)
		}
		got, err := os.ReadFile(log)
		kernel := len(got) - len(tc.head) - len("\nwarned\n")
		if err != nil || kernel < 3 || string(got[:len(tc.head)]) != tc.head || string(got[len(got)-len("\nwarned\n"):]) != "\nwarned\n" {
			t.Errorf("%s: the log is %q, %v", name, got, err)
		}
	}
}

// What Docker's OOMKilled is made of.
func TestOOMOfAContainerWithoutAPodIsTold(t *testing.T) {
	n := newNode(t)
	task := n.newContainer("greedy", oci.WithProcessArgs("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"), oci.WithMemoryLimit(64<<20))
	task.create(cio.NullIO)
	client, err := containerd.New(testpod.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	told, failed := client.Subscribe(task.ctx, `topic=="/tasks/oom"`)
	task.start()
	if exit := task.wait(); exit != 137 {
		t.Errorf("exit code %d", exit)
	}
	select {
	case e := <-told:
		if v, err := typeurl.UnmarshalAny(e.Event); err != nil || v.(*events.TaskOOM).ContainerID != "greedy" {
			t.Errorf("%v, %v", v, err)
		}
	case err := <-failed:
		t.Error(err)
	case <-time.After(patience):
		t.Error("containerd is not told")
	}
}

// CRI waits for an exec before it starts it.
func TestWaitForAnExecThatCannotStartEnds(t *testing.T) {
	n := newNode(t)
	task := n.newContainer("alone", oci.WithProcessArgs("sleep", "1000"))
	task.create(cio.NullIO)
	task.start()
	spec, err := task.container.Spec(task.ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := *spec.Process
	process.Args = []string{"/nonexistent"}
	exec, err := task.task.Exec(task.ctx, "missing", &process, cio.NullIO)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := exec.Wait(task.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Start(task.ctx); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("it starts: %v", err)
	}
	if _, err := exec.Delete(task.ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-exit:
	case <-time.After(patience):
		t.Error("the wait goes on")
	}
}
