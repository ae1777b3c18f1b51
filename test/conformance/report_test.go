package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"krun.dev/krunpod/test/nodes"
)

// sample has a spec that differs, one that was not run everywhere, and one that is the same.
func sample(t *testing.T) report {
	t.Helper()
	skips := []skip{{"krun", nil, "cannot be"}}
	return report{}.add(run{Versions: map[string]string{"containerd": "v2"}, Nodes: 2, Seconds: 99}, []nodes.Result{
		{Suite: "krun", Name: "a|same", Outcome: nodes.Passed, Seconds: 1.23},
		{Suite: "krun-podsandbox", Name: "a|same", Outcome: nodes.Passed, Seconds: 2},
		{Suite: "runc", Name: "a|same", Outcome: nodes.Passed, Seconds: 0.5},
		{Suite: "krun", Name: "b differs", Outcome: nodes.Skipped, Output: "cannot be"},
		{Suite: "krun-podsandbox", Name: "b differs", Outcome: nodes.Skipped, Output: "cannot be"},
		{Suite: "runc", Name: "b differs", Outcome: nodes.Failed, Seconds: 3,
			Output: "failed:\n pod 0123456789abcdef0123456789abcdef is gone"},
		{Suite: "krun", Name: "c in part", Outcome: nodes.Skipped, Seconds: 6, Output: "not implemented"},
		{Suite: "runc", Name: "c in part", Outcome: nodes.NotRun},
	}, skips)
}

func TestARunReplacesTheColumnsItRanAsAWhole(t *testing.T) {
	rep := sample(t).add(run{Nodes: 1}, []nodes.Result{{Suite: "krun", Name: "d new", Outcome: nodes.Passed, Seconds: 4}}, nil)
	if s, _ := rep.total(columns[0]); s.passed != 1 || s.skipped != 0 || rep.Runs["krun-shim"].Nodes != 1 {
		t.Errorf("krun's column has %+v of %+v, want the new run's alone", s, rep.Runs["krun-shim"])
	}
	if s, _ := rep.total(columns[2]); s.passed != 1 || s.failed != 1 || rep.Runs["runc"].Nodes != 2 {
		t.Errorf("runc's column has %+v of %+v, want those of the run before", s, rep.Runs["runc"])
	}
}

func TestAReportHasTheVerdictsByColumn(t *testing.T) {
	rep := sample(t)
	want := []test{
		{"a|same", map[string]verdict{"krun-shim": {"passed", 1.2, "", ""}, "krun-podsandbox": {"passed", 2, "", ""},
			"runc": {"passed", 0.5, "", ""}}},
		{"b differs", map[string]verdict{"krun-shim": {"skipped", 0, "cannot be", byUs},
			"krun-podsandbox": {"skipped", 0, "cannot be", byUs}, "runc": {"failed", 3, "failed: pod ID is gone", ""}}},
		{"c in part", map[string]verdict{"krun-shim": {"skipped", 6, "not implemented", bySuite}}},
	}
	if !reflect.DeepEqual(rep.Tests, want) {
		t.Errorf("the tests are %v\nwant %v", rep.Tests, want)
	}
	if err := rep.whole(); err == nil || !strings.Contains(err.Error(), "c in part") {
		t.Errorf("a report with gaps is whole: %v", err)
	}
}

func TestAReportReadsAsItWasWritten(t *testing.T) {
	rep := sample(t)
	path := filepath.Join(t.TempDir(), "report.json")
	if err := rep.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(path)
	if err != nil || !reflect.DeepEqual(got, rep) {
		t.Errorf("read %v, %v\nwrote %v", got, err, rep)
	}
	if s := got.seconds()["runc"]["b differs"]; s != 3 {
		t.Errorf("the spec is expected to take %f s, want 3", s)
	}
	if _, ok := got.seconds()["krun"]["b differs"]; ok {
		t.Error("a skipped spec says how long it takes")
	}
}

func TestWhatIsShown(t *testing.T) {
	var out bytes.Buffer
	sample(t).show(&out)
	for _, want := range []string{"b differs  ", "skipped (krun-shim, krun-podsandbox): b differs: cannot be",
		"failed (runc): b differs: failed: pod ID is gone", "1 passed, 1 failed, 0 skipped"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "a|same") {
		t.Errorf("a spec without a difference is shown:\n%s", out.String())
	}
}

func TestTheDocumentation(t *testing.T) {
	text := sample(t).markdown()
	for _, want := range []string{
		"| krun-shim | 1 | 0 | 2 | 7 | 99 | 2 |\n", "| containerd | v2 | v2 | v2 |\n",
		"| b differs | runc | failed: pod ID is gone |\n",
		"| b differs | krun-shim, krun-podsandbox | krunpod | cannot be |\n",
		"| c in part | krun-shim | suite | not implemented |\n",
		"| b differs | skipped | skipped | failed 3.0 s |\n",
		"| a\\|same | passed 1.2 s | passed 2.0 s | passed 0.5 s |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestTheCommittedDocumentationIsMadeOfTheCommittedReport(t *testing.T) {
	rep, err := readReport("report.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Tests) == 0 {
		t.Skip("no report is recorded: run hack/conformance and hack/conformance --write-docs")
	}
	if err := rep.whole(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != rep.markdown() {
		t.Error("docs/conformance.md is not what report.json says: run hack/conformance --write-docs")
	}
}
