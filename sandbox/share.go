package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/sandbox/mnt"
)

// share is the directory tree that the guest sees through virtio-fs. Each container has one directory in it; mounts
// are attached there while the VM runs and reach the runner's mount namespace by propagation.
//
// The guest must not be able to put a symbolic link where the host attaches next. So the tree exists twice: the
// skeleton, in which the host makes directories, and the root, a read-only bind mount of it, on which it mounts.
// Read-only is an attribute of that mount, set before the runner's jail can clone it.
//
// The mounts are in a mount namespace of the share's own, which no process but the runner's descends from. The host
// does not see them: a volume's directory can be removed there while the pod still holds a copy of its mount
// (rmdir(2), EBUSY), and nothing is left to unmount when shim and runner are gone.
type share struct {
	skeleton, root string

	// ns is nil when it is gone, and with it all that was attached.
	ns *os.File
	// sealed is set once the namespace holds nothing but the sandbox's directory, which is its root then.
	sealed bool

	mu sync.Mutex
	// attached are the names that something was attached at, in that order.
	attached []string
	volumes  podVolumes
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
	// UserNS is the user namespace by whose mappings the guest sees the owners of files on the topmost mount, or nil.
	UserNS *os.File
}

// inert is what every mount of the share carries from the start: a device node that the guest makes cannot be opened
// on the host, nor a setuid program run.
const inert = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV

// copy is the mount that a asks for.
func (a Attach) copy() mnt.Copy {
	c := mnt.Copy{Source: a.Source, Recursive: a.Recursive, Attributes: inert, UserNS: a.UserNS}
	if a.ReadOnlyTree {
		c.Attributes |= unix.MOUNT_ATTR_RDONLY
	}
	if a.ReadOnly {
		c.TopAttributes |= unix.MOUNT_ATTR_RDONLY
	}
	if a.Follow {
		c.Propagation = unix.MS_SLAVE
	}
	return c
}

// newShare makes the skeleton, and the share in a mount namespace that is a copy of the host's until seal.
func newShare(d dir) (*share, error) {
	s := &share{skeleton: d.skeleton(), root: d.share()}
	for _, p := range []string{s.skeleton, s.root} {
		if err := os.Mkdir(p, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("make share: %w", err)
		}
	}
	err := onThread(func() (err error) {
		if s.ns, err = makeMountNS(); err != nil {
			return err
		}
		// A mount of its own, and private, for the directory that seal makes the root: pivot_root(2) wants both.
		if err := (mnt.Copy{Source: string(d), Attributes: inert}).Attach(string(d)); err != nil {
			return err
		}
		root := mnt.Copy{Source: s.skeleton, Attributes: inert | unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_SHARED}
		return root.Attach(s.root)
	})
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// inside runs f on a thread in the share's mount namespace, with the share's root as it is there.
func (s *share) inside(f func(root string) error) error {
	return onThread(func() error {
		if err := enterMountNS(s.ns); err != nil {
			return err
		}
		root := s.root
		if s.sealed {
			root = "/" + filepath.Base(root)
		}
		return f(root)
	})
}

// seal lets go of the host's mounts, once the runner has its own copies: what the host unmounts later must not stay in
// use by a sandbox.
func (s *share) seal() error {
	if err := s.inside(func(root string) error { return mnt.Pivot(filepath.Dir(root)) }); err != nil {
		return fmt.Errorf("seal the share: %w", err)
	}
	s.sealed = true
	return nil
}

// attach shows a.Source at the relative path name of the share. A volume that other containers have is there already.
func (s *share) attach(name string, a Attach) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if isVolume(name) && slices.Contains(s.attached, name) {
		return nil
	}
	// Cloned here, among the host's mounts; moved where the host does not see it.
	tree, err := a.copy().Open()
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := s.makeTarget(name, tree); err != nil {
		return err
	}
	err = s.inside(func(root string) error {
		target, err := openBeneath(root, name)
		if err != nil {
			return err
		}
		defer unix.Close(target)
		flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
		return unix.MoveMount(tree, "", target, "", flags)
	})
	if err != nil {
		return fmt.Errorf("attach %s to the share as %s: %w", a.Source, name, err)
	}
	s.attached = append(s.attached, name)
	return nil
}

// makeTarget makes the mount point in the skeleton: a directory, or an empty file for anything else.
func (s *share) makeTarget(name string, tree int) error {
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

// detach removes container id and everything attached below it, and the volumes that no other container has. It is
// idempotent, and has nothing to do once the VM is gone and its sandbox deleted: with the share's namespace went all that was in it.
func (s *share) detach(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ns == nil {
		return nil
	}
	if err := s.remove(id); err != nil {
		return err
	}
	for _, name := range s.volumes.release(id) {
		if err := s.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the directory or file name of the share, after what is attached there.
func (s *share) remove(name string) error {
	err := s.inside(func(root string) error {
		for i := len(s.attached) - 1; i >= 0; i-- {
			if at := s.attached[i]; at == name || strings.HasPrefix(at, name+"/") {
				if err := unmountAll(filepath.Join(root, at)); err != nil {
					return err
				}
				s.attached = slices.Delete(s.attached, i, i+1)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.skeleton, name)); err != nil {
		return fmt.Errorf("remove %s from the share: %w", name, err)
	}
	return nil
}

// unmountAll detaches what is mounted at path, with what is below it, until nothing is: mounts that came by
// propagation may lie on top of the one that was attached.
func unmountAll(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case err != nil:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// close lets go of the mount namespace: its mounts end with the last process in a copy of it.
func (s *share) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ns == nil {
		return nil
	}
	err := s.ns.Close()
	s.ns = nil
	return err
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
