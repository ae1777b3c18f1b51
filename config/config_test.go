package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDropInsOverrideInOrderOfTheirNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	write(t, path, "boot_timeout = \"5s\"\n[vm]\ndefault_memory_mib = 300\n")
	write(t, filepath.Join(filepath.Dir(path), "config.d/20-b.toml"), "[vm]\ndefault_memory_mib = 200\n")
	write(t, filepath.Join(filepath.Dir(path), "config.d/10-a.toml"), "[vm]\ndefault_memory_mib = 100\ndefault_vcpus = 2\n")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.VM.DefaultMemoryMiB != 200 || c.VM.DefaultVCPUs != 2 || time.Duration(c.BootTimeout) != 5*time.Second {
		t.Errorf("merged configuration is %+v", c)
	}
}

func TestBadConfigurationNamesWhatIsWrong(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"[vm]\nmemory = 3\n", `line 2: unknown key "vm.memory"`},
		{"boot_timeout = \"soon\"\n", "soon"},
		{"boot_timeout = \"-1s\"\n", "positive"},
		{"agent = \"krun-agent\"\n", "agent"},
		{"[vm]\ndefault_memory_mib = 1\n", "vm.default_memory_mib"},
		{"[jail]\noff = [\"walls\"]\n", "walls"},
		{"= broken\n", "config.toml"},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		write(t, path, tc.text)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error %v does not say %q", tc.text, err, tc.want)
		}
	}
}

func TestExampleIsTheDefault(t *testing.T) {
	c, err := Load("example.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := *c, Default(); got.VM != want.VM || got.Runner != want.Runner || got.BootTimeout != want.BootTimeout ||
		got.StopTimeout != want.StopTimeout || got.LogLevel != want.LogLevel || got.Kernel != nil || len(got.Jail.Off) != 0 {
		t.Errorf("example.toml is %+v, the default is %+v", got, want)
	}
}

func TestMissingFileIsAnErrorUnlessItIsTheDefault(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a configured file that does not exist was accepted")
	}
}

func TestProgramTakesTheFilesOfItsOwnInstallation(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bin/krun-runner"), "")
	if got := prefixOf(filepath.Join(dir, "bin/containerd-shim-krun-v2")); got != dir {
		t.Errorf("the installation is %s, not %s", got, dir)
	}
	for _, exe := range []string{filepath.Join(dir, "other/bin/krunctl"), filepath.Join(dir, "krunctl"), ""} {
		if got := prefixOf(exe); got != Prefix {
			t.Errorf("the installation of %q is %s", exe, got)
		}
	}
}
