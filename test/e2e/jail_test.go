package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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
	checkLimits(t, pid)
	n.checkDevices(p.ID)
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

func checkLimits(t *testing.T, pid int) {
	t.Helper()
	for name, limit := range map[string]struct {
		resource int
		most     uint64
	}{
		"core":     {unix.RLIMIT_CORE, 0},
		"nofile":   {unix.RLIMIT_NOFILE, 1 << 20},
		"msgqueue": {unix.RLIMIT_MSGQUEUE, 0},
	} {
		var r unix.Rlimit
		if err := unix.Prlimit(pid, limit.resource, nil, &r); err != nil || r.Cur > limit.most || r.Max > limit.most {
			t.Errorf("the runner's limit %s is %+v, more than %d (%v)", name, r, limit.most, err)
		}
	}
}

// checkDevices: the runner is in the sandbox's cgroup, and who is there opens the VM's devices and no others, whatever node it
// has made.
func (n *node) checkDevices(pod string) {
	n.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", pod))
	if err != nil {
		n.Fatal(err)
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", st.Runner.PID))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(own)), st.Cgroup) {
		n.Errorf("the runner is in cgroup %q, not %s (%v)", own, st.Cgroup, err)
	}
	// Numbers of Documentation/admin-guide/devices.txt: mem, zero, random, tty, a RAM disk, the first disk of SCSI.
	others := map[string]struct {
		mode         uint32
		major, minor uint32
	}{
		"mem": {unix.S_IFCHR, 1, 1}, "zero": {unix.S_IFCHR, 1, 5}, "random": {unix.S_IFCHR, 1, 8}, "tty": {unix.S_IFCHR, 5, 0},
		"ram": {unix.S_IFBLK, 1, 0}, "sda": {unix.S_IFBLK, 8, 0},
	}
	dir := n.TempDir()
	script := "for d in /dev/null /dev/kvm /dev/net/tun; do if (: <$d); then echo $d; fi; done; cd " + dir + "\n"
	for name, d := range others {
		script += fmt.Sprintf("mknod made-%s %c %d %d && echo made\n", name, map[uint32]rune{unix.S_IFCHR: 'c', unix.S_IFBLK: 'b'}[d.mode], d.major, d.minor)
	}
	script += "for d in made-*; do if (: <$d) 2>error; then echo $d opens; elif ! grep -q 'not permitted' error; then echo $d: $(cat error); fi; done\n"
	cgroup, err := os.Open(cgroupRoot + st.Cgroup)
	if err != nil {
		n.Fatal(err)
	}
	defer cgroup.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	out, err := cmd.CombinedOutput()
	if want := "/dev/null\n/dev/kvm\n/dev/net/tun\n" + strings.Repeat("made\n", len(others)); err != nil || string(out) != want {
		n.Errorf("in the runner's cgroup: %v\n%swant\n%s", err, out, want)
	}
}

// TestGuestsSocketNeverBecomesTheHosts: with TSI, libkrun would connect in the guest's stead, in the runner's network namespace.
func TestGuestsSocketNeverBecomesTheHosts(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	var l net.Listener
	if err := n.inNetNS(p, func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:7777")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Addr, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			accepted <- conn.RemoteAddr()
			conn.Close()
		}
	}()
	n.exec(k, "! nc -w 5 127.0.0.1 7777 </dev/null")
	select {
	case from := <-accepted:
		t.Errorf("the guest reached a listener on the host's side of its network namespace, from %v", from)
	default:
	}
	// The guest's kernel would have been told (libkrun's command line).
	if cmdline := n.exec(k, "cat /proc/cmdline"); strings.Contains(cmdline, "tsi") {
		t.Errorf("the guest's kernel is told of TSI: %s", cmdline)
	}
}
