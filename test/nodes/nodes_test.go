package nodes

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"krun.dev/krunpod/test/deadline"
)

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

func TestABrokenNodesTaskRunsOnceMore(t *testing.T) {
	q := newQueue([]Task{{Name: "a"}, {Name: "b"}})
	task, _ := q.next(t.Context())
	if !q.broke(task, "frozen") {
		t.Error("the first time it is not run again")
	}
	if again, _ := q.next(t.Context()); again.Name != task.Name {
		t.Errorf("next is %s", again.Name)
	}
	if q.broke(task, "frozen") {
		t.Error("the second time it is run again")
	}
	if len(q.faults) != 2 {
		t.Errorf("faults are %q", q.faults)
	}
}

func TestOnlyWhatIsCertainCountsAsABrokenNode(t *testing.T) {
	for status, want := range map[string]bool{
		"frozen": true, "panicked": true, "down": true, "ok": false, "booting": false, "unknown (signal: killed)": false, "": false,
	} {
		if got := broken(status); (got != "") != want {
			t.Errorf("%q is judged as %q", status, got)
		}
	}
}

func TestFaultsCountOverAllSuitesOfARun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "faults")
	if err := judgeFaults(file, []string{"node 1 during TestA: frozen", "node 2 during TestB: panicked"}); err != nil {
		t.Errorf("two in the first suite: %v", err)
	}
	if err := judgeFaults(file, nil); err != nil {
		t.Errorf("none in the second: %v", err)
	}
	err := judgeFaults(file, []string{"node 1 during group c: frozen"})
	if err == nil || !strings.Contains(err.Error(), "3 nodes") || !strings.Contains(err.Error(), "TestA") || !strings.Contains(err.Error(), "group c") {
		t.Errorf("a third, in the third suite: %v", err)
	}
	if err := judgeFaults("", []string{"a", "b"}); err != nil {
		t.Errorf("two in a suite alone: %v", err)
	}
	if err := judgeFaults("", []string{"a", "b", "c"}); err == nil {
		t.Error("three in a suite alone are no error")
	}
}

func TestEveryTestHasOneResultWhateverTheRunReported(t *testing.T) {
	q := newQueue([]Task{
		{Name: "reported in part", Suite: "s", Tests: []string{"a", "b"}},
		{Name: "nobody ran it", Suite: "s", Tests: []string{"c"}},
	})
	task, _ := q.next(t.Context())
	got := []Result{{Suite: "s", Name: "a", Outcome: Passed}, {Suite: "s", Name: "not asked for", Outcome: Passed}}
	if left := q.add(task.complete(got, Result{Outcome: Failed, Output: "no result"})); left != 1 {
		t.Errorf("%d tasks left, want 1", left)
	}
	outcomes := map[string]Outcome{}
	for _, r := range q.done() {
		outcomes[r.Name] = r.Outcome
	}
	if len(outcomes) != 3 || outcomes["a"] != Passed || outcomes["b"] != Failed || outcomes["c"] != Failed {
		t.Errorf("results are %v", outcomes)
	}
}

func TestAnInterruptedRunReportsWhatItDidNotRun(t *testing.T) {
	q := newQueue([]Task{{Name: "a", Tests: []string{"a1", "a2"}}, {Name: "b", Tests: []string{"b1"}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if task, ok := q.next(ctx); ok {
		t.Errorf("task %s is handed out", task.Name)
	}
	if _, bad, _ := Count(q.done()); bad != 3 {
		t.Errorf("%d tests have failed, want 3", bad)
	}
}

func TestWhatIsNotBegunInTimeIsNeitherRunNorFailed(t *testing.T) {
	t.Setenv(deadline.Env, "1")
	tasks := []Task{{Name: "a", Suite: "s", Tests: []string{"a1", "a2"}}}
	q := newQueue(tasks)
	var err error
	if q.due, err = deadline.FromEnv(); err != nil {
		t.Fatal(err)
	}
	if task, ok := q.next(t.Context()); ok {
		t.Errorf("task %s is handed out", task.Name)
	}
	results := q.done()
	if passed, failed, skipped := Count(results); passed != 0 || failed != 0 || skipped != 2 || results[1].Name != "a2" || results[1].Output != deadline.Reason {
		t.Errorf("results are %+v", results)
	}
}

func TestLastErrors(t *testing.T) {
	if got := lastErrors("time=1 level=info msg=a\ntime=2 level=error msg=b\n"); got != "time=2 level=error msg=b" {
		t.Errorf("got %q", got)
	}
	long := strings.Repeat("time=3 level=error msg="+strings.Repeat("x", 2000)+"\n", 100)
	if got := strings.Split(lastErrors(long), "\n"); len(got) != 12 || len(got[0]) != 500 {
		t.Errorf("%d lines, the first of %d bytes", len(got), len(got[0]))
	}
	if got := lastErrors(""); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestParse(t *testing.T) {
	if got, err := Parse("4, 5"); err != nil || len(got) != 2 || got[0] != 4 || got[1] != 5 {
		t.Errorf("4, 5 is %v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "10", "1,,2", "1,1", "x"} {
		if got, err := Parse(bad); err == nil {
			t.Errorf("%q is %v, want an error", bad, got)
		}
	}
}
