package netbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// acceptPause is how long accepting rests after an error, which is a client that was gone again or a want of
// descriptors: that must not take a processor.
const acceptPause = 10 * time.Millisecond

// Loopback accepts every TCP connection that somebody on the host makes to the loopback of a pod's network namespace,
// whatever the port: containerd's port-forward dials localhost there, while the pod's servers listen in the guest.
//
// Nothing is added to the namespace's configuration, and nothing to its firewall: a BPF program (sk_lookup, Linux 5.9)
// leads the look-up of a listener to ours. The program, its map and the listeners end with this process.
type Loopback struct {
	listeners []*net.TCPListener
	program   io.Closer
	serving   sync.WaitGroup

	mu     sync.Mutex
	open   map[*net.TCPConn]bool
	closed bool
}

// ListenLoopback listens in the network namespace at path nsPath. CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_BPF are needed.
func ListenLoopback(nsPath string) (*Loopback, error) {
	ns, err := openNamespace(nsPath)
	if err != nil {
		return nil, err
	}
	defer ns.close()
	l := &Loopback{open: map[*net.TCPConn]bool{}}
	err = ns.do(func(*netlink.Handle) error { return l.listen() })
	if err == nil {
		l.program, err = attachLookup(int(ns.handle), l.listeners)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on the loopback of %q: %w", nsPath, err), l.Close())
	}
	return l, nil
}

// listen opens a listener for each family that the namespace has, on a port that does not matter.
func (l *Loopback) listen() error {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // the map of sockets takes plain TCP alone: sock_map_sk_is_suitable, net/core/sock_map.c
	for _, a := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}} {
		listener, err := config.Listen(context.Background(), a.network, a.address)
		if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue // no IPv6 in this namespace
		}
		if err != nil {
			return err
		}
		l.listeners = append(l.listeners, listener.(*net.TCPListener))
	}
	if len(l.listeners) == 0 {
		return errors.New("lo has no address: is it up?")
	}
	return nil
}

// Serve calls handle with each connection, in a goroutine of its own, until Close. The local address of a connection is
// what its client dialed.
func (l *Loopback) Serve(handle func(*net.TCPConn)) {
	for _, listener := range l.listeners {
		l.serving.Go(func() { l.accept(listener, handle) })
	}
}

func (l *Loopback) accept(listener *net.TCPListener, handle func(*net.TCPConn)) {
	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		if !l.keep(conn) {
			continue
		}
		l.serving.Go(func() {
			handle(conn)
			l.drop(conn)
		})
	}
}

func (l *Loopback) keep(conn *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		conn.Close()
		return false
	}
	l.open[conn] = true
	return true
}

func (l *Loopback) drop(conn *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.Close()
	delete(l.open, conn)
}

// Close ends the listening and every connection. It is idempotent.
func (l *Loopback) Close() (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	for _, listener := range l.listeners {
		err = errors.Join(err, listener.Close())
	}
	for conn := range l.open {
		conn.Close() // handle may have done it
	}
	if l.program != nil {
		err = errors.Join(err, l.program.Close())
	}
	return err
}

// Wait returns when, after Close, every handler has returned.
func (l *Loopback) Wait() { l.serving.Wait() }
