package main

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		err  error
		out  string
		want outcome
	}{
		{nil, "=== RUN   TestA\n--- PASS: TestA (0.1s)\nPASS\n", passed},
		{nil, "=== RUN   TestA\n--- SKIP: TestA (0.1s)\nPASS\n", skipped},
		{errors.New("exit status 1"), "--- FAIL: TestA\n", failed},
		{nil, "testing: warning: no tests to run\nPASS\n", failed},
		{errors.New("exit status 255"), "--- PASS: TestA (0.1s)\n", failed},
	} {
		if got := judge(tc.err, tc.out); got != tc.want {
			t.Errorf("judge(%v, %q) is %s, want %s", tc.err, tc.out, got, tc.want)
		}
	}
}

func TestOnlyTheEmulatorsSignatureCountsAsALostCPU(t *testing.T) {
	before := parseCounters("12-9 100 100 5 5 5 \nrubbish\n")
	for _, tc := range []struct {
		now  string
		want string
	}{
		{"12-9 200100 200100 5 5 5", "12-9"},
		{"12-9 200100 200100 6 5 5", ""}, // interrupts still arrive: a busy guest
		{"12-9 200100 101 5 5 5", ""},    // page faults alone
		{"12-9 100 100 5 5 5", ""},       // an idle guest
		{"13-9 200100 200100 5 5 5", ""}, // another VM
	} {
		if got := lost(before, parseCounters(tc.now), 5*time.Second); got != tc.want {
			t.Errorf("%q: lost is %q, want %q", tc.now, got, tc.want)
		}
	}
}

func TestABrokenNodesTestRunsOnceMore(t *testing.T) {
	q := newQueue([]string{"TestA", "TestB"})
	name, _ := q.next()
	if !q.broke(name) {
		t.Error("the first time it is not run again")
	}
	if again, _ := q.next(); again != name {
		t.Errorf("next is %s", again)
	}
	if q.broke(name) {
		t.Error("the second time it is run again")
	}
	if q.faults != 2 {
		t.Errorf("%d faults", q.faults)
	}
}

func TestNodesAreAListOfDifferentNumbers(t *testing.T) {
	nodes, err := parseNodes("2,1")
	if err != nil || !slices.Equal(nodes, []node{2, 1}) {
		t.Errorf("%v, %v", nodes, err)
	}
	for _, bad := range []string{"", "0", "1,1", "a", "1 2"} {
		if nodes, err := parseNodes(bad); err == nil {
			t.Errorf("%q gave %v", bad, nodes)
		}
	}
}
