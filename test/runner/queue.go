package main

import "sync"

// maxFaults is how many broken nodes a run may have before it fails as a whole.
const maxFaults = 2

type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "FAIL"
	skipped outcome = "skip"
)

// result is one test's end.
type result struct {
	name    string
	outcome outcome
	seconds float64
	output  string
}

// queue hands tests to nodes and collects their results.
type queue struct {
	mu      sync.Mutex
	tests   []string
	again   map[string]bool
	results []result
	faults  int
}

func newQueue(tests []string) *queue { return &queue{tests: tests, again: map[string]bool{}} }

func (q *queue) next() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tests) == 0 {
		return "", false
	}
	name := q.tests[0]
	q.tests = q.tests[1:]
	return name, true
}

func (q *queue) add(r result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.results = append(q.results, r)
}

// broke counts a broken node and reports whether the test it took down is to run again.
func (q *queue) broke(name string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.faults++
	if q.again[name] {
		return false
	}
	q.again[name] = true
	q.tests = append([]string{name}, q.tests...)
	return true
}

// done returns the results, and the tests that nobody ran.
func (q *queue) done() ([]result, []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.results, q.tests
}

func count(results []result) (pass, fail, skip int) {
	for _, r := range results {
		switch r.outcome {
		case passed:
			pass++
		case skipped:
			skip++
		default:
			fail++
		}
	}
	return pass, fail, skip
}
