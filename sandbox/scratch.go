package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// EmptyDir is an emptyDir of the pod, or a part of one. Package cri finds it.
type EmptyDir struct {
	// Name is the volume's in the pod, Dir its directory on the host, where there may be none.
	Name, Dir string
	// Part is a name, single in the pod, for what the kubelet has bound to PartSource for a subPath; empty: it is all.
	Part, PartSource string
}

// scratchTimeout bounds making a volume in the guest, on a machine that is ten times slower than a good one.
const scratchTimeout = 30 * time.Second

// scratch are the pod's emptyDirs.
type scratch struct {
	mu sync.Mutex
	// inGuest is what was decided for each when its first container came, since containers must meet in it.
	inGuest map[string]bool
}

// Scratch makes an emptyDir with medium Memory a tmpfs in the guest, as large as the kubelet's, and returns its path
// there; empty for what is to be shared: any other emptyDir, and one that holds something on the host already.
func (s *Sandbox) Scratch(ctx context.Context, e EmptyDir) (string, error) {
	s.scratch.mu.Lock()
	defer s.scratch.mu.Unlock()
	bytes, memory, err := tmpfsAt(e.Dir)
	if err != nil {
		return "", err
	}
	inGuest, decided := s.scratch.inGuest[e.Name]
	if !decided && memory {
		if inGuest, err = onlyDirectories(e.Dir); err != nil {
			return "", err
		}
	}
	if s.scratch.inGuest == nil {
		s.scratch.inGuest = map[string]bool{}
	}
	s.scratch.inGuest[e.Name] = inGuest
	if !inGuest {
		return "", nil
	}
	r := &api.PutVolumeRequest{Name: e.Name, Scratch: &api.Scratch{Bytes: bytes, PartName: e.Part}}
	path := filepath.Join(api.VolumeDir, e.Name)
	if e.Part != "" {
		if r.Scratch.Part, err = partOf(e); err != nil {
			return "", err
		}
		path = filepath.Join(api.SubPathDir, e.Part)
	}
	if r.Entries, err = directories(e.Dir, r.Scratch.Part); err != nil {
		return "", fmt.Errorf("read emptyDir %s: %w", e.Dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, scratchTimeout)
	defer cancel()
	if _, err := s.Agent.PutVolume(ctx, r); err != nil {
		return "", fmt.Errorf("make emptyDir %s in the guest's memory: %w", e.Name, err)
	}
	return path, nil
}

// tmpfsAt reports whether a tmpfs is mounted on dir, and the bytes that it may hold; 0 is without bound. A directory that
// does not exist is none.
func tmpfsAt(dir string) (bytes uint64, ok bool, err error) {
	var fsStat unix.Statfs_t
	err = unix.Statfs(dir, &fsStat)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	var here, above unix.Stat_t
	if err = errors.Join(err, unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
		return 0, false, fmt.Errorf("stat emptyDir %s: %w", dir, err)
	}
	// Where the kubelet's root is on a tmpfs itself, its disk is memory, too: that is the administrator's word.
	ok = fsStat.Type == unix.TMPFS_MAGIC && here.Dev != above.Dev
	return fsStat.Blocks * uint64(fsStat.Bsize), ok, nil
}

// onlyDirectories reports whether there is nothing in dir but what the kubelet makes for the sake of a subPath.
func onlyDirectories(dir string) (bool, error) {
	const most = 10_000 // more than that is not the kubelet's
	seen, errOther := 0, errors.New("something else")
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if seen++; err == nil && (!d.IsDir() || seen > most) {
			return errOther
		}
		return err
	})
	if errors.Is(err, errOther) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into emptyDir %s: %w", dir, err)
	}
	return true, nil
}

// partOf is the path in the volume that a subPath stands for: the root of the kubelet's bind mount
// (proc_pid_mountinfo(5), field 4).
func partOf(e EmptyDir) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(e.Dir, &st); err != nil {
		return "", fmt.Errorf("stat emptyDir %s: %w", e.Dir, err)
	}
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(e.PartSource))
	if err != nil {
		return "", fmt.Errorf("find the mount of %s: %w", e.PartSource, err)
	}
	for _, m := range list {
		if part := strings.TrimPrefix(m.Root, "/"); unix.Mkdev(uint32(m.Major), uint32(m.Minor)) == st.Dev {
			return filepath.Clean(part), nil
		}
	}
	return "", fmt.Errorf("%s is no part of emptyDir %s", e.PartSource, e.Dir)
}

// directories are the volume's own and those on the way to part, with their owners and permissions.
func directories(dir, part string) (entries []*api.VolumeEntry, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	path := "."
	for _, element := range append([]string{"."}, strings.Split(part, "/")...) {
		if path = filepath.Join(path, element); path == "." && entries != nil {
			continue
		}
		info, err := root.Lstat(path)
		if err != nil {
			return nil, err
		}
		st := info.Sys().(*syscall.Stat_t)
		entries = append(entries, &api.VolumeEntry{Path: path, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid})
	}
	return entries, nil
}
