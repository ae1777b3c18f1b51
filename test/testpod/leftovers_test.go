package testpod

import (
	"fmt"
	"os/exec"
	"testing"
)

// A runner names its threads after its VM, so its own name is no sign of it.
func TestInventoryKnowsAProcessByItsCommandLine(t *testing.T) {
	cmd := exec.Command("cat")
	cmd.Args[0] = "/opt/krunpod/bin/krun-runner"
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inv := Inventory{}
	if err := processes(inv); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("process %d krun-runner", cmd.Process.Pid); inv[want] != 1 {
		t.Errorf("%q is not in %v", want, inv)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
