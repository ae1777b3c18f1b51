package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// allowedCaps is what a runner may keep: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP
// (capabilities(7), include/uapi/linux/capability.h).
const allowedCaps = 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<6 | 1<<7 | 1<<27 | 1<<31

func runnerOf(t *testing.T, pod string) int {
	t.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", pod))
	if err != nil || st.Runner == nil {
		t.Fatalf("state of the sandbox: %+v, %v", st, err)
	}
	return st.Runner.PID
}

func TestJailIsInForce(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	pid := runnerOf(t, p.ID)
	checkThreads(t, pid)
	checkNamespaces(t, pid)
	checkMounts(t, pid)
	checkDescriptors(t, pid)
	for _, dir := range []string{"root", "cwd"} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s/", pid, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			switch e.Name() {
			case "dev", "proc", "root", "share", "sock":
			default:
				t.Errorf("the jail's %s holds %s", dir, e.Name())
			}
		}
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/proc/sys", pid)); err == nil {
		t.Error("the jail's /proc has sys: subset=pid is not in force")
	}
}

func TestAJailWithoutALayerIsLoud(t *testing.T) {
	n := newNode(t)
	dropIn(t, "[jail]\noff = [\"seccomp\"]\n")
	logged := n.containerdLog()
	p := n.pod()
	for line := range strings.Lines(logged()) {
		if strings.Contains(line, "INSECURE: jail layer seccomp") && strings.Contains(line, p.ID) && strings.Contains(line, "level=warning") {
			return
		}
	}
	t.Errorf("containerd's log has no warning:\n%s", logged())
}

// checkThreads: capabilities and filters are attributes of threads, and one thread without them is enough for an
// attacker.
func checkThreads(t *testing.T, pid int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 3 {
		t.Fatalf("threads of the runner: %d, %v", len(tasks), err)
	}
	for _, path := range tasks {
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapInh": "0000000000000000", "CapAmb": "0000000000000000"} {
			if got, err := testpod.StatusField(tid, field); err != nil || got != want {
				t.Errorf("thread %d: %s is %s, want %s (%v)", tid, field, got, want, err)
			}
		}
		for _, field := range []string{"CapEff", "CapPrm", "CapBnd"} {
			text, err := testpod.StatusField(tid, field)
			if err != nil {
				t.Fatal(err)
			}
			caps, err := strconv.ParseUint(text, 16, 64)
			if err != nil || caps&^allowedCaps != 0 {
				t.Errorf("thread %d: %s is %s, more than %x", tid, field, text, uint64(allowedCaps))
			}
		}
	}
}

func checkNamespaces(t *testing.T, pid int) {
	t.Helper()
	for _, ns := range []string{"mnt", "pid", "ipc", "uts", "net"} {
		own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		if err != nil {
			t.Fatal(err)
		}
		host, err := os.Readlink("/proc/1/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		if own == host {
			t.Errorf("the runner is in the host's %s namespace", ns)
		}
	}
}

func checkMounts(t *testing.T, pid int) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	shares := 0
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Fields(line)
		point, options := f[4], ","+f[5]+","
		switch {
		case point == "/share" && !strings.Contains(options, ",ro,"):
			t.Errorf("the share's own directory is writable for the guest: %s", line)
		case strings.HasPrefix(point, "/share"):
			if !strings.Contains(options, ",nodev,") || !strings.Contains(options, ",nosuid,") {
				t.Errorf("a mount of the share lacks nodev or nosuid: %s", line)
			}
			shares++
		case point == "/root/init.krun" && strings.Contains(options, ",ro,"):
		case point == "/", point == "/proc", point == "/sock", strings.HasPrefix(point, "/dev/"), point == "/dev":
		default:
			t.Errorf("a mount that has no place in the jail: %s", line)
		}
	}
	if shares < 2 {
		t.Errorf("%d mounts of the share in the jail: the container's root is not there", shares)
	}
}

func checkDescriptors(t *testing.T, pid int) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // closed meanwhile
		}
		switch {
		case strings.HasPrefix(target, "socket:"), strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "anon_inode:"),
			strings.HasPrefix(target, "/memfd:"), strings.HasPrefix(target, "/dev/"), strings.HasPrefix(target, "/share"),
			strings.HasPrefix(target, "/proc"), strings.HasPrefix(target, "/root"), target == "/":
		default:
			t.Errorf("the runner holds %s open as descriptor %s", target, filepath.Base(fd))
		}
	}
}
