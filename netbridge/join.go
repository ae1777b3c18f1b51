package netbridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Join connects every CNI interface of the network namespace at path nsPath to a new tap in that namespace, and
// returns what the guest must take over. An interface is CNI's if it is up and not the loopback; a namespace without
// any gives an empty Bridge. Frames pass both ways as soon as libkrun attaches to the tap, or with watch, as soon as a process
// carries them, and the namespace's own kernel answers for no address any more.
//
// The guest's routes must take the place of those that its kernel makes for the addresses, since they hold every one that the
// namespace had, and it must add the addresses without duplicate address detection, which CNI has done.
//
// What a Join left that died halfway is cleared first. An error matches ErrNetNS, ErrUnsupported or ErrBusy where one
// of these is the cause; after an error nothing is left in the namespace. CAP_SYS_ADMIN and CAP_NET_ADMIN are needed.
func Join(ctx context.Context, nsPath string, watch *Watch) (*Bridge, error) {
	ns, err := openNamespace(nsPath)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	b := &Bridge{inode: ns.inode}
	err = ns.do(func(h *netlink.Handle) error { return b.join(ctx, h, watch) })
	if err != nil {
		return nil, fmt.Errorf("join network of %q: %w", nsPath, err)
	}
	return b, nil
}

func (b *Bridge) join(ctx context.Context, h *netlink.Handle, watch *Watch) (err error) {
	links, err := clearedLinks(h)
	if err != nil {
		return err
	}
	ports, err := selectLinks(links)
	if err != nil || len(ports) == 0 {
		return err
	}
	ifaces, err := readInterfaces(h, ports)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.leave(h))
		}
	}()
	name := tapNames(links)
	for i, link := range ports {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := Port{Tap: name(), Interface: ifaces[i]}
		err := p.attach(ctx, h, link, watch)
		// Also after an error: leave undoes what attach got to.
		b.Interfaces = append(b.Interfaces, p)
		if err != nil {
			return fmt.Errorf("interface %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// attach makes the tap of link and the redirects or sieves, that on link last: it takes from the namespace's own stack.
// p.host holds what was done so far at any time.
func (p *Port) attach(ctx context.Context, h *netlink.Handle, link netlink.Link, watch *Watch) (err error) {
	p.host.Link, p.host.Name = link.Attrs().Index, link.Attrs().Name
	if p.host.OwnQdisc, err = addClsact(h, p.host.Link); err != nil {
		return err
	}
	note := alias(p.host.Link, p.host.OwnQdisc)
	if p.host.Tap, err = makeTap(h, p.Tap, link.Attrs().MTU, note); err != nil {
		return err
	}
	if err := p.host.quiet(); err != nil {
		return err
	}
	if _, err := addClsact(h, p.host.Tap); err != nil {
		return fmt.Errorf("tap %s: %w", p.Tap, err)
	}
	fromTap, fromLink := addRedirect, addRedirect
	if watch != nil {
		silent, err := pin(ctx, h, p.host.Link, watch.Nameservers)
		if err != nil {
			return err
		}
		fromTap = func(h *netlink.Handle, tap, _ int) error { return addSieve(h, tap, nil, nil) }
		fromLink = func(h *netlink.Handle, link, _ int) error { return addSieve(h, link, watch.Nameservers, silent) }
	}
	if err := fromTap(h, p.host.Tap, p.host.Link); err != nil {
		return fmt.Errorf("tap %s: %w", p.Tap, err)
	}
	return fromLink(h, p.host.Link, p.host.Tap)
}

// quiet stops what the namespace's own kernel sends unasked in the guest's name: router solicitations, of which some
// may be due yet. All else it would only send in answer to frames, and gets none.
func (a *attachment) quiet() (err error) {
	a.Solicitations, err = setSysctl(routerSolicitations(a.Name), "0")
	if err != nil {
		return fmt.Errorf("stop router solicitations: %w", err)
	}
	return nil
}

// clearedLinks lists the links of the namespace after the removal of taps whose Join or microVM has died.
func clearedLinks(h *netlink.Handle) ([]netlink.Link, error) {
	links, err := Dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	kept := links[:0]
	for _, l := range links {
		host, ours := leftover(l)
		if !ours {
			kept = append(kept, l)
			continue
		}
		if attached(l) {
			return nil, fmt.Errorf("%w: tap %s: stop that sandbox first", ErrBusy, l.Attrs().Name)
		}
		if err := host.remove(h); err != nil {
			return nil, fmt.Errorf("clear tap %s of an earlier sandbox: %w", l.Attrs().Name, err)
		}
	}
	return kept, nil
}
