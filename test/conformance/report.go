package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"krun.dev/krunpod/test/nodes"
)

// column is a runtime handler, and what its sandboxer makes of it in the report.
type column struct{ handler, name string }

// columns are the handlers that the node's containerd has, in the report's order.
var columns = []column{{"krun", "krun-shim"}, {"krun-podsandbox", "krun-podsandbox"}, {"runc", "runc"}}

// report is out/conformance.json. A run replaces the columns of the handlers that it ran, each as a whole, and leaves
// the others as they are: what a column says is of one run.
type report struct {
	Runs  map[string]run `json:"runs"` // by column
	Tests []test         `json:"tests"`
}

// run is what a column was made by.
type run struct {
	Versions map[string]string `json:"versions"`
	Nodes    int               `json:"nodes"`
	Seconds  float64           `json:"seconds"` // of the run, of all its handlers, by the clock
}

// test is one spec and its verdict for each column that ran it.
type test struct {
	Name     string             `json:"name"`
	Verdicts map[string]verdict `json:"verdicts"`
}

// verdict is how a spec ended. Reason says why it failed or was skipped, By who skipped it: the suite or krunpod.
type verdict struct {
	Verdict string  `json:"verdict"` // passed, failed or skipped
	Seconds float64 `json:"seconds"`
	Reason  string  `json:"reason,omitempty"`
	By      string  `json:"by,omitempty"`
}

const (
	bySuite = "suite"
	byUs    = "krunpod"
)

// add is the report with the columns of this run in place of those of an earlier one.
func (rep report) add(this run, results []nodes.Result, skips []skip) report {
	runs := maps.Clone(rep.Runs)
	if runs == nil {
		runs = map[string]run{}
	}
	verdicts := map[string]map[string]verdict{}
	put := func(name, column string, v verdict) {
		if verdicts[name] == nil {
			verdicts[name] = map[string]verdict{}
		}
		verdicts[name][column] = v
	}
	ran := map[string]bool{}
	for _, r := range results {
		if r.Outcome == nodes.NotRun {
			continue // a gap: such a report is not recorded (whole)
		}
		ran[columnOf(r.Suite)] = true
		runs[columnOf(r.Suite)] = this
		put(r.Name, columnOf(r.Suite), newVerdict(r, skips))
	}
	for _, t := range rep.Tests {
		for column, v := range t.Verdicts {
			if !ran[column] {
				put(t.Name, column, v)
			}
		}
	}
	all := report{Runs: runs}
	for _, name := range slices.Sorted(maps.Keys(verdicts)) {
		all.Tests = append(all.Tests, test{name, verdicts[name]})
	}
	return all
}

func columnOf(handler string) string {
	for _, c := range columns {
		if c.handler == handler {
			return c.name
		}
	}
	return handler
}

func newVerdict(r nodes.Result, skips []skip) verdict {
	v := verdict{Seconds: math.Round(r.Seconds*10) / 10}
	switch r.Outcome {
	case nodes.Passed:
		v.Verdict = "passed"
		return v
	case nodes.Skipped:
		v.Verdict, v.By = "skipped", bySuite
		if slices.ContainsFunc(skips, func(k skip) bool { return k.reason == r.Output }) {
			v.By = byUs
		}
	default:
		v.Verdict = "failed"
	}
	v.Reason = firstWords(r.Output)
	return v
}

var unstable = regexp.MustCompile(`\b[0-9a-f]{32,64}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)

// firstWords is the beginning of a message on one line, without the ids of one run.
func firstWords(message string) string {
	text := unstable.ReplaceAllString(strings.Join(strings.Fields(message), " "), "ID")
	if r := []rune(text); len(r) > 300 {
		text = string(r[:300]) + "…"
	}
	return text
}

// seconds are those of an earlier run, by handler and spec: what a spec is expected to take.
func (rep report) seconds() map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for _, c := range columns {
		all[c.handler] = map[string]float64{}
		for _, t := range rep.Tests {
			if v, ok := t.Verdicts[c.name]; ok && v.Verdict != "skipped" {
				all[c.handler][t.Name] = v.Seconds
			}
		}
	}
	return all
}

// readReport reads a report; one that is not there is empty.
func readReport(path string) (report, error) {
	var rep report
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return rep, nil
	}
	if err != nil {
		return rep, err
	}
	if err := json.Unmarshal(data, &rep); err != nil {
		return rep, fmt.Errorf("read %s: %w", path, err)
	}
	return rep, nil
}

func (rep report) write(path string) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(rep); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}
