package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"krun.dev/krunpod/test/nodes"
)

// groupLimit bounds one run of the suite. The suite's own waits end within a few minutes.
const groupLimit = 20 * time.Minute

// selection is one handler of the command line: HANDLER or HANDLER=REGEXP.
type selection struct {
	handler string
	focus   *regexp.Regexp
}

// plan decides for each spec of each handler whether it is run: what to run, as tasks, and what is skipped.
func (o options) plan(selections []selection, specs []spec, skips []skip, expected map[string]map[string]float64) ([]nodes.Task, []nodes.Result) {
	var tasks []nodes.Task
	var skipped []nodes.Result
	var all []group
	handlerOf := map[string]string{}
	for _, sel := range selections {
		var run []spec
		for _, s := range specs {
			if !sel.focus.MatchString(s.name) {
				continue
			}
			reason := reasonToSkip(skips, sel.handler, s)
			if s.benchmark {
				reason = benchmarkReason
			}
			if reason != "" {
				skipped = append(skipped, nodes.Result{Suite: sel.handler, Name: s.name, Outcome: nodes.Skipped, Output: reason})
				continue
			}
			run = append(run, s)
		}
		for _, g := range groups(run, expected[sel.handler]) {
			g.name = sel.handler + "-" + g.name
			handlerOf[g.name] = sel.handler
			all = append(all, g)
		}
	}
	longestFirst(all)
	for _, g := range all {
		tasks = append(tasks, o.task(handlerOf[g.name], g))
	}
	return tasks, skipped
}

const benchmarkReason = "a benchmark, which the suite runs only when it is asked to (-benchmark)"

// script runs the suite with its arguments: its words to stderr, its report to stdout. What a failed spec left running
// is no concern of the next one.
const script = `rm -f /tmp/critest.json
critest "$@" >&2
cat /tmp/critest.json
left=$(crictl pods -q) && [ -n "$left" ] && echo "pods that the suite left behind: $left" >&2 && crictl rmp -f $left >&2
rm -f /tmp/critest.json`

// task is one group of specs against one handler.
func (o options) task(handler string, g group) nodes.Task {
	args := []string{"sh", "-c", script, "sh", "-runtime-handler", handler, "-ginkgo.json-report", "/tmp/critest.json",
		"-ginkgo.no-color", "-ginkgo.v", "-ginkgo.poll-progress-after", "0", "-ginkgo.timeout", (groupLimit - time.Minute).String()}
	for _, s := range g.specs {
		args = append(args, "-ginkgo.focus", s.pattern)
	}
	return nodes.Task{
		Name: "conformance-" + g.name, Suite: handler, Tests: g.tests(), Limit: groupLimit,
		Run: func(ctx context.Context, n nodes.Node) []nodes.Result {
			return o.runSuite(ctx, n, handler, g, args)
		},
	}
}

func (o options) runSuite(ctx context.Context, n nodes.Node, handler string, g group, args []string) []nodes.Result {
	path := filepath.Join(o.out, "conformance", g.name)
	words, err := os.Create(path + ".log")
	if err != nil {
		return broken(handler, g, err)
	}
	defer words.Close()
	var out bytes.Buffer
	cmd := n.Exec(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, words
	runErr := cmd.Run()
	report, err := parseReport(out.Bytes())
	err = errors.Join(err, os.WriteFile(path+".json", out.Bytes(), 0o644))
	if err != nil {
		return broken(handler, g, fmt.Errorf("%w (critest: %v): see %s", err, runErr, words.Name()))
	}
	return report.results(handler, g.tests())
}

// broken fails every spec of a group whose run gave no report.
func broken(handler string, g group, err error) []nodes.Result {
	var all []nodes.Result
	for _, name := range g.tests() {
		all = append(all, nodes.Result{Suite: handler, Name: name, Outcome: nodes.Failed, Output: err.Error()})
	}
	return all
}
