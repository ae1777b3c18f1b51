package ctr

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// shares keeps a directory of the share one file system for all containers that have it.
//
// virtio-fs has the guest's kernel mount a directory of the share when a path is first followed into it (an automount of
// a submount, which FUSE_ATTR_SUBMOUNT announces). Followed in the mount namespace of a container that is being set up,
// that mount is this container's alone, with inodes of its own: files that two containers have would be different ones,
// whose locks, sockets and memory do not meet. So the agent follows it first, in its own namespace, which that of
// each container is a copy of; and lets go of it with the last one.
type shares struct {
	// dir is the share.
	dir string

	mu    sync.Mutex
	users map[string]int
}

func newShares(dir string) *shares { return &shares{dir: dir, users: map[string]int{}} }

// hold mounts what spec shows of the share, until the container calls release, once.
func (s *shares) hold(spec *specs.Spec) (release func() error, err error) {
	var held []string
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range spec.Mounts {
		if !strings.HasPrefix(m.Source, s.dir+"/") {
			continue
		}
		s.users[m.Source]++
		held = append(held, m.Source)
		// With a slash behind it stat(2) follows a directory into what is mounted there.
		var st unix.Stat_t
		if e := unix.Stat(m.Source+"/", &st); e != nil && !errors.Is(e, unix.ENOTDIR) {
			err = errors.Join(err, fmt.Errorf("look at %s, which is mounted at %s: %w", m.Source, m.Destination, e))
		}
	}
	release = sync.OnceValue(func() error { return s.release(held) })
	return release, err
}

func (s *shares) release(held []string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range held {
		if s.users[path]--; s.users[path] > 0 {
			continue
		}
		delete(s.users, path)
		// EINVAL: a file, on which nothing is mounted. ENOENT: the host was quicker.
		e := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", path, e))
		}
	}
	return err
}
