package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	binary string
	nodes  []node
	out    string
	run    string
	limit  time.Duration
}

var errFailed = errors.New("the end-to-end tests failed")

func main() {
	log.SetFlags(log.Ltime)
	o := options{nodes: []node{1, 2}}
	flag.StringVar(&o.binary, "binary", "out/e2e.test", "test binary, built with go test -c")
	flag.Func("nodes", "numbers of the nodes to run on (default 1,2)", func(list string) (err error) {
		o.nodes, err = parseNodes(list)
		return err
	})
	flag.StringVar(&o.out, "out", "out", "directory for the reports")
	flag.StringVar(&o.run, "run", "", "run only the tests that match this regular expression")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "bound of one test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runAll(ctx, o); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func runAll(ctx context.Context, o options) error {
	tests, err := listTests(ctx, o)
	if err != nil {
		return err
	}
	log.Printf("%d tests on %d nodes", len(tests), len(o.nodes))
	q := newQueue(tests)
	began := time.Now()
	workers := make(chan error, len(o.nodes))
	for _, n := range o.nodes {
		go func() { workers <- work(ctx, o, n, q) }()
	}
	var errs []error
	for range o.nodes {
		errs = append(errs, <-workers)
	}
	results, left := q.done()
	for _, name := range left {
		results = append(results, result{name: name, outcome: failed, output: "not run: no node was left to run it on"})
	}
	passed, bad, skipped := count(results)
	if err := writeJUnit(filepath.Join(o.out, "junit-e2e.xml"), "e2e", results, time.Since(began)); err != nil {
		errs = append(errs, err)
	}
	log.Printf("broken nodes: %d (emulator or node faults, see testing.md)", q.faults)
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, bad, skipped)
	if q.faults > maxFaults {
		errs = append(errs, fmt.Errorf("%d nodes broke in one run, more than %d", q.faults, maxFaults))
	}
	if bad > 0 || passed == 0 {
		errs = append(errs, errFailed)
	}
	return errors.Join(errs...)
}

// parseNodes reads a list like "1,2".
func parseNodes(list string) ([]node, error) {
	var nodes []node
	for _, text := range strings.Split(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || slices.Contains(nodes, node(n)) {
			return nil, fmt.Errorf("%q: want different numbers of nodes, such as 1,2", list)
		}
		nodes = append(nodes, node(n))
	}
	return nodes, nil
}

// listTests asks the binary itself, on this machine.
func listTests(ctx context.Context, o options) ([]string, error) {
	only, err := regexp.Compile(o.run)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	binary, err := filepath.Abs(o.binary)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-test.list", ".")
	cmd.Env = append(os.Environ(), "KRUNPOD_E2E=1")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of %s: %w", o.binary, err)
	}
	var tests []string
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, "Test") && only.MatchString(name) {
			tests = append(tests, name)
		}
	}
	if len(tests) == 0 {
		return nil, fmt.Errorf("no test matches %q", o.run)
	}
	// A test that takes minutes says so in its name and starts first, so that no node waits for it in the end.
	slices.SortStableFunc(tests, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return tests, nil
}

func rank(test string) int {
	if strings.HasPrefix(test, "TestLong") {
		return 0
	}
	return 1
}
