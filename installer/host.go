package installer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Host is the machine that is installed on. Paths are as that machine names them.
type Host struct {
	// Root is where its file tree is seen: /host in the installer's pod, / on the machine itself.
	Root string
	// Run runs a program there and returns its standard output; its error holds what the program said.
	Run func(ctx context.Context, argv ...string) ([]byte, error)
}

// path is where a path of the host is seen. Links that are absolute there, such as /etc/containerd on another disk, stay
// inside Root.
func (h Host) path(p string) (string, error) { return securejoin.SecureJoin(h.Root, p) }

func (h Host) read(p string) ([]byte, error) {
	at, err := h.path(p)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(at)
}

// exists reports whether p is there, whatever it is.
func (h Host) exists(p string) bool {
	at, err := h.path(p)
	if err != nil {
		return false
	}
	_, err = os.Stat(at)
	return err == nil
}

// onItsWay is in the names of files and links that are about to take another's place.
const onItsWay = ".krunpod-"

// sweep removes those from a directory that a crash left there.
func (h Host) sweep(dir string) error {
	at, err := h.path(dir)
	if err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(at, ".*"+onItsWay+"*"))
	if err != nil {
		return err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// write replaces a file of the host so that a crash leaves the old content or the new one. A file that exists keeps its
// mode and owner.
func (h Host) write(p string, data []byte) error {
	at, err := h.path(p)
	if err != nil {
		return err
	}
	if err := mkdirs(filepath.Dir(at)); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(at), "."+filepath.Base(at)+onItsWay+"*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := like(tmp, at); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", p, err)
	}
	if err := os.Rename(tmp.Name(), at); err != nil {
		return err
	}
	return syncDir(filepath.Dir(at))
}

// like gives f the mode and owner of the file that it replaces.
func like(f *os.File, old string) error {
	info, err := os.Stat(old)
	if errors.Is(err, fs.ErrNotExist) {
		return f.Chmod(0o644)
	}
	if err != nil {
		return err
	}
	if err := f.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	uid, gid := owner(info)
	if err := f.Chown(uid, gid); err != nil && os.Geteuid() == 0 {
		return err
	}
	return nil
}

// remove removes a file, a link or an empty directory, if it is there.
func (h Host) remove(p string) error {
	dir, err := h.path(filepath.Dir(p))
	if err != nil {
		return err
	}
	at := filepath.Join(dir, filepath.Base(p))
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// link makes a symbolic link, replacing one that is there at once. It refuses to replace anything else.
func (h Host) link(target, p string) error {
	dir, err := h.path(filepath.Dir(p))
	if err != nil {
		return err
	}
	at := filepath.Join(dir, filepath.Base(p))
	switch old, err := os.Readlink(at); {
	case err == nil && old == target:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s exists and is no link of the installer's: remove the installation that was made by hand first", p)
	}
	tmp := filepath.Join(dir, "."+filepath.Base(p)+onItsWay+"new")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, at); err != nil {
		return err
	}
	return syncDir(dir)
}

// mkdirs makes a directory and those above it, readable by all and durable.
func mkdirs(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is no directory", dir)
		}
		return nil
	}
	if err := mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// isRealDir reports whether a path is a directory and no link to one.
func isRealDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}
