package krun

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// systemLibkrun makes a library with libkrun's name and version for pkg-config to find, in a directory of its own.
func systemLibkrun(t *testing.T, version string) {
	t.Helper()
	for _, tool := range []string{"cc", "pkg-config"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	pc := fmt.Sprintf("Name: libkrun\nDescription: a test's\nVersion: %s\nLibs: -L%s -lkrun\n", version, dir)
	if err := os.WriteFile(filepath.Join(dir, "libkrun.pc"), []byte(pc), 0o600); err != nil {
		t.Fatal(err)
	}
	compile(t, dir, "int krun_create_ctx(void) { return 7; }", "-shared", "-fPIC", "-Wl,-soname,libkrun.so.1", "-o", "libkrun.so")
	t.Setenv("PKG_CONFIG_PATH", dir)
}

func compile(t *testing.T, dir, source string, args ...string) {
	t.Helper()
	// Libraries go behind what needs them.
	cmd := exec.Command("cc", append([]string{"-x", "c", "-", "-x", "none"}, args...)...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func hackLibkrun(t *testing.T, arg string) string {
	t.Helper()
	out, err := exec.Command("../hack/libkrun", arg).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestSystemLibkrunIsLinkedFromItsDirectory(t *testing.T) {
	systemLibkrun(t, "1.99.0")
	dir := t.TempDir()
	if said := hackLibkrun(t, dir); !strings.Contains(said, "libkrun 1.99.0 of this system") {
		t.Errorf("it says %q", said)
	}
	if version, err := os.ReadFile(filepath.Join(dir, "libkrun.version")); err != nil || string(version) != "1.99.0\n" {
		t.Errorf("the version for the build is %q (%v)", version, err)
	}
	compile(t, dir, "int krun_create_ctx(void); int main(void) { return krun_create_ctx(); }", "-L.", "-lkrunlib", "-o", "runner")
	f, err := elf.Open(filepath.Join(dir, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil || !slices.Contains(libs, "libkrun.so.1") {
		t.Errorf("linked with %v (%v)", libs, err)
	}
}

func TestWhichLibkrun(t *testing.T) {
	systemLibkrun(t, "1.9.0")
	if got := hackLibkrun(t, "--which"); !strings.Contains(got, "libkrun 1.9.0 of this system is older than") {
		t.Errorf("it would be %q", got)
	}
	t.Setenv("KRUNPOD_LIBKRUN", "crate")
	if got := hackLibkrun(t, "--which"); !strings.Contains(got, "KRUNPOD_LIBKRUN") {
		t.Errorf("it would be %q", got)
	}
}
