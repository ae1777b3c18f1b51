package reap

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func run(t *testing.T, r *Reaper) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestOwnersGetTheirExitStatus(t *testing.T) {
	var r Reaper
	run(t, &r)
	for i := range 60 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("/bin/sh", "-c", "exit "+strconv.Itoa(i))
			pid, err := r.Spawn(func() (int, error) {
				if err := cmd.Start(); err != nil {
					return 0, err
				}
				return cmd.Process.Pid, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			r.Release(pid)
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != i {
				t.Errorf("child %d: %v", i, cmd.ProcessState)
			}
		})
	}
}

func TestOrphansAreCollected(t *testing.T) {
	var r Reaper
	run(t, &r)
	// The shell ends before its background child, which then is ours.
	cmd := exec.Command("/bin/sh", "-c", "(sleep 0.2) & echo $!")
	out, err := os.CreateTemp(t.TempDir(), "out") // a file: a pipe would wait for the background child
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = out
	pid, err := r.Spawn(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	r.Release(pid)
	line, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := strconv.Atoi(strings.TrimSpace(string(line)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); unix.Kill(orphan, 0) == nil; {
		if time.Now().After(end) {
			t.Fatalf("orphan %d is still there", orphan)
		}
		time.Sleep(5 * time.Millisecond) // polls: nothing tells of a stranger's collected child
	}
}

func TestNothingIsCollectedWhileAChildIsBeingStarted(t *testing.T) {
	var r Reaper
	run(t, &r)
	pid, err := r.Spawn(func() (int, error) {
		cmd := exec.Command("/bin/true")
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		// As libcontainer does with its intermediate processes: they end and are waited for inside start.
		for end := time.Now().Add(10 * time.Second); ; {
			if p, err := peek(); err != nil || p == cmd.Process.Pid {
				break
			}
			if time.Now().After(end) {
				t.Error("child never ended")
				break
			}
		}
		if err := r.collect(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error("its owner lost it:", err)
		}
		return 0, os.ErrProcessDone
	})
	if pid != 0 || err != os.ErrProcessDone {
		t.Error(pid, err)
	}
}
