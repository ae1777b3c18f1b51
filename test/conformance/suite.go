package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"krun.dev/krunpod/test/nodes"
)

// spec is one test of the suite.
type spec struct {
	name      string // without the prefix that all share
	pattern   string // a regular expression for -ginkgo.focus that matches only this spec
	container string // what groups it with its like: the texts around it
	benchmark bool   // the suite leaves it out itself
}

// suiteReport is what we read of a report of -ginkgo.json-report, which is a list with one element.
type suiteReport struct {
	SuiteDescription string
	SpecReports      []specReport
}

type specReport struct {
	ContainerHierarchyTexts    []string
	LeafNodeType               string
	LeafNodeText               string
	State                      string
	RunTime                    int64 // nanoseconds
	Failure                    failure
	CapturedGinkgoWriterOutput string
}

type failure struct {
	Message  string
	Location struct {
		FileName   string
		LineNumber int
	}
}

const commonPrefix = "[k8s.io] "

func (r specReport) text() string {
	return strings.Join(append(r.ContainerHierarchyTexts, r.LeafNodeText), " ")
}

func (r specReport) name() string { return strings.TrimPrefix(r.text(), commonPrefix) }

func parseReport(data []byte) (suiteReport, error) {
	var all []suiteReport
	if err := json.Unmarshal(data, &all); err != nil {
		return suiteReport{}, fmt.Errorf("the suite's report: %w", err)
	}
	if len(all) != 1 {
		return suiteReport{}, fmt.Errorf("the suite's report has %d suites, want 1", len(all))
	}
	return all[0], nil
}

// listSpecs asks the suite on a node, since which specs it has depends on the machine.
func listSpecs(ctx context.Context, n nodes.Node) ([]spec, error) {
	const script = `critest -ginkgo.dry-run -ginkgo.json-report /tmp/specs.json >/dev/null && cat /tmp/specs.json && rm /tmp/specs.json`
	out, err := n.Exec(ctx, "sh", "-c", script).Output()
	if err != nil {
		return nil, fmt.Errorf("list the specs of critest on node %d: %w", n, err)
	}
	report, err := parseReport(out)
	if err != nil {
		return nil, err
	}
	return report.specs()
}

func (r suiteReport) specs() ([]spec, error) {
	var all []spec
	known := map[string]bool{}
	for _, s := range r.SpecReports {
		if s.LeafNodeType != "It" {
			continue
		}
		if known[s.name()] {
			return nil, fmt.Errorf("two specs are named %q: they cannot be run apart", s.name())
		}
		known[s.name()] = true
		all = append(all, spec{
			name:      s.name(),
			pattern:   exactly(r.SuiteDescription + " " + s.text()),
			container: strings.TrimPrefix(strings.Join(s.ContainerHierarchyTexts, " "), commonPrefix),
			benchmark: s.State == "skipped",
		})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("critest has no specs")
	}
	return all, nil
}

// results are those of the named tests. Every report has all specs of the suite.
func (r suiteReport) results(handler string, tests []string) []nodes.Result {
	wanted := map[string]bool{}
	for _, name := range tests {
		wanted[name] = true
	}
	var all []nodes.Result
	for _, s := range r.SpecReports {
		if s.LeafNodeType == "It" && wanted[s.name()] {
			all = append(all, s.result(handler))
		}
	}
	return all
}

// result says how a spec ended. One that the suite skips by itself, once it runs, has failed: it does that where the
// runtime does not say that it has a feature, and nobody would notice that a runtime no longer says so.
func (s specReport) result(handler string) nodes.Result {
	r := nodes.Result{Suite: handler, Name: s.name(), Seconds: float64(s.RunTime) / 1e9, Output: s.Failure.Message}
	switch s.State {
	case "passed":
		r.Outcome = nodes.Passed
	case "skipped", "pending":
		r.Outcome = nodes.Failed
		r.Output = fmt.Sprintf("the suite skipped it, because of %q: what cannot be here belongs in hack/conformance.skip, with its reason",
			s.Failure.Message)
	default:
		r.Outcome = nodes.Failed
		r.Output = fmt.Sprintf("%s: %s\nat %s:%d\n%s", s.State, s.Failure.Message, s.Failure.Location.FileName,
			s.Failure.Location.LineNumber, s.CapturedGinkgoWriterOutput)
	}
	return r
}
