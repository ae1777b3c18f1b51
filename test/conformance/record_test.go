package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"krun.dev/krunpod/test/nodes"
)

func TestWhatPassedInTheRecordMustRun(t *testing.T) {
	recorded := sample(t)
	all := []selection{{"krun", regexp.MustCompile("")}}
	for what, c := range map[string]struct {
		results []nodes.Result
		lost    bool
	}{
		"passes again":         {[]nodes.Result{{Suite: "krun", Name: "a|same", Outcome: nodes.Passed}}, false},
		"fails":                {[]nodes.Result{{Suite: "krun", Name: "a|same", Outcome: nodes.Failed}}, false},
		"is left out":          {[]nodes.Result{{Suite: "krun", Name: "a|same", Outcome: nodes.Skipped}}, true},
		"is not begun in time": {[]nodes.Result{{Suite: "krun", Name: "a|same", Outcome: nodes.NotRun}}, false},
		"passes for another":   {[]nodes.Result{{Suite: "runc", Name: "a|same", Outcome: nodes.Passed}}, true},
		"is no more":           {nil, true},
		"another one is more":  {[]nodes.Result{{Suite: "krun", Name: "d new", Outcome: nodes.Passed}}, true},
	} {
		err := recorded.lost(all, c.results)
		if (err != nil) != c.lost || c.lost && (!strings.Contains(err.Error(), "krun: a|same") || strings.Contains(err.Error(), "b differs")) {
			t.Errorf("a spec that %s: %v", what, err)
		}
	}
	if err := recorded.lost([]selection{{"krun", regexp.MustCompile("^b")}}, nil); err != nil {
		t.Errorf("a spec that nobody asked for: %v", err)
	}
}

func TestAWholeSuiteThatTakesTooLongIsNamed(t *testing.T) {
	selections := []selection{{"krun", regexp.MustCompile("")}, {"krun-podsandbox", regexp.MustCompile("^PodSandbox")}}
	results := []nodes.Result{{Suite: "krun", Seconds: 300}, {Suite: "krun-podsandbox", Seconds: 100}}
	if got := tooLong(selections, results, 33*time.Minute); len(got) > 0 {
		t.Errorf("three quarters of 33 minutes are too long: %q", got)
	}
	if got := tooLong(selections, results, 36*time.Minute); !slices.Equal(got, []string{"krun took 27m0s"}) {
		t.Errorf("%q", got)
	}
	if got := tooLong(selections, nil, time.Hour); len(got) > 0 {
		t.Errorf("a run of nothing: %q", got)
	}
}
