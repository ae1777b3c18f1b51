package installer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The directory of the installation:
//
//	versions/DIGEST/{bin,lib,etc}  what an image brought; running pods keep theirs
//	current                        a link to one of them, switched at once
//	bin, lib                       links through current, for containerd and for people
//	install.json                   what was changed elsewhere, written before it is
//	containerd.backup              containerd's configuration as it was
//	made                           the directories above it that were made for it, one a line, the deepest first
const (
	versionsDir = "versions"
	currentLink = "current"
	recordFile  = "install.json"
	backupFile  = "containerd.backup"
	madeFile    = "made"
	shimFile    = "bin/containerd-shim-krun-v2"
)

// digest names the files below dir by their names, modes and contents.
func digest(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s: only files and directories are expected", path)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintf(h, "%q %o %d\n", rel, info.Mode().Perm(), info.Size())
		_, err = io.Copy(h, f)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

// lay copies the payload to versions/DIGEST, unless it is there whole, and returns the digest.
func (i *Installer) lay() (string, error) {
	id, err := digest(i.Payload)
	if err != nil {
		return "", fmt.Errorf("the files to install: %w", err)
	}
	at, err := i.Host.path(i.version(id))
	if err != nil {
		return "", err
	}
	if have, err := digest(at); err == nil && have == id {
		return id, nil
	}
	if made := i.missing(filepath.Dir(i.Prefix)); len(made) > 0 {
		if err := i.Host.write(i.inPrefix(madeFile), []byte(strings.Join(made, "\n"))); err != nil {
			return "", err
		}
	}
	if err := mkdirs(filepath.Dir(at)); err != nil {
		return "", err
	}
	tmp := at + ".new"
	for _, d := range []string{tmp, at} {
		if err := os.RemoveAll(d); err != nil {
			return "", err
		}
	}
	if err := copyTree(i.Payload, tmp); err != nil {
		return "", fmt.Errorf("lay the files under %s: %w", i.Prefix, err)
	}
	if err := os.Rename(tmp, at); err != nil {
		return "", err
	}
	return id, syncDir(filepath.Dir(at))
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return mkdirs(filepath.Join(to, rel))
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	// Not at the opening: the umask would count.
	if err := out.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	return out.Sync()
}

// activate makes a version the current one.
func (i *Installer) activate(id string) error {
	for _, l := range []struct{ target, path string }{
		{filepath.Join(currentLink, "bin"), "bin"}, {filepath.Join(currentLink, "lib"), "lib"},
		{filepath.Join(versionsDir, id), currentLink},
	} {
		if err := i.Host.link(l.target, filepath.Join(i.Prefix, l.path)); err != nil {
			return err
		}
	}
	return nil
}

// prune removes the versions that neither is current nor runs.
func (i *Installer) prune(current string) error {
	at, err := i.Host.path(filepath.Join(i.Prefix, versionsDir))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return err
	}
	running, err := i.running()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == current || running[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(at, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// running are the versions whose programs run: shims and runners. It needs the host's PID namespace.
func (i *Installer) running() (map[string]bool, error) {
	exes, err := filepath.Glob(filepath.Join(i.Proc, "[0-9]*", "exe"))
	if err != nil {
		return nil, err
	}
	// The kernel names a program without the links that lead to it.
	at, err := i.Host.path(i.inPrefix(versionsDir))
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(i.Host.Root, at)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, exe := range exes {
		target, err := os.Readlink(exe)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a thread of the kernel, or a process that has ended
		}
		if err != nil {
			return nil, fmt.Errorf("what runs cannot be found out: %w", err)
		}
		// A runner's root is its jail, and its program's name there another; the shim of its pod has the version.
		if rest, ok := strings.CutPrefix(target, "/"+rel+"/"); ok {
			id, _, _ := strings.Cut(rest, "/")
			found[id] = true
		}
	}
	return found, nil
}

// removeFiles removes the whole directory, and those that were made for it: what is not the installer's makes them stay.
func (i *Installer) removeFiles() error {
	made, err := i.Host.read(i.inPrefix(madeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range []string{"bin", "lib", currentLink, recordFile, backupFile, madeFile} {
		if err := i.Host.remove(i.inPrefix(name)); err != nil {
			return err
		}
	}
	if err := i.Host.sweep(i.Prefix); err != nil {
		return err
	}
	at, err := i.Host.path(i.inPrefix(versionsDir))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	i.removeDirs(append([]string{i.Prefix}, strings.FieldsFunc(string(made), func(r rune) bool { return r == '\n' })...))
	return nil
}
