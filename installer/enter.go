package installer

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// namespaces are those of the host that a program of the host needs: all but the user namespace, which the pod shares, and
// the PID namespace, which it shares too (hostPID).
var namespaces = []struct {
	name string
	flag int
}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"cgroup", unix.CLONE_NEWCGROUP}, {"mnt", unix.CLONE_NEWNS}}

// maxOutput bounds what is kept of a program's standard error for a message.
const maxOutput = 2000

// endTime is how long a program of the host may take to end when it is asked to. The pod itself has twice as long.
const endTime = 30 * time.Second

// EnterHost runs a program in the namespaces of PID 1, which must be the host's (hostPID: true). A chroot would not do:
// systemctl ignores commands there, and a microVM's jail cannot pivot.
func EnterHost(ctx context.Context, argv ...string) ([]byte, error) {
	type answer struct {
		out []byte
		err error
	}
	done := make(chan answer, 1)
	go func() {
		// Never unlocked: the thread is of no use to anybody else, and ends with this goroutine.
		runtime.LockOSThread()
		if err := enter(); err != nil {
			done <- answer{nil, err}
			return
		}
		out, err := run(ctx, argv...)
		done <- answer{out, err}
	}()
	a := <-done
	return a.out, a.err
}

// RunHere runs a program of this machine.
func RunHere(ctx context.Context, argv ...string) ([]byte, error) { return run(ctx, argv...) }

func enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, ns := range namespaces {
		fd, err := unix.Open("/proc/1/ns/"+ns.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("the host's %s namespace: %w: the pod must be privileged and have hostPID", ns.name, err)
		}
		fds = append(fds, fd)
	}
	for i, ns := range namespaces {
		if err := unix.Setns(fds[i], ns.flag); err != nil {
			return fmt.Errorf("enter the host's %s namespace: %w: the pod must be privileged", ns.name, err)
		}
	}
	return nil
}

func run(ctx context.Context, argv ...string) ([]byte, error) {
	// A path lookup now, on this thread, sees the host's file tree.
	program := argv[0]
	if !strings.Contains(program, "/") {
		for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"} {
			if unix.Access(dir+"/"+program, unix.X_OK) == nil {
				program = dir + "/" + program
				break
			}
		}
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	// A check that is ended takes its microVM along.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = endTime
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin", "HOME=/root", "LC_ALL=C"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if len(said) > maxOutput {
			said = said[len(said)-maxOutput:]
		}
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said)
	}
	return stdout.Bytes(), nil
}
