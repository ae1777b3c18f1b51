package testpod

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watched are the events that a Watch shows: names that come and go, and contents that change.
var watched = []struct {
	mask uint32
	name string
}{
	{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_MOVED_FROM, "moved from"}, {unix.IN_MOVED_TO, "moved to"},
	{unix.IN_CLOSE_WRITE, "written"}, {unix.IN_DELETE_SELF, "gone"}, {unix.IN_MOVE_SELF, "moved"},
}

// Watch shows what inotify(7) shows of a directory.
type Watch struct{ f *os.File }

// NewWatch begins to watch a directory.
func NewWatch(dir string) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	w := &Watch{os.NewFile(uintptr(fd), "inotify")}
	var mask uint32
	for _, e := range watched {
		mask |= e.mask
	}
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return w, nil
}

// Next waits for events and returns them, each as "EVENT NAME".
func (w *Watch) Next() (list []string, err error) {
	buf := make([]byte, 64<<10)
	n, err := w.f.Read(buf)
	if err != nil {
		return nil, err
	}
	for at := 0; at < n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
		name := string(buf[at+unix.SizeofInotifyEvent:][:e.Len])
		for _, w := range watched {
			if e.Mask&w.mask != 0 {
				list = append(list, w.name+" "+strings.TrimRight(name, "\x00"))
			}
		}
		at += unix.SizeofInotifyEvent + int(e.Len)
	}
	return list, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.f.Close() }
