package brokennode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/nodes"
)

const (
	enableEnv = "KRUNPOD_BROKENNODE"
	// number is of a node that nothing else uses.
	number nodes.Node = 8
	// recognised is how long a broken node may go unnoticed: the heartbeat's age at which it counts as frozen, ten seconds, and
	// two between looks (docs/testing.md), on a machine that has other things to do.
	recognised = 20 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(enableEnv) == "" {
		println("hack/check-node runs these tests: they start a QEMU")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// accident is a task that breaks its node the first time it runs.
type accident struct {
	how func(ctx context.Context, n nodes.Node) error

	mu   sync.Mutex
	runs int
	// took is from the accident to the end of the task's context.
	took time.Duration
}

func (a *accident) task(name string) nodes.Task {
	return nodes.Task{Name: name, Suite: "broken", Tests: []string{name}, Limit: 3 * time.Minute,
		Run: func(ctx context.Context, n nodes.Node) []nodes.Result {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.runs++
			r := nodes.Result{Suite: "broken", Name: name, Outcome: nodes.Passed}
			if a.runs > 1 || a.how == nil {
				if err := n.Exec(ctx, "true").Run(); err != nil {
					r.Outcome, r.Output = nodes.Failed, fmt.Sprintf("the node does not answer: %v", err)
				}
				return []nodes.Result{r}
			}
			began := time.Now()
			err := a.how(ctx, n)
			if err == nil {
				<-ctx.Done() // a test on such a node waits for it
			}
			a.took = time.Since(began)
			r.Outcome, r.Output = nodes.Failed, fmt.Sprintf("broken on purpose: %v", err)
			return []nodes.Result{r}
		}}
}

// freeze stops the emulator.
func freeze(context.Context, nodes.Node) error {
	text, err := os.ReadFile(filepath.Join(cache(), "node", strconv.Itoa(int(number)), "qemu.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGSTOP)
}

// panics makes the node's kernel panic (Documentation/admin-guide/sysrq.rst), which the command does not survive.
func panics(ctx context.Context, n nodes.Node) error {
	err := n.Exec(ctx, "sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger").Run()
	if err == nil {
		return errors.New("the kernel did not panic")
	}
	return nil
}

func cache() string {
	if c := os.Getenv("KRUNPOD_CACHE"); c != "" {
		return c
	}
	return filepath.Join(os.Getenv("HOME"), ".cache/krunpod")
}

func up(ctx context.Context, n nodes.Node) error {
	out, err := n.Command(ctx, "up").CombinedOutput()
	if err != nil {
		return fmt.Errorf("up: %w: %s", err, out)
	}
	return nil
}

func TestBrokenNodeIsMadeAnewAndItsTaskRunsOnceMore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	t.Chdir("../..")
	t.Setenv("KRUNPOD_NODE", "qemu")
	faults := filepath.Join(t.TempDir(), "faults")
	t.Setenv(nodes.FaultsEnv, faults)
	t.Cleanup(func() {
		if out, err := exec.Command("hack/node", "-n", strconv.Itoa(int(number)), "down").CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	frozen, panicked, failed := &accident{how: freeze}, &accident{how: panics}, &accident{how: func(context.Context, nodes.Node) error {
		return errors.New("a failed test")
	}}
	results, err := nodes.Run(t.Context(), []nodes.Task{frozen.task("frozen"), panicked.task("panicked"), failed.task("failed")},
		nodes.Options{Nodes: []nodes.Node{number}, Out: t.TempDir(), Ready: up})
	if err != nil {
		t.Errorf("two broken nodes are a fault of the run: %v", err)
	}
	for _, want := range []struct {
		name    string
		outcome nodes.Outcome
		runs    int
	}{{"frozen", nodes.Passed, 2}, {"panicked", nodes.Passed, 2}, {"failed", nodes.Failed, 1}} {
		if !slices.ContainsFunc(results, func(r nodes.Result) bool { return r.Name == want.name && r.Outcome == want.outcome }) {
			t.Errorf("%s has not %s: %+v", want.name, want.outcome, results)
		}
		if runs := map[string]int{"frozen": frozen.runs, "panicked": panicked.runs, "failed": failed.runs}[want.name]; runs != want.runs {
			t.Errorf("%s ran %d times, not %d", want.name, runs, want.runs)
		}
	}
	if len(results) != 3 {
		t.Errorf("results are %+v", results)
	}
	for name, took := range map[string]time.Duration{"frozen": frozen.took, "panicked": panicked.took} {
		t.Logf("%s: recognised after %v", name, took)
		if took > recognised {
			t.Errorf("%s: recognised after %v, more than %v", name, took, recognised)
		}
	}
	const want = "node 8 during frozen: the node is frozen\nnode 8 during panicked: the node is panicked\n"
	if got, err := os.ReadFile(faults); err != nil || string(got) != want {
		t.Errorf("counted are %q, %v; want %q", got, err, want)
	}
}
