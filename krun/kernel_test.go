package krun

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckKernel(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script, gzip := file("script", "#!/bin/sh\n"), file("gzip", "boot loader\x1f\x8b\x08 and more")
	for _, tc := range []struct{ path, format, bad string }{
		{self, "elf", ""},
		{script, "elf", "no vmlinux"},
		{file("cut", "\x7fELF"), "elf", "no vmlinux"},
		{gzip, "image-gz", ""},
		{gzip, "pe-gz", ""},
		{gzip, "image-zstd", "no packed kernel"},
		{script, "image-bz2", "no packed kernel"},
		{script, "raw", ""},
		{dir + "/none", "elf", "none"},
		{dir + "/none", "image-gz", "none"},
	} {
		err := checkKernel(tc.path, tc.format)
		if (err == nil) != (tc.bad == "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s as %s: %v, want %q", tc.path, tc.format, err, tc.bad)
		}
	}
}
