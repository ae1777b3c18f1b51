package main

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func inputs(t *testing.T, content string, mode os.FileMode) (dist, binary string) {
	dir := t.TempDir()
	for path, m := range map[string]os.FileMode{"dist/bin/krunctl": 0o700 | mode, "dist/lib/libkrunfw.so.5": 0o600 | mode, "krun-installer": 0o700 | mode} {
		at := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), m); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at, time.Now(), time.Unix(int64(mode), 0)); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "dist"), filepath.Join(dir, "krun-installer")
}

func TestEqualFilesGiveAnEqualArchive(t *testing.T) {
	archive := func(content string, mode os.FileMode) ([]byte, string) {
		dist, binary := inputs(t, content, mode)
		out := filepath.Join(t.TempDir(), "image.tar")
		digest, err := build("localhost/krunpod/installer:1", dist, binary, out)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data, digest.String()
	}
	// Times, places and the umask differ.
	a, da := archive("x", 0o055)
	b, db := archive("x", 0)
	if !bytes.Equal(a, b) || da != db {
		t.Errorf("two builds of equal files differ: %s, %s", da, db)
	}
	if _, dc := archive("y", 0); dc == da {
		t.Error("other files give the same digest")
	}
}

func TestImageHoldsTheInstallerAndThePayload(t *testing.T) {
	dist, binary := inputs(t, "x", 0)
	out := filepath.Join(t.TempDir(), "image.tar")
	if _, err := build("localhost/krunpod/installer:1", dist, binary, out); err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	r := tar.NewReader(mutate.Extract(img))
	for h, err := r.Next(); err != io.EOF; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			modes[h.Name] = h.Mode
		}
	}
	want := map[string]int64{"krun-installer": 0o755, "krunpod/bin/krunctl": 0o755, "krunpod/lib/libkrunfw.so.5": 0o644}
	if !maps.Equal(modes, want) {
		t.Errorf("files %v, want %v", slices.Sorted(maps.Keys(modes)), want)
	}
	cf, err := img.ConfigFile()
	if err != nil || !slices.Equal(cf.Config.Entrypoint, []string{"/krun-installer"}) {
		t.Errorf("%v, %v", cf.Config.Entrypoint, err)
	}
}
