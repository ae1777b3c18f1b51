package netbridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listenLoopback serves, to whoever dials loopback in a new namespace, the address that was dialed.
func listenLoopback(t *testing.T) *testNS {
	t.Helper()
	ns := newLab(t).pod
	l, err := ListenLoopback(ns.Path)
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("this kernel has no sk_lookup: ", err)
	}
	must(t, err)
	l.Serve(func(conn *net.TCPConn) {
		defer conn.Close()
		fmt.Fprint(conn, conn.LocalAddr())
	})
	t.Cleanup(func() {
		must(t, l.Close())
		l.Wait()
		if conn, err := ns.dial("127.0.0.1:80"); err == nil {
			conn.Close()
			t.Error("after Close somebody listens still")
		}
	})
	return ns
}

func (ns *testNS) dial(address string) (conn net.Conn, err error) {
	ns.Helper()
	ns.In(func() error {
		conn, err = net.DialTimeout("tcp", address, 5*time.Second)
		return nil
	})
	return conn, err
}

func TestLoopbackAcceptsEveryPortAndKnowsWhichWasDialed(t *testing.T) {
	ns := listenLoopback(t)
	for _, address := range []string{"127.0.0.1:80", "127.0.0.1:65535", "127.8.7.6:1", "[::1]:443"} {
		conn, err := ns.dial(address)
		if err != nil {
			t.Errorf("dial %s: %v", address, err)
			continue
		}
		if said, err := io.ReadAll(conn); err != nil || string(said) != address {
			t.Errorf("dial %s: the other end is at %q, %v", address, said, err)
		}
		conn.Close()
	}
}

func TestLoopbackLeavesOtherAddressesAlone(t *testing.T) {
	ns := listenLoopback(t)
	ns.Addr("lo", "10.9.0.2/32")
	ns.Addr("lo", "fd09::2/128")
	for _, address := range []string{"10.9.0.2:80", "[fd09::2]:80"} {
		conn, err := ns.dial(address)
		for i := 0; errors.Is(err, unix.ENETUNREACH) && i < 50; i++ { // the address is not ready yet
			time.Sleep(20 * time.Millisecond)
			conn, err = ns.dial(address)
		}
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("dial %s: %v", address, err)
		}
	}
}

func TestLoopbackWithoutIPv6(t *testing.T) {
	ns := newLab(t).pod
	ns.Set("net/ipv6/conf/all/disable_ipv6", "1")
	l, err := ListenLoopback(ns.Path)
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip("this kernel has no sk_lookup: ", err)
	}
	must(t, err)
	if len(l.listeners) != 1 {
		t.Errorf("%d listeners", len(l.listeners))
	}
	must(t, l.Close())
}

func TestLoopbackWithoutAddressesIsNamed(t *testing.T) {
	ns := newLab(t).pod
	ns.Set("net/ipv6/conf/all/disable_ipv6", "1")
	addrs, err := ns.AddrList(ns.Link("lo"), netlink.FAMILY_V4)
	must(t, err)
	for _, a := range addrs {
		must(t, ns.AddrDel(ns.Link("lo"), &a))
	}
	if l, err := ListenLoopback(ns.Path); err == nil || !strings.Contains(err.Error(), "is it up?") {
		t.Errorf("error: %v, %v", err, l.Close())
	}
}
