package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"krun.dev/krunpod/test/nodes"
)

// load reads a report that critest wrote on a node, less the fields that we do not read.
func load(t *testing.T, name string) suiteReport {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseReport(data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func specsOf(t *testing.T, name string) []spec {
	t.Helper()
	specs, err := load(t, name).specs()
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func TestEachPatternFocusesItsOwnSpecOnly(t *testing.T) {
	specs := specsOf(t, "specs.json")
	for _, s := range specs {
		re := regexp.MustCompile(s.pattern)
		for _, other := range specs {
			// What ginkgo compares with is the suite's description and the whole text.
			if matches := re.MatchString("CRI validation " + commonPrefix + other.name); matches != (other.name == s.name) {
				t.Errorf("the pattern of %q matches %q: %v", s.name, other.name, matches)
			}
		}
	}
}

func TestBenchmarksAreTheSuitesOwnSkips(t *testing.T) {
	for _, s := range specsOf(t, "specs.json") {
		if s.benchmark != strings.Contains(s.name, "benchmark") {
			t.Errorf("%s: benchmark is %v", s.name, s.benchmark)
		}
	}
}

func TestTwoSpecsOfOneNameAreRefused(t *testing.T) {
	r := load(t, "specs.json")
	r.SpecReports = append(r.SpecReports, r.SpecReports[len(r.SpecReports)-1])
	if _, err := r.specs(); err == nil {
		t.Error("no error")
	}
}

func TestAReportThatBrokeOffIsAnError(t *testing.T) {
	for _, bad := range []string{"", "[", "[]", "{}", "null"} {
		if _, err := parseReport([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestResultsOfARun(t *testing.T) {
	want := map[string]nodes.Outcome{
		"Runtime info runtime should support returning runtime info runtime should return version info [Conformance]":              nodes.Passed,
		"Security Context UserNamespaces runtime should fail with NamespaceMode_TARGET":                                            nodes.Failed,
		"PodSandbox runtime should support basic operations on PodSandbox runtime should support running PodSandbox [Conformance]": nodes.Failed,
	}
	var names []string
	for name := range want {
		names = append(names, name)
	}
	got := load(t, "run.json").results("krun", names)
	if len(got) != len(want) {
		t.Fatalf("%d results, want %d", len(got), len(want))
	}
	for _, r := range got {
		if r.Outcome != want[r.Name] || r.Suite != "krun" || r.Seconds <= 0 {
			t.Errorf("%s of %s is %s after %f s, want %s", r.Name, r.Suite, r.Outcome, r.Seconds, want[r.Name])
		}
		if strings.Contains(r.Name, "UserNamespaces") {
			if !strings.Contains(r.Output, "no runtime handler found which supports user namespaces") || !strings.Contains(r.Output, "hack/conformance.skip") {
				t.Errorf("a spec that the suite skipped does not say why, and what to do: %q", r.Output)
			}
			continue
		}
		if r.Outcome == nodes.Failed && (!strings.Contains(r.Output, "failed to create PodSandbox") ||
			!strings.Contains(r.Output, "util.go:219") || !strings.Contains(r.Output, "INFO: Unexpected error")) {
			t.Errorf("the failure does not say what, where and after which steps: %q", r.Output)
		}
	}
}
