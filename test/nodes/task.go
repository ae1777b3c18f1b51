package nodes

import (
	"context"
	"fmt"
	"time"
)

// Outcome is how a test ended.
type Outcome string

// The outcomes, as they are printed.
const (
	Passed  Outcome = "pass"
	Failed  Outcome = "FAIL"
	Skipped Outcome = "skip"
	// NotRun is a test that was not begun before the deadline; in sums and in JUnit it is a skipped one.
	NotRun Outcome = "late"
)

// Result is one test's end. Output explains a failure or a skip.
type Result struct {
	Suite   string
	Name    string
	Outcome Outcome
	Seconds float64
	Output  string
}

// Task is what runs on one node at a time: one test, or several that are run by one command.
type Task struct {
	// Name is that of its directory of logs.
	Name string
	// Suite and Tests name the results that the task must have.
	Suite string
	Tests []string
	// Limit bounds one run of it; the task's own bound should strike earlier.
	Limit time.Duration
	// Run runs it on the node and ends soon after ctx does.
	Run func(ctx context.Context, n Node) []Result
}

// complete gives every test of the task exactly one result; of a test that reported nothing it has the outcome and the output of otherwise.
func (t Task) complete(got []Result, otherwise Result) []Result {
	byName := map[string]Result{}
	for _, r := range got {
		byName[r.Name] = r
	}
	var all []Result
	for _, name := range t.Tests {
		r, ok := byName[name]
		if !ok {
			r = otherwise
			r.Suite, r.Name = t.Suite, name
		}
		all = append(all, r)
	}
	return all
}

// Count says how many passed, failed and were skipped.
func Count(results []Result) (pass, fail, skip int) {
	for _, r := range results {
		switch r.Outcome {
		case Passed:
			pass++
		case Skipped, NotRun:
			skip++
		default:
			fail++
		}
	}
	return pass, fail, skip
}

// Summary is the closing line that hack/test adds up.
func Summary(results []Result) string {
	pass, fail, skip := Count(results)
	return fmt.Sprintf("%d passed, %d failed, %d skipped", pass, fail, skip)
}
