package main

import (
	"fmt"
	"log"
	"time"

	"krun.dev/krunpod/test/nodes"
)

// lost compares a run with the recorded report: what passed there must have been run here, and not be left out. A spec
// that failed is in the run's own results.
func (rep report) lost(selections []selection, results []nodes.Result) error {
	ran := map[string]bool{}
	for _, r := range results {
		if r.Outcome != nodes.Skipped {
			ran[r.Suite+": "+r.Name] = true
		}
	}
	var lost []string
	for _, s := range selections {
		for _, t := range rep.Tests {
			was, ok := t.Verdicts[columnOf(s.handler)]
			if ok && was.Verdict == "passed" && s.focus.MatchString(t.Name) && !ran[s.handler+": "+t.Name] {
				lost = append(lost, s.handler+": "+t.Name)
			}
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("not run, though the recorded report says that they passed: %q: the suite has them no more, or conformance.skip "+
			"leaves them out; if that is meant, run all of it and record it with hack/conformance --write-docs", lost)
	}
	return nil
}

// handlerLimit is what the whole suite may take for one handler, on two nodes of two cores: longer, and nobody runs it.
const handlerLimit = 25 * time.Minute

// tooLong names the handlers that ran the whole suite for longer than the limit. Handlers of one run share its time, each
// by the seconds of its specs.
func tooLong(selections []selection, results []nodes.Result, took time.Duration) []string {
	seconds := map[string]float64{}
	sum := 0.0
	for _, r := range results {
		seconds[r.Suite] += r.Seconds
		sum += r.Seconds
	}
	var long []string
	for _, s := range selections {
		share := time.Duration(float64(took) * seconds[s.handler] / max(sum, 1))
		if s.focus.String() == "" && share > handlerLimit {
			long = append(long, fmt.Sprintf("%s took %v", s.handler, share.Round(time.Second)))
		}
	}
	return long
}

// warnOfTime says so where it cannot be missed, below everything else. It is no failure: the machine may have been busy.
func warnOfTime(selections []selection, results []nodes.Result, took time.Duration) {
	for _, l := range tooLong(selections, results, took) {
		log.Printf("WARNING: the whole suite for %s, more than %v: see \"seconds\" in the report for the specs that became slower", l, handlerLimit)
	}
}
