package mnt

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Copy describes a copy of a mount: open_tree(2), mount_setattr(2), Linux 5.12.
type Copy struct {
	// Source is a path on the mount: the copy shows it, and what is below it.
	Source string
	// Recursive takes the mounts below Source along.
	Recursive bool
	// Attributes (MOUNT_ATTR_) are set on all of the copy, TopAttributes on its topmost mount alone.
	Attributes, TopAttributes uint64
	// Propagation is MS_SLAVE, MS_SHARED or, when it is 0, MS_PRIVATE.
	Propagation uint64
}

// Open makes the copy and returns a descriptor of it, which the caller must close. It vanishes with that, unless it
// was attached.
func (c Copy) Open() (int, error) {
	open, set := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if c.Recursive {
		open |= unix.AT_RECURSIVE
		set |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, c.Source, open)
	if err != nil {
		return -1, fmt.Errorf("copy the mount of %s: %w", c.Source, err)
	}
	attr := unix.MountAttr{Attr_set: c.Attributes, Propagation: c.Propagation}
	if attr.Propagation == 0 {
		attr.Propagation = unix.MS_PRIVATE
	}
	err = unix.MountSetattr(tree, "", set, &attr)
	if err == nil && c.TopAttributes != 0 {
		err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: c.TopAttributes})
	}
	if err != nil {
		unix.Close(tree)
		return -1, fmt.Errorf("set attributes on the mount of %s (mount_setattr, Linux 5.12): %w", c.Source, err)
	}
	return tree, nil
}

// Attach mounts the copy on the path target.
func (c Copy) Attach(target string) error {
	tree, err := c.Open()
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount a copy of %s on %s: %w", c.Source, target, err)
	}
	return nil
}

// Pivot makes dir, which must be a mount of its own, the root and working directory of this mount namespace, and
// detaches everything else from it. dir's mount and its parent must not be shared: pivot_root(2).
func Pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("enter %s: %w", dir, err)
	}
	// The old root is stacked on the new one, so that no directory is needed for it: pivot_root(2), NOTES.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root to %s: %w", dir, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter /: %w", err)
	}
	return nil
}
