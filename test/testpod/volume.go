package testpod

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// WriteVolume gives the volume at dir a new version, which has files of mode 0644 by their names, by the steps and in the
// order of the kubelet's atomic writer (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go, Write).
func WriteVolume(dir string, files map[string]string) error {
	old, err := os.Readlink(dir + "/..data")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	version, err := os.MkdirTemp(dir, "..2026_01_02_03_04_05.")
	if err != nil {
		return err
	}
	if err := os.Chmod(version, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(version, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink(filepath.Base(version), dir+"/..data_tmp"); err != nil {
		return err
	}
	if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil {
		return err
	}
	if err := linkNames(dir, files); err != nil || old == "" {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// linkNames makes the links that a container knows the files by, and removes those that are no more.
func linkNames(dir string, files map[string]string) error {
	wanted := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for first := range wanted {
		if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == first }) {
			continue
		}
		if err := os.Symlink("..data/"+first, filepath.Join(dir, first)); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if wanted[e.Name()] || strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
