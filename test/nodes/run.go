package nodes

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"krun.dev/krunpod/test/deadline"
)

// Options say where to run.
type Options struct {
	Nodes   []Node
	Prepare []string // further arguments of hack/prepare-node
	Out     string   // the directory of the logs
	// Ready makes a node ready for the next task; nil is Prepare of the node.
	Ready func(context.Context, Node) error
}

func (o Options) ready(ctx context.Context, n Node) error {
	if o.Ready != nil {
		return o.Ready(ctx, n)
	}
	return n.Prepare(ctx, o.Prepare...)
}

// Run runs the tasks in their order, each on the next node that is free. There is a result for every test of every task,
// whatever the error, which says that a node could not be prepared or that too many broke. What was not begun before the deadline
// is named, and is no error.
func Run(ctx context.Context, tasks []Task, o Options) ([]Result, error) {
	workers := o.Nodes[:min(len(o.Nodes), len(tasks))]
	q := newQueue(tasks)
	var err error
	if q.due, err = deadline.FromEnv(); err != nil {
		return nil, err
	}
	log.Printf("%d tasks on %d nodes", len(tasks), len(workers))
	ends := make(chan error, len(workers))
	for _, n := range workers {
		go func() { ends <- work(ctx, o, n, q) }()
	}
	var errs []error
	for range workers {
		errs = append(errs, <-ends)
	}
	log.Printf("broken nodes: %d (emulator or node faults, see testing.md)", len(q.faults))
	errs = append(errs, judgeFaults(os.Getenv(FaultsEnv), q.faults))
	results := q.done()
	for _, r := range results {
		if r.Outcome == NotRun {
			log.Printf("%s  %s: %s", r.Outcome, r.Suite, r.Name)
		}
	}
	return results, errors.Join(errs...)
}

// work runs tasks on one node until the queue is empty.
func work(ctx context.Context, o Options, n Node, q *queue) error {
	if err := o.ready(ctx, n); err != nil {
		return err
	}
	for {
		t, ok := q.next(ctx)
		if !ok {
			return ctx.Err()
		}
		log.Printf("begin          node %d  %s (%d tests)", n, t.Name, len(t.Tests))
		logs := filepath.Join(o.Out, "logs", t.Name)
		results, fault := runTask(ctx, n, t)
		if fault == "" {
			left := q.add(results)
			if _, bad, _ := Count(results); bad > 0 {
				n.saveLogs(ctx, logs)
			}
			say(n, results, left)
			continue
		}
		log.Printf("NODE %d BROKE during %s: %s", n, t.Name, fault)
		n.saveLogs(ctx, logs)
		if !q.broke(t, fmt.Sprintf("node %d during %s: %s", n, t.Name, fault)) {
			for i := range results {
				results[i].Output += "\nnode broke twice: " + fault
			}
			q.add(results)
		}
		if err := errors.Join(n.Command(ctx, "down").Run(), o.ready(ctx, n)); err != nil {
			return err
		}
	}
}

// runTask runs one task and watches the node meanwhile; fault says how the node broke, if it did.
func runTask(ctx context.Context, n Node, t Task) (results []Result, fault string) {
	ctx, cancel := context.WithTimeout(ctx, t.Limit)
	defer cancel()
	ended, broke := make(chan struct{}), make(chan string, 1)
	go func() {
		f := watch(ctx, n, ended)
		if f != "" {
			cancel()
		}
		broke <- f
	}()
	began := time.Now()
	got := t.Run(ctx, n)
	close(ended)
	fault = <-broke
	results = t.complete(got, Result{Outcome: Failed, Output: fmt.Sprintf("the run ended after %.0f s without a result for it", time.Since(began).Seconds())})
	if _, bad, _ := Count(results); fault == "" && bad > 0 {
		fault = n.diagnose(ctx)
	}
	return results, fault
}

// say prints a task's results as they come.
func say(n Node, results []Result, left int) {
	for _, r := range results {
		log.Printf("%s  %6.1fs  node %d  %s: %s", r.Outcome, r.Seconds, n, r.Suite, r.Name)
		if r.Outcome == Failed {
			log.Printf("---- output of %s\n%s\n----", r.Name, indent(lastPart(r.Output)))
		}
	}
	log.Printf("%d tasks left", left)
}

func lastPart(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
