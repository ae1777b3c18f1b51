package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"krun.dev/krunpod/config"
	"krun.dev/krunpod/installer/krunctl"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// checks are the sandboxes of krunctl check.
func (n *node) checks() (found []krunctl.Life) {
	n.Helper()
	out, err := exec.Command("krunctl", "ps", "--output", "json").Output()
	if err != nil {
		n.Fatal(err)
	}
	var all []struct {
		Namespace string `json:"namespace"`
		krunctl.Life
	}
	if err := json.Unmarshal(out, &all); err != nil {
		n.Fatal(err)
	}
	for _, s := range all {
		if s.Namespace == "krunctl" {
			found = append(found, s.Life)
		}
	}
	return found
}

// startCheck returns once the microVM of a check runs.
func (n *node) startCheck() *exec.Cmd {
	n.Helper()
	cmd := exec.Command("krunctl", "check")
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	err := testpod.Poll(n.ctx, "the check's microVM", func() (bool, error) {
		c := n.checks()
		return len(c) == 1 && c[0].Status == krunctl.Running, nil
	})
	if err != nil {
		n.Fatal(err)
	}
	return cmd
}

func (n *node) check(args ...string) (report krunctl.Report) {
	n.Helper()
	out, err := exec.Command("krunctl", append([]string{"check", "--output", "json"}, args...)...).Output()
	if jerr := json.Unmarshal(out, &report); jerr != nil {
		n.Fatalf("krunctl check: %v: %s", errors.Join(err, jerr), out)
	}
	return report
}

func TestCheckThatIsAskedToEndTakesItsMicroVMAlong(t *testing.T) {
	n := newNode(t)
	cmd := n.startCheck()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // with 3, if it could not answer before
	if left := n.checks(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestMicroVMOfAKilledCheckIsRemovedByTheNextOne(t *testing.T) {
	n := newNode(t)
	cmd := n.startCheck()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left := n.checks(); len(left) != 1 {
		t.Fatalf("nothing is left to remove: %v", left)
	}
	if r := n.check(); !r.Ready {
		t.Errorf("%+v", r)
	}
	if left := n.checks(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCheckIsOfTheNodesConfigurationAndTellsSlowFromBroken(t *testing.T) {
	n := newNode(t)
	dropIn(t, "boot_timeout = \"50ms\"\nrunner = \"/nonexistent\"\n")
	r := n.check("--files", config.Prefix)
	if last := r.Checks[len(r.Checks)-1]; r.Ready || last.Name != "boot" || !last.TimedOut {
		t.Errorf("with a boot_timeout of 50 ms: %+v", last)
	}
	r = n.check()
	if last := r.Checks[len(r.Checks)-1]; r.Ready || last.Name != "binaries" || last.TimedOut {
		t.Errorf("with a runner that does not exist: %+v", last)
	}
}

// What a node keeps of pods goes with them, before Krunpod is uninstalled, and not while there are any.
func TestCleanLeavesTheNodeWithoutAStateDirectory(t *testing.T) {
	n := newNode(t)
	state := config.Default().State
	clean := func() {
		t.Helper()
		if out, err := exec.Command("krunctl", "clean").CombinedOutput(); err != nil {
			t.Fatalf("krunctl clean: %v: %s", err, out)
		}
	}
	p := n.pod()
	clean()
	if dirs, err := sandbox.List(state); err != nil || len(dirs) != 1 {
		t.Errorf("while a pod runs, %q is left: %v", dirs, err)
	}
	if _, err := os.Stat(state + "/.ledger.json"); err != nil {
		t.Errorf("while a pod runs: %v", err)
	}
	n.removeNow(p)
	err := testpod.Poll(n.ctx, "the sandbox to go", func() (bool, error) {
		dirs, err := sandbox.List(state)
		return len(dirs) == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
	clean()
	if entries, err := os.ReadDir(state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in %s there are %v, %v", state, entries, err)
	}
	if r := n.check(); !r.Ready {
		t.Errorf("afterwards no microVM starts: %+v", r)
	}
}
