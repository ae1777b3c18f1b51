// Command bench measures krun against runc on this node's containerd, in one run: the start of a pod, an exec, and the
// memory of an idle pod by process. It prints a table and writes JSON. make bench brings it to a node.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// report is bench.json: the samples of each handler. Times are milliseconds, memory is KiB.
type report struct {
	Handlers map[string]*samples `json:"handlers"`
	// Ratio is krun's median divided by runc's.
	Ratio map[string]float64 `json:"ratio"`
	// Network is by way and measurement.
	Network map[string]map[string][]float64 `json:"network,omitempty"`
}

type samples struct {
	Sandbox  []float64 `json:"runPodSandboxMs"`
	Create   []float64 `json:"createContainerMs"`
	Start    []float64 `json:"startContainerMs"`
	PodStart []float64 `json:"podStartMs"`
	Exec     []float64 `json:"execMs"`
	// PSS of an idle pod's processes by name (proc_pid_smaps(5), smaps_rollup).
	PSS map[string]int `json:"pssKiB"`
	// CrowdPSS is the same for each of a crowd of Crowd idle pods: what they share is divided among them.
	CrowdPSS map[string]int  `json:"crowdPssKiB,omitempty"`
	Crowd    int             `json:"crowd,omitempty"`
	Timeline []sandbox.Stage `json:"timeline,omitempty"`
}

func main() {
	if role := os.Getenv(roleEnv); role != "" {
		if err := client(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 5, "pods of each handler (0: none)")
	crowd := flag.Int("crowd", 8, "idle pods at a time of each handler, for the memory of each (0: none)")
	net := flag.String("network", ".", "what to measure of the network, as a regular expression (empty: nothing)")
	netRounds := flag.Int("network-rounds", 3, "pods of each way into the network (0: none)")
	file := flag.String("json", "bench.json", "file for the report")
	flag.Parse()
	if err := run(*rounds, *crowd, *net, *netRounds, *file); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds, crowd int, net string, netRounds int, file string) error {
	measured, err := measurements(net)
	if err != nil {
		return err
	}
	logs, err := os.MkdirTemp("", "krunpod-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(logs)
	client, err := testpod.Dial(testpod.Address(), logs)
	if err != nil {
		return err
	}
	defer client.Close()
	r := report{Handlers: map[string]*samples{"runc": {}, "krun": {}}, Ratio: map[string]float64{}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds+crowd+4*netRounds+2)*4*time.Minute)
	defer cancel()
	for i := range rounds {
		// Alternately, so that a machine that slows down slows both.
		for _, handler := range []string{"runc", "krun"} {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", i+1, rounds, handler)
			if err := round(ctx, client, handler, r.Handlers[handler]); err != nil {
				return fmt.Errorf("%s: %w", handler, err)
			}
		}
	}
	if crowd > 0 {
		for _, handler := range []string{"runc", "krun"} {
			fmt.Fprintf(os.Stderr, "%d pods at a time: %s\n", crowd, handler)
			if err := gather(ctx, client, handler, crowd, r.Handlers[handler]); err != nil {
				return fmt.Errorf("%s: %w", handler, err)
			}
		}
	}
	if len(measured) > 0 && netRounds > 0 {
		if r.Network, err = networks(ctx, client, measured, netRounds); err != nil {
			return err
		}
	}
	if rounds > 0 {
		r.print()
	}
	r.printNetwork(measured)
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// idle adds to p the container that every measured pod has.
func idle(ctx context.Context, p *testpod.Pod) (*testpod.Container, error) {
	return p.Create(ctx, testpod.ContainerConfig("idle", "exec sleep 100000"))
}

// execs is how many execs one round measures.
const execs = 3

func round(ctx context.Context, client *testpod.Client, handler string, s *samples) (err error) {
	before, err := pssByProcess()
	if err != nil {
		return err
	}
	begin := time.Now()
	p, err := client.Run(ctx, handler, client.PodConfig("bench"))
	if err != nil {
		return err
	}
	defer func() {
		if rerr := p.Remove(context.WithoutCancel(ctx)); err == nil {
			err = rerr
		}
	}()
	s.Sandbox = append(s.Sandbox, since(begin))
	t := time.Now()
	k, err := idle(ctx, p)
	if err != nil {
		return err
	}
	s.Create = append(s.Create, since(t))
	t = time.Now()
	if err := k.Start(ctx); err != nil {
		return err
	}
	s.Start = append(s.Start, since(t))
	s.PodStart = append(s.PodStart, since(begin))
	for range execs {
		t = time.Now()
		if _, _, exit, err := k.Exec(ctx, "true"); err != nil || exit != 0 {
			return fmt.Errorf("exec: exit %d, %w", exit, err)
		}
		s.Exec = append(s.Exec, since(t))
	}
	if err := settle(ctx); err != nil {
		return err
	}
	after, err := pssByProcess()
	if err != nil {
		return err
	}
	s.PSS = added(before, after)
	if rec, err := sandbox.LoadTimeline(sandbox.Dir("/run/krunpod", "k8s.io", p.ID)); err == nil {
		s.Timeline = rec.Stages
	}
	return nil
}

// settleTime lets a pod come to rest before its memory is read: free pages return to the host within it.
const settleTime = 10 * time.Second

func settle(ctx context.Context) error {
	select {
	case <-time.After(settleTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func since(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

func (r *report) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "median, ms\trunc\tkrun\tratio\t")
	runc, krun := r.Handlers["runc"], r.Handlers["krun"]
	for _, row := range []struct {
		name string
		a, b []float64
	}{
		{"RunPodSandbox", runc.Sandbox, krun.Sandbox}, {"CreateContainer", runc.Create, krun.Create},
		{"StartContainer", runc.Start, krun.Start}, {"pod start", runc.PodStart, krun.PodStart}, {"exec", runc.Exec, krun.Exec},
	} {
		a, b := median(row.a), median(row.b)
		r.Ratio[row.name] = b / max(a, 0.001)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t\n", row.name, a, b, r.Ratio[row.name])
	}
	w.Flush()
	r.printPSS("an idle pod", func(s *samples) map[string]int { return s.PSS })
	if runc.Crowd > 0 {
		r.printPSS(fmt.Sprintf("each of %d idle pods", runc.Crowd), func(s *samples) map[string]int { return s.CrowdPSS })
	}
	fmt.Println("\nstart of the last krun pod")
	sandbox.PrintTimeline(os.Stdout, krun.Timeline)
}

func (r *report) printPSS(of string, pss func(*samples) map[string]int) {
	fmt.Printf("\nPSS of %s, KiB\n", of)
	for _, h := range []string{"runc", "krun"} {
		total := 0
		for name, kib := range pss(r.Handlers[h]) {
			fmt.Printf("  %-6s %-24s %8d\n", h, name, kib)
			total += kib
		}
		fmt.Printf("  %-6s %-24s %8d\n", h, "total", total)
	}
}
