package mnt

import (
	"fmt"
	"os"

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
	// UserNS is a user namespace whose mappings the owners of files on the topmost mount are shown by, or nil.
	UserNS *os.File
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
		err = fmt.Errorf("set attributes on the mount of %s (mount_setattr, Linux 5.12): %w", c.Source, err)
	} else if c.UserNS != nil {
		err = c.mapOwners(tree)
	}
	if err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// mapOwners makes tree an idmapped mount. The kernel refuses file systems that know no such thing, and mounts that are
// one already: mount_setattr(2).
func (c Copy) mapOwners(tree int) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(c.UserNS.Fd())}
	err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
	if err == nil {
		return nil
	}
	kind := "unknown type"
	var st unix.Statfs_t
	if unix.Fstatfs(tree, &st) == nil {
		kind = fmt.Sprintf("type %#x of statfs(2)", st.Type)
	}
	return fmt.Errorf("map the owners of files on the mount of %s to the pod's user namespace: %w; its file system (%s) may know "+
		"no idmapped mounts on this kernel: leave the volume out, or run the pod without a user namespace (hostUsers: true)",
		c.Source, err, kind)
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
