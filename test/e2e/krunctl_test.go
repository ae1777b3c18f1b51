package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// checkReport is what krunctl check --output json prints.
type checkReport struct {
	Ready  bool
	Checks []struct {
		Name, Detail, Remedy string
		OK                   bool
	}
}

// tool runs a program and returns its exit status and output.
func (n *node) tool(name string, args ...string) (code int, stdout, stderr string) {
	n.Helper()
	cmd := exec.CommandContext(n.ctx, name, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		n.Fatalf("%s: %v", name, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCheckOfANodeThatRunsPods(t *testing.T) {
	n := newNode(t)
	code, out, errs := n.tool("krunctl", "check")
	if code != 0 || !strings.HasSuffix(out, "\nThis machine can run krun pods.\n") || errs != "" {
		t.Errorf("exit code %d, error %q\n%s", code, errs, out)
	}
	code, out, _ = n.tool("krunctl", "check", "-o", "json")
	var r checkReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || !r.Ready {
		t.Fatalf("exit code %d, %v\n%s", code, err, out)
	}
	var names []string
	for _, c := range r.Checks {
		names = append(names, c.Name)
		if !c.OK || c.Detail == "" || c.Remedy != "" {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{"privileges", "binaries", "cgroup", "kvm", "network", "boot"}; !slices.Equal(names, want) {
		t.Errorf("checked were %q, not %q", names, want)
	}
	// The inventory at the end shows that the trial left nothing.
}

// inOwnMounts are the arguments of sh that run krunctl check after a script, in a mount namespace of its own.
func inOwnMounts(script string) []string {
	return []string{"unshare", "-m", "sh", "-c", script + " && exec krunctl check -o json"}
}

func TestCheckNamesWhatANodeLacks(t *testing.T) {
	n := newNode(t)
	configured := func(format string, args ...any) []string {
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, fmt.Appendf(nil, format+"\n", args...), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"krunctl", "check", "-o", "json", "--config", file}
	}
	for name, tc := range map[string]struct {
		command               []string
		check, detail, remedy string
	}{
		"no root":             {[]string{"setpriv", "--reuid", "65534", "krunctl", "check", "-o", "json"}, "privileges", "root", "as root"},
		"no runner":           {configured("runner = '/nowhere/runner'"), "binaries", "/nowhere/runner", "install krunpod"},
		"no agent":            {configured("agent = '/nowhere/agent'"), "binaries", "/nowhere/agent", "install krunpod"},
		"no krun-vnet":        {configured("vnet = '/nowhere/vnet'"), "binaries", "/nowhere/vnet", "install krunpod"},
		"no libkrunfw":        {configured("firmware = '/nowhere'"), "libkrunfw", "/nowhere/libkrunfw.so.5", "set firmware"},
		"a runner that is no": {configured("runner = '/bin/true'"), "libkrun", "/bin/true", "reinstall"},
		"an agent that is no": {configured("agent = '/bin/false'\nboot_timeout = '40s'"), "boot", "guest", "troubleshooting.md"},
		"no /dev/kvm":         {inOwnMounts("mount --bind /dev/null /dev/kvm"), "kvm", "/dev/kvm", "VT-x"},
		"no tun":              {inOwnMounts("mount -t tmpfs none /dev/net"), "network", "load the kernel module tun", "modprobe"},
		"a tun that is none":  {inOwnMounts("mount --bind /dev/null /dev/net/tun"), "network", "TUNSETIFF", "modprobe"},
	} {
		code, out, errs := n.tool(tc.command[0], tc.command[1:]...)
		n.mustLack(name, code, out, errs, tc.check, tc.detail, tc.remedy)
	}
}

// mustLack looks at krunctl check's answer: that of a node that is not ready, for one reason, which it names.
func (n *node) mustLack(name string, code int, out, errs, check, detail, remedy string) {
	n.Helper()
	var r checkReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 3 || r.Ready || len(r.Checks) == 0 {
		n.Errorf("%s: exit code %d, %v\n%s%s", name, code, err, out, errs)
		return
	}
	last := r.Checks[len(r.Checks)-1]
	if last.OK || last.Name != check || !strings.Contains(last.Detail, detail) || !strings.Contains(last.Remedy, remedy) {
		n.Errorf("%s: %+v", name, last)
	}
}

// TestCheckNamesAModuleThatIsMissing needs a kernel of the node's own, from which it takes one.
func TestCheckNamesAModuleThatIsMissing(t *testing.T) {
	n := newNode(t)
	const helper = "/proc/sys/kernel/modprobe"
	before, err := os.ReadFile(helper)
	if err != nil {
		t.Fatal(err)
	}
	for module, filter := range map[string]string{"sch_ingress": "sch_ingress", "act_mirred": "act_mirred"} {
		// A kernel that cannot load it again, for the time of the test.
		if err := unix.DeleteModule(module, unix.O_NONBLOCK); err != nil {
			t.Skipf("the kernel's module %s is no module, or is in use: %v", module, err)
		}
		if err := os.WriteFile(helper, []byte("/bin/false"), 0o644); err != nil {
			t.Fatal(err)
		}
		code, out, errs := n.tool("krunctl", "check", "-o", "json")
		if err := os.WriteFile(helper, before, 0o644); err != nil {
			t.Fatal(err)
		}
		if mcode, mout, merrs := n.tool("modprobe", module); mcode != 0 {
			t.Fatalf("load %s again: %s%s", module, mout, merrs)
		}
		n.mustLack("no "+module, code, out, errs, "network", filter, "modprobe")
	}
}

func TestKrunctlShowsARunningPod(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	// A boot says nothing on the console; the guest's kernel does when it kills (mm/oom_kill.c).
	greedy := testpod.ContainerConfig("greedy", "exec tail /dev/zero")
	greedy.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	n.waitExit(n.container(p, greedy))
	pid := runnerOf(t, p.ID)
	pod := "krunpod-test/" + p.Config.Metadata.Name

	said := func(args ...string) string {
		t.Helper()
		code, out, errs := n.tool("krunctl", args...)
		if code != 0 || errs != "" {
			t.Errorf("krunctl %s: exit code %d, error %q", strings.Join(args, " "), code, errs)
		}
		return out
	}
	var row string
	for line := range strings.Lines(said("ps")) {
		if strings.HasPrefix(line, p.ID[:13]) {
			row = strings.Join(strings.Fields(line), " ")
		}
	}
	if want := fmt.Sprintf("%s k8s.io %s running %d 1 ", p.ID[:13], pod, pid); !strings.HasPrefix(row, want) || !strings.HasSuffix(row, "MiB 1") {
		t.Errorf("ps has %q, want %q", row, want)
	}
	type shown struct {
		sandbox.State
		Alive bool
	}
	is := func(what string, s shown) {
		t.Helper()
		if s.ID != p.ID || !s.Alive || s.Runner == nil || s.Runner.PID != pid || s.Pod.Name != p.Config.Metadata.Name || s.Bridge == nil || len(s.Bridge.Interfaces) != 1 {
			t.Errorf("%s has %+v", what, s)
		}
	}
	var rows []shown
	if out := said("ps", "-o", "json"); json.Unmarshal([]byte(out), &rows) != nil || len(rows) != 1 {
		t.Fatalf("ps of one pod is\n%s", out)
	}
	is("ps", rows[0])
	// By its pod's name as well as by the beginning of its id.
	for _, name := range []string{pod, p.ID[:8]} {
		var s shown
		if out := said("inspect", name); json.Unmarshal([]byte(out), &s) != nil {
			t.Fatalf("inspect %s is\n%s", name, out)
		}
		is("inspect "+name, s)
	}
	if out := said("console", pod); !strings.Contains(out, "Memory cgroup out of memory: Killed process") {
		t.Errorf("the console is %q", out)
	}
	if out := said("timeline", pod); !strings.Contains(out, "guest configured") || !strings.Contains(out, k.ID[:12]) || !strings.Contains(out, "in the guest") {
		t.Errorf("timeline is\n%s", out)
	}
	var record sandbox.Record
	if out := said("timeline", pod, "-o", "json"); json.Unmarshal([]byte(out), &record) != nil || len(record.Stages) < 8 || len(record.Guest) < 4 {
		t.Fatalf("timeline is\n%s", out)
	}
	for i, s := range record.Stages[1:] {
		if s.At < record.Stages[i].At {
			t.Errorf("%s is before %s", s.Name, record.Stages[i].Name)
		}
	}
}
