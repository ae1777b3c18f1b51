package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/krun"
)

// runner is the VM's process as its parent sees it.
type runner struct {
	Process
	cmd    *exec.Cmd
	cgroup string // its directory
	stderr tail
	done   chan struct{}
	// stopping says that the guest was asked to end.
	stopping atomic.Bool
	// killed is the End, if the runner was killed.
	killed atomic.Value
	// Valid once done is closed.
	exitedAt time.Time
	exitErr  error
	end      End
}

// ownNamespaces are made with a process: it is PID 1 of its own PID namespace from its first instruction.
const ownNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// podOOMScore is the oom_score_adj (proc_pid_oom_score_adj(5)) of what runs in the pod's cgroup. A shim is spared by the OOM
// killer; the VM holds the pod's memory and must not inherit that.
const podOOMScore = 0

// command is one that runs binary in cgroup and in namespaces of its own, with nothing of the shim's environment.
func command(binary string, cgroup *os.File) *exec.Cmd {
	cmd := exec.Command(binary)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  ownNamespaces,
		Setsid:      true,
		UseCgroupFD: true,
		CgroupFD:    int(cgroup.Fd()),
	}
	return cmd
}

// birthplace is where a runner starts; the namespaces of its own are made from there.
type birthplace struct {
	// netNS is the path of a network namespace; when it is empty, the runner gets an empty one.
	netNS  string
	mounts *share
	cgroup *os.File
	// nic leads to the vnet of a guest at a gateway; otherwise it is nil.
	nic *os.File
}

func (b birthplace) start(cmd *exec.Cmd) error {
	return b.mounts.inside(func(string) error {
		if err := enterNetNS(b.netNS); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// outputPatience is how long the output of a runner that is dead may last: its end must not wait for who else has the pipe.
const outputPatience = 5 * time.Second

// startRunner starts binary at b and hands it cfg. The guest's console comes out of console.
func startRunner(binary string, cfg *krun.Config, b birthplace, console io.Writer) (*runner, error) {
	input, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("encode runner configuration: %w", err)
	}
	r := &runner{cmd: command(binary, b.cgroup), cgroup: b.cgroup.Name(), done: make(chan struct{})}
	if b.nic != nil {
		r.cmd.ExtraFiles = []*os.File{b.nic} // the first is krun.SocketFile
	}
	r.cmd.Stdin = bytes.NewReader(input)
	r.cmd.Stdout = console
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = outputPatience
	if err := b.start(r.cmd); err != nil {
		return nil, fmt.Errorf("start the runner %s: %w", binary, err)
	}
	r.PID = r.cmd.Process.Pid
	if r.Start, err = startTime(r.PID); err != nil {
		return nil, errors.Join(err, r.kill(EndKilled))
	}
	go r.wait()
	if err := setOOMScore(r.PID); err != nil {
		return nil, errors.Join(err, r.kill(EndKilled))
	}
	return r, nil
}

func (r *runner) wait() {
	if r.exitErr = r.cmd.Wait(); errors.Is(r.exitErr, exec.ErrWaitDelay) {
		r.exitErr = nil
	}
	r.exitedAt = time.Now()
	r.end = r.howItEnded()
	close(r.done)
}

func (r *runner) howItEnded() End {
	if oomKills(r.cgroup) > 0 {
		return EndOutOfMemory
	}
	if end, ok := r.killed.Load().(End); ok {
		return end
	}
	switch {
	case r.exitErr != nil:
		return EndRunner
	case r.stopping.Load():
		return EndStopped
	}
	return EndGuest
}

// kill ends the VM; end says why, unless it was killed before.
func (r *runner) kill(end End) error {
	r.killed.CompareAndSwap(nil, end)
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the runner: %w", err)
	}
	return nil
}

// stop waits for the runner to exit by itself until ctx ends, then kills it.
func (r *runner) stop(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	if err := r.kill(EndKilled); err != nil {
		return err
	}
	<-r.done
	return nil
}

func setOOMScore(pid int) error {
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	err := os.WriteFile(path, []byte(strconv.Itoa(podOOMScore)), 0)
	// It may already have exited with an error of its own, which says more than this one would.
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("set the OOM score of process %d: %w", pid, err)
	}
	return nil
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command in field 2 may hold anything; the last parenthesis ends it.
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("cannot parse /proc/%d/stat", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Alive reports whether the process still runs.
func (p Process) Alive() bool {
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}
