package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

const (
	manyExecs      = 200
	manyContainers = 100
	// crowdPatience bounds what a crowd does together.
	crowdPatience = 7 * time.Minute
)

// each runs f for 0 to n-1, at most width at a time, and returns what failed.
func each(n, width int, f func(i int) error) []error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	next := make(chan int)
	for range width {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("number %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errs
}

// some makes a test's output readable when all of a crowd fails.
func some(errs []error) []error { return errs[:min(len(errs), 5)] }

func TestLongHundredsOfExecsAtOnce(t *testing.T) {
	n := newNodeFor(t, 10*time.Minute)
	k := n.container(n.pod(), testpod.ContainerConfig("main", "exec sleep 10000"))
	ctx, cancel := context.WithTimeout(n.ctx, crowdPatience)
	defer cancel()
	began := time.Now()
	errs := each(manyExecs, manyExecs, func(i int) error {
		out, stderr, exit, err := k.Exec(ctx, fmt.Sprintf("echo out %d; echo err %d >&2; exit %d", i, i, i%100))
		if err != nil {
			return err
		}
		if want := fmt.Sprint(i); out != "out "+want+"\n" || stderr != "err "+want+"\n" || int(exit) != i%100 {
			return fmt.Errorf("stdout %q, stderr %q, exit %d", out, stderr, exit)
		}
		return nil
	})
	if len(errs) > 0 {
		t.Errorf("%d of %d execs failed: %v", len(errs), manyExecs, some(errs))
	}
	t.Logf("%d execs took %v", manyExecs, time.Since(began).Round(time.Second))
	if left := n.exec(k, "ps | grep '[e]cho out' || true"); left != "" {
		t.Errorf("processes of execs are left: %s", left)
	}
}

func TestLongHundredContainersInOnePod(t *testing.T) {
	n := newNodeFor(t, 20*time.Minute)
	p := n.pod()
	list := make([]*testpod.Container, manyContainers)
	began := time.Now()
	errs := each(manyContainers, 4, func(i int) (err error) {
		config := testpod.ContainerConfig(fmt.Sprintf("c%d", i), fmt.Sprintf("echo %d > /dev/shm/%d; exec sleep 10000", i, i))
		list[i], err = p.Run(n.ctx, config)
		return err
	})
	if len(errs) > 0 {
		t.Fatalf("%d of %d containers failed to start: %v", len(errs), manyContainers, some(errs))
	}
	t.Logf("%d containers started in %v", manyContainers, time.Since(began).Round(time.Second))
	for _, i := range []int{0, manyContainers / 2, manyContainers - 1} {
		if got := n.exec(list[i], "ls /dev/shm | wc -l"); strings.TrimSpace(got) != strconv.Itoa(manyContainers) {
			t.Errorf("container %d sees the files of %s containers", i, strings.TrimSpace(got))
		}
	}
	errs = each(manyContainers, 4, func(i int) error {
		if err := list[i].Stop(n.ctx, 0); err != nil {
			return err
		}
		return list[i].Remove(n.ctx)
	})
	if len(errs) > 0 {
		t.Errorf("%d containers were not removed: %v", len(errs), some(errs))
	}
}

// forkTime is enough to fill a small guest, in an emulated node.
const forkTime = 40 * time.Second

// forkBomb starts processes until it cannot, and says what its cgroup counts (cgroup-v2, pids and memory). The shell reads
// that by itself: nothing more can be started, not even an exec.
const forkBomb = `(while :; do sleep 1000 & done) 2>/dev/null
cd /sys/fs/cgroup && read n <pids.max && echo limit $n && read n <pids.peak && echo peak $n
while read -r line; do echo pids.$line; done <pids.events; while read -r line; do echo memory.$line; done <memory.events
echo full; exec sleep 10000`

func TestForksEndAtThePidsLimit(t *testing.T) {
	const limit = 60
	n := newNode(t)
	p := n.pod()
	config := testpod.ContainerConfig("bomb", forkBomb)
	config.Linux.Resources = &runtime.LinuxContainerResources{Unified: map[string]string{"pids.max": strconv.Itoa(limit)}}
	bomb := n.container(p, config)
	said := n.waitLog(bomb, "full\n")
	beside := n.container(p, testpod.ContainerConfig("beside", "exec sleep 1000"))
	if out := n.exec(beside, "echo fine"); out != "fine\n" {
		t.Errorf("beside the forks an exec says %q", out)
	}
	// Its own limit ended the forks, and nothing else did: not the guest's, which is greater, nor its memory.
	counts := map[string]int{}
	for line := range strings.Lines(said) {
		if f := strings.Fields(line); len(f) == 2 {
			counts[f[0]], _ = strconv.Atoi(f[1]) // "max" is 0: no limit
		}
	}
	if counts["limit"] != limit || counts["peak"] != limit || counts["pids.max"] == 0 || counts["memory.oom_kill"] != 0 {
		t.Errorf("the container's counts are %v; want a limit of %d, a peak at it, refusals (pids.max), and nobody killed for memory", counts, limit)
	}
	n.stopWithin(bomb, 60*time.Second)
}

func TestForksWithoutALimitCanBeStopped(t *testing.T) {
	n := newNode(t)
	p := n.pod(func(c *runtime.PodSandboxConfig) {
		// The kernel sizes the number of threads by the memory: a small guest is soon full.
		c.Annotations = map[string]string{"krun.dev/memory-mib": "160"}
	})
	beside := n.container(p, testpod.ContainerConfig("beside", "exec sleep 1000"))
	// Ends in want of threads or of memory, whatever comes first, and begins again.
	bomb := n.container(p, testpod.ContainerConfig("bomb", "echo forking; while :; do (while :; do sleep 1000 & done) 2>/dev/null; done"))
	n.waitLog(bomb, "forking\n")
	time.Sleep(forkTime)
	n.stopWithin(bomb, 80*time.Second)
	if out := n.exec(beside, "echo fine"); out != "fine\n" {
		t.Errorf("after the forks an exec says %q", out)
	}
}

func (n *node) stopWithin(k *testpod.Container, limit time.Duration) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, limit)
	defer cancel()
	if err := k.Stop(ctx, 1); err != nil {
		n.Errorf("stop: %v", err)
	}
	if st := n.waitExit(k); st.ExitCode != 137 && st.ExitCode != 143 {
		n.Errorf("exit code %d", st.ExitCode)
	}
}
