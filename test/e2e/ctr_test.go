package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
