package netbridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Leave removes the taps, qdiscs and filters that Join made in the network namespace at nsPath, and leaves the
// interfaces as CNI had made them. It may be called again: a namespace, interface or tap that has vanished is not an
// error, and neither is a path that Join refuses. With b nil it removes what it finds of a Join whose outcome was not kept; a
// tap that a microVM is attached to is another's then, and stays.
//
// The microVM must have ended, or loses its network.
func Leave(ctx context.Context, nsPath string, b *Bridge) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ns, err := openNamespace(nsPath)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errRefused) {
		return nil // nothing is there, or Join had refused it
	}
	if err != nil {
		return err
	}
	defer ns.close()
	if b != nil && b.inode != ns.inode {
		return nil // another namespace has the path by now
	}
	err = ns.do(func(h *netlink.Handle) error {
		if b == nil {
			return leaveFound(h)
		}
		return b.leave(h)
	})
	if err != nil {
		return fmt.Errorf("leave network of %q: %w", nsPath, err)
	}
	return nil
}

// leave undoes every port, the last first, and goes on after errors.
func (b *Bridge) leave(h *netlink.Handle) error {
	var errs []error
	for i := len(b.Interfaces) - 1; i >= 0; i-- {
		if err := b.Interfaces[i].host.remove(h); err != nil {
			errs = append(errs, fmt.Errorf("tap %s: %w", b.Interfaces[i].Tap, err))
		}
	}
	return errors.Join(errs...)
}

// leaveFound undoes the ports that their taps tell of, but for those in use.
func leaveFound(h *netlink.Handle) error {
	links, err := Dump(h.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		if host, ours := leftover(l); ours && !attached(l) {
			errs = append(errs, host.remove(h))
		}
	}
	return errors.Join(errs...)
}

// remove undoes an attachment, or the part of it that was made. The tap goes last: until then its alias tells what is
// left to do.
func (a attachment) remove(h *netlink.Handle) error {
	var errs []error
	if a.OwnQdisc {
		if err := h.QdiscDel(clsact(a.Link)); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove qdisc clsact of interface %d: %w", a.Link, err))
		}
	} else if a.Tap != 0 {
		ours := func(f netlink.Filter) bool { return isSieve(f) || redirectsTo(f, a.Tap) }
		if err := delFilters(h, a.Link, ours); err != nil {
			errs = append(errs, fmt.Errorf("remove filter of interface %d: %w", a.Link, err))
		}
	}
	if a.Link != 0 {
		if err := unpin(h, a.Link); err != nil {
			errs = append(errs, fmt.Errorf("interface %d: %w", a.Link, err))
		}
	}
	if a.Solicitations != "" {
		if _, err := setSysctl(routerSolicitations(a.Name), a.Solicitations); err != nil {
			errs = append(errs, fmt.Errorf("restore router solicitations of %s: %w", a.Name, err))
		}
	}
	if a.Tap != 0 {
		if err := removeTap(h, a.Tap); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeTap deletes the link with this index if it is a tap of this package.
func removeTap(h *netlink.Handle, index int) error {
	link, err := h.LinkByIndex(index)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find tap %d: %w", index, err)
	}
	if _, ours := leftover(link); !ours {
		return nil
	}
	if err := h.LinkDel(link); err != nil && !gone(err) {
		return fmt.Errorf("remove tap %s: %w", link.Attrs().Name, err)
	}
	return nil
}
