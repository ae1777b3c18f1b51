package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const envRun = "KRUNPOD_KRUNCTL_TEST"

// TestMain becomes the program itself when it is called by krunctl.
func TestMain(m *testing.M) {
	if os.Getenv(envRun) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// runKrunctl runs the program with a configuration and returns its exit status, output and errors.
func runKrunctl(t *testing.T, config string, args ...string) (int, string, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"--config", file}, args...)...)
	cmd.Env = []string{envRun + "=1"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestCommandThatFailsIsAnErrorAndNotAnAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		config string
		args   []string
		want   string
	}{
		"unknown key":    {"runer = 1\n", []string{"check"}, "runer"},
		"unknown format": {"", []string{"check", "-o", "yaml"}, "text and json"},
		"no sandbox":     {fmt.Sprintf("state = %q\n", t.TempDir()), []string{"inspect", "nobody"}, "no sandbox or pod nobody"},
	} {
		if code, out, errs := runKrunctl(t, tc.config, tc.args...); code != exitError || out != "" || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: exit status %d, output %q, error %q; want %d and an error with %q", name, code, out, errs, exitError, tc.want)
		}
	}
}

func TestOneUnreadableStateHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	for id, state := range map[string]string{"good": `{"id":"good","namespace":"k8s.io","vcpus":1}`, "spoilt": `{"id":`} {
		if err := os.MkdirAll(filepath.Join(dir, "k8s.io", id), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "k8s.io", id, "state.json"), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf("state = %q\n", dir)
	code, out, errs := runKrunctl(t, config, "ps")
	if code != exitError || !strings.Contains(out, "good") || !strings.Contains(errs, filepath.Join(dir, "k8s.io", "spoilt")) {
		t.Errorf("exit status %d, error %q\n%s", code, errs, out)
	}
	code, out, _ = runKrunctl(t, config, "ps", "--output", "json")
	var rows []struct{ ID string }
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != exitError || len(rows) != 1 || rows[0].ID != "good" {
		t.Errorf("exit status %d, %v\n%s", code, err, out)
	}
}
