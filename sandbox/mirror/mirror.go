package mirror

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

const (
	// MaxBytes bounds a volume, for one message to the agent, which may have 4 MiB (ttrpc). A ConfigMap or a Secret has
	// 1 MiB at most.
	MaxBytes = 3 << 20
	// entryBytes is what an entry takes beside its path and its content, at most.
	entryBytes = 64

	// current is the link to the directory of the present version.
	current = "..data"
	// reads is how often a volume is read that changes at the same time, and pause the time between: from the rename that
	// makes a version the present one, the kubelet takes far less to link its new names and to remove the version before.
	reads = 10
	pause = 5 * time.Millisecond
)

// ErrUnfit is wrapped by the errors of directories that no mirror can be made of; their path is to be shared instead.
var ErrUnfit = errors.New("not a volume that can be copied to the guest")

// Version is what a volume holds at one time.
type Version struct {
	Entries []*api.VolumeEntry
	// Keep are the names of other versions, which the kubelet has yet to finish or to remove.
	Keep []string
	// Mark is what Mark returned at that time.
	Mark string
}

// Mark tells one version of the volume at path from another: it is the names in its directory, and where ..data leads.
// The kubelet gives each version a directory of its own, and links names that are new only after that.
func Mark(path string) (string, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer root.Close()
	names, target, err := look(root)
	return mark(names, target), err
}

func mark(names []string, target string) string { return target + "/" + strings.Join(names, "/") }

// look reads what Mark is made of.
func look(root *os.Root) (names []string, target string, err error) {
	target, err = root.Readlink(current)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrUnfit, err)
	}
	if !strings.HasPrefix(target, "..") || target == ".." || strings.Contains(target, "/") {
		return nil, "", fmt.Errorf("%w: %s leads to %q", ErrUnfit, current, target)
	}
	list, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, "", err
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, target, nil
}

// Read reads the volume at path.
func Read(path string) (*Version, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var v *Version
	for range reads {
		names, target, err := look(root)
		if err != nil {
			return nil, err
		}
		r := reader{root: root, left: MaxBytes}
		readErr := r.read(names, target)
		namesAfter, targetAfter, err := look(root)
		if err != nil {
			return nil, err
		}
		if m := mark(names, target); m == mark(namesAfter, targetAfter) {
			v = &Version{Entries: r.entries, Keep: others(names, target), Mark: m}
			if readErr != nil || len(v.Keep) == 0 {
				return v, readErr
			}
		}
		time.Sleep(pause)
	}
	if v == nil {
		return nil, fmt.Errorf("volume %s changes faster than it can be read", path)
	}
	return v, nil // with what a kubelet that was killed has left, perhaps
}

// others are the names of versions beside the one that target leads to.
func others(names []string, target string) (list []string) {
	for _, name := range names {
		if strings.HasPrefix(name, "..") && name != current && name != target {
			list = append(list, name)
		}
	}
	return list
}

// reader collects the entries of a version.
type reader struct {
	root    *os.Root
	entries []*api.VolumeEntry
	left    int
}

// read takes the volume's directory, the present version's, and then the links: first the one that makes it present.
func (r *reader) read(names []string, target string) error {
	if err := r.add("."); err != nil {
		return err
	}
	err := fs.WalkDir(r.root.FS(), target, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return r.add(path)
	})
	if err != nil {
		return err
	}
	if err := r.add(current); err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "..") {
			continue // another version, or one that is not finished
		}
		if err := r.add(name); err != nil {
			return err
		}
		if last := r.entries[len(r.entries)-1]; last.Mode&unix.S_IFMT != unix.S_IFLNK {
			return fmt.Errorf("%w: %s is no link to a version of it", ErrUnfit, name)
		}
	}
	return nil
}

// add takes one entry, if there is room for it.
func (r *reader) add(path string) error {
	info, err := r.root.Lstat(path)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	e := &api.VolumeEntry{Path: path, Mode: st.Mode, Uid: st.Uid, Gid: st.Gid}
	r.left -= len(path) + entryBytes
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
	case unix.S_IFREG:
		e.Content, err = r.content(path)
	case unix.S_IFLNK:
		var to string
		to, err = r.root.Readlink(path)
		e.Content = []byte(to)
	default:
		err = fmt.Errorf("%w: %s is no directory, file or link", ErrUnfit, path)
	}
	r.left -= len(e.Content)
	if err == nil && r.left < 0 {
		err = fmt.Errorf("%w: it has more than %d bytes", ErrUnfit, MaxBytes)
	}
	r.entries = append(r.entries, e)
	return err
}

func (r *reader) content(path string) ([]byte, error) {
	f, err := r.root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(max(r.left, 0))+1))
}
