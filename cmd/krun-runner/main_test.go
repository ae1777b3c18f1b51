package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"krun.dev/krunpod/krun"
)

const envRun = "KRUNPOD_RUNNER_TEST"

// TestMain becomes the program itself when it is called by execRunner.
func TestMain(m *testing.M) {
	if os.Getenv(envRun) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// execRunner runs the program and returns its exit status, output and errors.
func execRunner(t *testing.T, stdin string, args ...string) (int, string, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{envRun + "=1"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestBadConfigurationIsOneLineThatNamesTheField(t *testing.T) {
	for input, want := range map[string]string{
		`{`:                        "unexpected EOF",
		`{"id":"a","vcpus":0}`:     "vcpus: ",
		`{"id":"a","vcpu":1}`:      `unknown field "vcpu"`,
		`{"id":"a","vcpus":"one"}`: "vcpus",
	} {
		status, out, errs := execRunner(t, input)
		if status != exitConfig || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q; want status %d and one line with %q",
				input, status, out, errs, exitConfig, want)
		}
	}
}

func TestMissingAgentIsNotABadConfiguration(t *testing.T) {
	dir := t.TempDir()
	c := &krun.Config{
		ID: "a", VCPUs: 1, MemoryMiB: 64, Agent: filepath.Join(dir, "missing"), Share: dir, Sockets: dir,
		Jail: krun.Jail{Root: dir},
	}
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	status, _, errs := execRunner(t, string(config))
	if status != exitFailure || strings.Count(errs, "\n") != 1 {
		t.Errorf("status %d, error %q; want status %d and one line", status, errs, exitFailure)
	}
}

func TestArguments(t *testing.T) {
	if status, out, _ := execRunner(t, "", "--version"); status != 0 || !strings.Contains(out, krun.LibkrunVersion) {
		t.Errorf("--version: status %d, output %q", status, out)
	}
	if status, out, _ := execRunner(t, "", "--help"); status != 0 || out != usage {
		t.Errorf("--help: status %d, output %q", status, out)
	}
	if status, _, errs := execRunner(t, "", "--halp"); status != exitConfig || !strings.Contains(errs, "--help") {
		t.Errorf("an unknown argument: status %d, error %q", status, errs)
	}
}

func TestCheckPrintsJSONAlsoWhenItFails(t *testing.T) {
	_, out, _ := execRunner(t, "", "check", "/nowhere")
	var info krun.Info
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Problems) == 0 {
		t.Errorf("check with a firmware directory that does not exist: %v, %q", err, out)
	}
}
