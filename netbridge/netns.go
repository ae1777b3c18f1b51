package netbridge

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nsfsMagic is NSFS_MAGIC, include/uapi/linux/magic.h.
const nsfsMagic = 0x6e736673

// namespace is an open network namespace.
type namespace struct {
	handle netns.NsHandle
	inode  uint64
}

// openNamespace opens the network namespace bound at path. Errors match ErrNetNS, and fs.ErrNotExist as well if
// nothing is there or no namespace is bound to it any more.
func openNamespace(path string) (*namespace, error) {
	// A FIFO in the place of a namespace must not block us.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w: %w: is it made by CNI before the sandbox, and still there?",
			path, ErrNetNS, err)
	}
	ns := &namespace{handle: netns.NsHandle(fd)}
	if err := ns.inspect(path); err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

// inspect refuses what is no network namespace, and the namespaces of this process and of the node.
func (n *namespace) inspect(path string) error {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(int(n.handle), &sfs); err != nil {
		return fmt.Errorf("statfs %q: %w: %w", path, ErrNetNS, err)
	}
	if sfs.Type != nsfsMagic {
		return fmt.Errorf("%q: %w: it is a plain file with no namespace mounted on it (%w): run CNI ADD again",
			path, errRefused, fs.ErrNotExist)
	}
	kind, err := unix.IoctlRetInt(int(n.handle), unix.NS_GET_NSTYPE)
	if err != nil {
		return fmt.Errorf("type of namespace %q: %w: %w", path, ErrNetNS, err)
	}
	if kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%q: %w: it is a namespace of another type (%#x): give the path of the pod's network namespace",
			path, errRefused, kind)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(n.handle), &st); err != nil {
		return fmt.Errorf("stat %q: %w: %w", path, ErrNetNS, err)
	}
	for _, own := range []string{"/proc/thread-self/ns/net", "/proc/1/ns/net"} {
		var o unix.Stat_t
		if unix.Stat(own, &o) == nil && o.Dev == st.Dev && o.Ino == st.Ino {
			return fmt.Errorf("%q: %w: it is the node's own (hostNetwork), which a microVM cannot take over: "+
				"run this pod with another runtime class", path, errRefused)
		}
	}
	n.inode = st.Ino
	return nil
}

func (n *namespace) close() { n.handle.Close() }

// do runs fn with a netlink handle in the namespace, on a thread of its own; the caller's thread stays where it is.
func (n *namespace) do(fn func(*netlink.Handle) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err, restored := n.visit(fn)
		if restored {
			runtime.UnlockOSThread()
		} // else the runtime ends the thread with this goroutine, and no one meets it again
		done <- err
	}()
	return <-done
}

// visit moves the calling thread into the namespace and back. It reports whether the thread is where it was.
func (n *namespace) visit(fn func(*netlink.Handle) error) (err error, restored bool) {
	home, err := netns.GetFromPath("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open the node's network namespace: %w", err), true
	}
	defer home.Close()
	if err := netns.Set(n.handle); err != nil {
		return fmt.Errorf("enter network namespace: %w (CAP_SYS_ADMIN is needed)", err), true
	}
	defer func() { restored = netns.Set(home) == nil }()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err), false
	}
	defer h.Close()
	return fn(h), false
}

// Dump repeats a netlink dump that a change in the namespace cut short (NLM_F_DUMP_INTR, netlink(7)).
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 8
	var res []T
	var err error
	for range attempts {
		if res, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return res, err
}
