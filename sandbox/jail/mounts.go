package jail

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/sandbox/mnt"
)

const (
	// rootOptions bound the jail's root, which holds nothing but mount points, before it becomes read-only.
	rootOptions = "mode=0755,size=64k,nr_inodes=32"
	// procOptions hide everything but processes: uid 0 without a single capability could otherwise write
	// /proc/sys/kernel/core_pattern, which the kernel runs as the host's root.
	procOptions = "subset=pid"
	procFlags   = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY
)

// bind is something of the host that the jail holds.
type bind struct {
	source, target string
	dir            bool
	// recursive takes the mounts below source along, and those that the host makes there later.
	recursive bool
	// attributes are MOUNT_ATTR_ flags, set before the mount is attached: mount_setattr(2).
	attributes uint64
}

// binds lists what the VM needs. The share carries no device nodes and no setuid bits into the jail; mounts that come
// to it later by propagation bring attributes of their own (package sandbox). Nothing in the jail is ever executed.
func binds(c *krun.Config) []bind {
	const inert = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	list := []bind{
		{source: c.Share, target: shareDir, dir: true, recursive: true, attributes: inert | unix.MOUNT_ATTR_NODEV},
		// connect(2) to a socket works through a read-only mount.
		{source: c.Sockets, target: socketsDir, dir: true,
			attributes: inert | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY},
		// The guest's root directory: the agent and nothing else.
		{source: c.Agent, target: rootDir + "/" + krun.InitName,
			attributes: inert | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_RDONLY},
		{source: "/dev/kvm", target: "/dev/kvm", attributes: inert},
	}
	if c.HasTap() {
		list = append(list, bind{source: "/dev/net/tun", target: "/dev/net/tun", attributes: inert})
	}
	return list
}

// enterMounts makes the jail's file system the only one this process sees, and rewrites inside accordingly.
func enterMounts(c, inside *krun.Config) error {
	// What the host mounts later still arrives; what is mounted here never leaves.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("jail: make the mounts slaves: %w", err)
	}
	if !c.Jail.Has(krun.LayerMounts) {
		return mountProc("/proc")
	}
	root := c.Jail.Root
	if err := makeRoot(root); err != nil {
		return err
	}
	for _, b := range binds(c) {
		if err := b.attach(root); err != nil {
			return err
		}
	}
	if err := moveIn(root); err != nil {
		return err
	}
	inside.Share, inside.Sockets = shareDir, socketsDir
	inside.Root, inside.Agent = rootDir, rootDir+"/"+krun.InitName
	return nil
}

// makeRoot makes an empty directory of the host the jail's root, in which mount points can be made.
func makeRoot(root string) error {
	if err := unix.Mount("krunpod", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, rootOptions); err != nil {
		return fmt.Errorf("jail: mount a tmpfs on %s: %w", root, err)
	}
	return nil
}

// moveIn gives the jail its /proc, and makes it all that this process sees.
func moveIn(root string) error {
	proc := filepath.Join(root, "proc")
	if err := os.Mkdir(proc, 0o555); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	if err := mountProc(proc); err != nil {
		return err
	}
	return pivot(root)
}

func mountProc(target string) error {
	if err := unix.Mount("proc", target, "proc", procFlags, procOptions); err != nil {
		return fmt.Errorf("jail: mount proc with %s (Linux 5.8): %w", procOptions, err)
	}
	return nil
}

// attach binds b under root.
func (b bind) attach(root string) error {
	target := filepath.Join(root, b.target)
	if err := makeMountPoint(target, b.dir); err != nil {
		return err
	}
	c := mnt.Copy{Source: b.source, Recursive: b.recursive, Attributes: b.attributes}
	if b.recursive {
		c.Propagation = unix.MS_SLAVE
	}
	if err := c.Attach(target); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	return nil
}

func makeMountPoint(path string, dir bool) error {
	parent := path
	if !dir {
		parent = filepath.Dir(path)
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	if dir {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	return f.Close()
}

// pivot makes root the root of all threads, forgets the host's and seals the tmpfs.
func pivot(root string) error {
	if err := mnt.Pivot(root); err != nil {
		return fmt.Errorf("jail: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("jail: make the root read-only: %w", err)
	}
	return nil
}
