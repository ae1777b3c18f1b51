package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// temporary is what the kubelet appends to a name for what is to take its place.
const temporary = "_tmp"

// Put makes the directory dir hold entries and nothing else but what it has of the names in keep. First comes what is new, in the order of entries, each link
// and file by a rename where it replaces another; then what is not among them goes, the last name first.
func Put(dir string, entries []*api.VolumeEntry, keep []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	wanted := map[string]bool{".": true}
	for _, e := range entries {
		if err := put(root, e); err != nil {
			return fmt.Errorf("put %q into volume %s: %w", e.Path, dir, err)
		}
		wanted[e.Path] = true
	}
	return removeOthers(root, wanted, keep)
}

func put(root *os.Root, e *api.VolumeEntry) error {
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := root.Mkdir(e.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return own(root, e.Path, e)
	case unix.S_IFREG:
		if content, err := root.ReadFile(e.Path); err == nil && bytes.Equal(content, e.Content) {
			return own(root, e.Path, e)
		}
		return replace(root, e, func(path string) error { return root.WriteFile(path, e.Content, 0o600) })
	case unix.S_IFLNK:
		to, err := root.Readlink(e.Path)
		if errors.Is(err, fs.ErrNotExist) {
			err = root.Symlink(string(e.Content), e.Path) // nobody can see half of that
			to = string(e.Content)
		}
		if err == nil && to == string(e.Content) {
			return own(root, e.Path, e)
		}
		return replace(root, e, func(path string) error { return root.Symlink(string(e.Content), path) })
	}
	return fmt.Errorf("mode %o is that of no directory, file or link", e.Mode)
}

// replace has make make the entry under another name, and then gives it its own.
func replace(root *os.Root, e *api.VolumeEntry, make func(path string) error) error {
	tmp := e.Path + temporary
	if err := root.RemoveAll(tmp); err != nil {
		return err
	}
	if err := make(tmp); err != nil {
		return err
	}
	if err := own(root, tmp, e); err != nil {
		return err
	}
	return root.Rename(tmp, e.Path)
}

// own gives what is at path the owner and the permissions of e; what has them is not touched, nor seen to be.
func own(root *os.Root, path string, e *api.VolumeEntry) error {
	info, err := root.Lstat(path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if st.Mode&unix.S_IFMT != e.Mode&unix.S_IFMT {
		return fmt.Errorf("there is something of another kind, with mode %o", st.Mode)
	}
	chowned := st.Uid != e.Uid || st.Gid != e.Gid
	if chowned {
		if err := root.Lchown(path, int(e.Uid), int(e.Gid)); err != nil {
			return err
		}
	}
	// Linux has no permissions of links; and chown takes set-id bits away.
	if e.Mode&unix.S_IFMT == unix.S_IFLNK || (st.Mode == e.Mode && !chowned) {
		return nil
	}
	return root.Chmod(path, permissions(e.Mode))
}

// permissions are the lower twelve bits of st_mode as os has them.
func permissions(mode uint32) fs.FileMode {
	perm := fs.FileMode(mode) & fs.ModePerm
	for bit, flag := range map[uint32]fs.FileMode{
		unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
	} {
		if mode&bit != 0 {
			perm |= flag
		}
	}
	return perm
}

func removeOthers(root *os.Root, wanted map[string]bool, keep []string) error {
	var others []string
	err := fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || wanted[path] {
			return err
		}
		if !slices.Contains(keep, path) {
			others = append(others, path)
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(others) {
		if err := root.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
