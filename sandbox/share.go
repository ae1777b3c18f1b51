package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// share is the directory tree that the guest sees through virtio-fs. Each container has one directory in it; mounts
// are attached there while the VM runs and reach the runner's mount namespace by propagation.
//
// The guest must not be able to put a symbolic link where the host attaches next. So the tree exists twice: the
// skeleton, in which the host makes directories, and the share, a read-only bind mount of it, on which it mounts.
// Read-only is an attribute of that mount, set before the runner's jail can clone it.
type share struct {
	skeleton, root string
}

// Attach says how a path of the host appears in the guest.
type Attach struct {
	// Source is a file or directory of the host.
	Source string
	// ReadOnly holds against root in the guest: it is an attribute of the mount (mount_setattr(2)). Mounts below Source
	// keep what they are, unless ReadOnlyTree is set too.
	ReadOnly, ReadOnlyTree bool
	// Recursive takes the mounts below Source along.
	Recursive bool
	// Follow lets mounts made later below Source on the host appear in the guest (mount propagation
	// HostToContainer).
	Follow bool
}

// newShare makes the skeleton and the share in d. The share is a mount of its own that propagates.
func newShare(d dir) (share, error) {
	s := share{skeleton: d.skeleton(), root: d.share()}
	for _, p := range []string{s.skeleton, s.root} {
		if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return s, fmt.Errorf("make share: %w", err)
		}
	}
	tree, err := cloneMount(Attach{Source: s.skeleton, ReadOnly: true})
	if err != nil {
		return s, err
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, s.root, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return s, fmt.Errorf("mount share on %s: %w", s.root, err)
	}
	if err := unix.Mount("", s.root, "", unix.MS_SHARED, ""); err != nil {
		return s, fmt.Errorf("make %s a shared mount: %w", s.root, err)
	}
	return s, nil
}

// attach shows a.Source at the relative path name of the share. What is attached carries nosuid and nodev from the
// start: a device node that the guest makes cannot be opened on the host, nor a setuid program run.
func (s share) attach(name string, a Attach) error {
	tree, err := cloneMount(a)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := s.makeTarget(name, tree); err != nil {
		return err
	}
	target, err := openBeneath(s.root, name)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(tree, "", target, "", flags); err != nil {
		return fmt.Errorf("attach %s to the share as %s: %w", a.Source, name, err)
	}
	return nil
}

// makeTarget makes the mount point in the skeleton: a directory, or an empty file for anything else.
func (s share) makeTarget(name string, tree int) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return fmt.Errorf("stat what is to be attached as %s: %w", name, err)
	}
	path := filepath.Join(s.skeleton, name)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	return f.Close()
}

// detach removes container name and every mount below it. It is idempotent.
func (s share) detach(name string) error {
	if err := unmountBelow(filepath.Join(s.root, name)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.skeleton, name)); err != nil {
		return fmt.Errorf("remove container from the share: %w", err)
	}
	return nil
}

// remove takes the whole share away. It is idempotent and needs nothing but the paths.
func (s share) remove() error {
	if err := unmountBelow(s.root); err != nil {
		return err
	}
	for _, p := range []string{s.root, s.skeleton} {
		// A mount that could not be removed must never be emptied: os.Remove fails on it, RemoveAll would not.
		if p == s.root {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove share: %w", err)
			}
			continue
		}
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("remove share: %w", err)
		}
	}
	return nil
}

// cloneMount makes a detached copy of the mount at a.Source with its attributes set (open_tree(2), mount_setattr(2)).
func cloneMount(a Attach) (int, error) {
	open := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	set := uint(unix.AT_EMPTY_PATH)
	if a.Recursive {
		open |= unix.AT_RECURSIVE
		set |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, a.Source, open)
	if err != nil {
		return -1, fmt.Errorf("clone mount of %s: %w", a.Source, err)
	}
	all := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
	}
	if a.ReadOnlyTree {
		all.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if a.Follow {
		all.Propagation = unix.MS_SLAVE
	}
	err = unix.MountSetattr(tree, "", set, &all)
	if err == nil && a.ReadOnly {
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
	if err != nil {
		unix.Close(tree)
		return -1, fmt.Errorf("set attributes on the mount of %s: %w", a.Source, err)
	}
	return tree, nil
}

// openBeneath opens name below root without following a link or leaving it (openat2(2)).
func openBeneath(root, name string) (int, error) {
	top, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open share %s: %w", root, err)
	}
	defer unix.Close(top)
	fd, err := unix.Openat2(top, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("open %s in the share: %w", name, err)
	}
	return fd, nil
}
