package main

import (
	"errors"
	"slices"
	"testing"

	"krun.dev/krunpod/test/deadline"
	"krun.dev/krunpod/test/nodes"
)

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		err  error
		out  string
		want nodes.Outcome
	}{
		{nil, "=== RUN   TestA\n--- PASS: TestA (0.1s)\nPASS\n", nodes.Passed},
		{nil, "=== RUN   TestA\n--- SKIP: TestA (0.1s)\nPASS\n", nodes.Skipped},
		{errors.New("exit status 1"), "--- FAIL: TestA\n", nodes.Failed},
		{nil, "testing: warning: no tests to run\nPASS\n", nodes.Failed},
		{errors.New("exit status 255"), "--- PASS: TestA (0.1s)\n", nodes.Failed},
	} {
		if got := judge(tc.err, tc.out); got != tc.want {
			t.Errorf("judge(%v, %q) is %s, want %s", tc.err, tc.out, got, tc.want)
		}
	}
}

func TestWhatTakesMinutesIsFirstAndBeforeADeadlineLast(t *testing.T) {
	for env, want := range map[string][]string{
		"":            {"TestLongA", "TestLongD", "TestB", "TestC"},
		"99999999999": {"TestB", "TestC", "TestLongA", "TestLongD"},
	} {
		t.Setenv(deadline.Env, env)
		due, err := deadline.FromEnv()
		if err != nil {
			t.Fatal(err)
		}
		tests := []string{"TestLongA", "TestB", "TestC", "TestLongD"}
		if order(tests, due); !slices.Equal(tests, want) {
			t.Errorf("with the deadline %q: %q", env, tests)
		}
	}
}
