package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"krun.dev/krunpod/test/deadline"
	"krun.dev/krunpod/test/nodes"
)

const suite = "e2e"

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
	due, err := deadline.FromEnv()
	if err != nil {
		return nil, err
	}
	order(tests, due)
	return tests, nil
}

// order puts the tests that take minutes, and say so in their names, first, so that no node waits for one in the end; before a deadline
// last, since each of them takes the time of ten others.
func order(tests []string, due deadline.Deadline) {
	rank := func(test string) int {
		if strings.HasPrefix(test, "TestLong") == due.IsSet() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(tests, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
}

// task is one test on one node.
func task(o options, name string) nodes.Task {
	args := []string{"env", "KRUNPOD_E2E=1"}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "KRUNPOD_E2E_") {
			args = append(args, e)
		}
	}
	args = append(args, "/opt/krunpod/e2e.test", "-test.v", "-test.run", "^"+name+"$", "-test.timeout", o.limit.String())
	return nodes.Task{
		Name: name, Suite: suite, Tests: []string{name}, Limit: o.limit + time.Minute,
		Run: func(ctx context.Context, n nodes.Node) []nodes.Result {
			began := time.Now()
			out, err := n.Exec(ctx, args...).CombinedOutput()
			return []nodes.Result{{Suite: suite, Name: name, Outcome: judge(err, string(out)),
				Seconds: time.Since(began).Seconds(), Output: string(out)}}
		},
	}
}

// judge reads go test's verbose output; a test that did not report its end has failed.
func judge(err error, out string) nodes.Outcome {
	switch {
	case err != nil:
		return nodes.Failed
	case strings.Contains(out, "\n--- SKIP: ") || strings.HasPrefix(out, "--- SKIP: "):
		return nodes.Skipped
	case strings.Contains(out, "--- PASS: "):
		return nodes.Passed
	}
	return nodes.Failed
}
