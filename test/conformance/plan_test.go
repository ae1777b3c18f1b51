package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestGroupsHaveEverySpecOnceAndAreCutByTime(t *testing.T) {
	specs := specsOf(t, "specs.json")
	slow := specs[slices.IndexFunc(specs, func(s spec) bool { return strings.Contains(s.name, "execSync with timeout") })]
	all := groups(specs, map[string]float64{slow.name: groupSeconds})
	seen := map[string]int{}
	names := map[string]bool{}
	for _, g := range all {
		if names[g.name] {
			t.Errorf("two groups are named %s", g.name)
		}
		names[g.name] = true
		if g.seconds > groupSeconds {
			t.Errorf("%s takes %.0f s, more than %d", g.name, g.seconds, groupSeconds)
		}
		for _, s := range g.specs {
			seen[s.name]++
			if s.container != g.specs[0].container {
				t.Errorf("%s has specs of %q and %q", g.name, g.specs[0].container, s.container)
			}
			if s.name == slow.name && len(g.specs) != 1 {
				t.Errorf("a spec that fills a group shares it with %d others", len(g.specs)-1)
			}
		}
	}
	for _, s := range specs {
		if seen[s.name] != 1 {
			t.Errorf("%s is in %d groups", s.name, seen[s.name])
		}
	}
}

func TestTheLongestGroupRunsFirst(t *testing.T) {
	all := []group{{name: "a", seconds: 1}, {name: "b", seconds: 3}, {name: "c", seconds: 2}}
	longestFirst(all)
	if all[0].name != "b" || all[1].name != "c" || all[2].name != "a" {
		t.Errorf("the order is %v", all)
	}
}

func TestPlanRunsOrSkipsEachSelectedSpecForEachHandler(t *testing.T) {
	specs := specsOf(t, "specs.json")
	skips, err := readSkips("../../hack/conformance.skip")
	if err != nil {
		t.Fatal(err)
	}
	selections, err := parseSelections([]string{"krun", "runc=HostPID"})
	if err != nil {
		t.Fatal(err)
	}
	tasks, skipped := options{}.plan(selections, specs, skips, nil)
	has := map[string]string{}
	for _, task := range tasks {
		for _, name := range task.Tests {
			has[task.Suite+": "+name] += "run"
		}
	}
	for _, r := range skipped {
		if r.Output == "" {
			t.Errorf("%s is skipped for %s without a reason", r.Name, r.Suite)
		}
		has[r.Suite+": "+r.Name] += "skip"
	}
	if len(has) != len(specs)+1 {
		t.Errorf("%d specs are planned, want %d for krun and 1 for runc", len(has), len(specs))
	}
	const hostPID = "Security Context NamespaceOption runtime should support HostPID"
	if has["krun: "+hostPID] != "skip" || has["runc: "+hostPID] != "run" {
		t.Errorf("HostPID: krun %q, runc %q", has["krun: "+hostPID], has["runc: "+hostPID])
	}
	for name, how := range has {
		if how != "run" && how != "skip" {
			t.Errorf("%s is planned as %q", name, how)
		}
	}
}

func TestSelectionsThatCannotBeAreRefused(t *testing.T) {
	for _, bad := range [][]string{nil, {"kata"}, {"krun", "krun=x"}, {"krun=("}} {
		if _, err := parseSelections(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestEveryLineOfTheSkipFileIsUsed(t *testing.T) {
	skips, err := readSkips("../../hack/conformance.skip")
	if err != nil {
		t.Fatal(err)
	}
	specs := specsOf(t, "specs.json")
	if err := unused(skips, specs); err != nil {
		t.Error(err)
	}
	if err := unused(append(skips, skip{"all", regexp.MustCompile("no such spec"), "x"}), specs); err == nil {
		t.Error("a line that matches nothing is no error")
	}
}

func TestASkipNeedsAHandlerAndAReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips")
	for _, bad := range []string{"krun: HostPID", "krun: HostPID  #", "runc: HostPID  # why", "HostPID  # why", "krun: (  # why"} {
		if err := os.WriteFile(path, []byte("# comment\n\n"+bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSkips(path); err == nil || !strings.Contains(err.Error(), ":3:") {
			t.Errorf("%q: the error is %v, want one that names line 3", bad, err)
		}
	}
}

func TestKrunsSkipsHoldForBothSandboxersAndNotForRunc(t *testing.T) {
	skips := []skip{{"krun", regexp.MustCompile("Host"), "why"}}
	for handler, want := range map[string]string{"krun": "why", "krun-podsandbox": "why", "runc": ""} {
		if got := reasonToSkip(skips, handler, spec{name: "HostPID"}); got != want {
			t.Errorf("%s: %q, want %q", handler, got, want)
		}
	}
}
