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

// complete gives every test of the task exactly one result: a test that reported nothing has failed.
func (t Task) complete(got []Result, reason string) []Result {
	byName := map[string]Result{}
	for _, r := range got {
		byName[r.Name] = r
	}
	var all []Result
	for _, name := range t.Tests {
		r, ok := byName[name]
		if !ok {
			r = Result{Suite: t.Suite, Name: name, Outcome: Failed, Output: reason}
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
		case Skipped:
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
