package nat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/vnettest"
)

const (
	envInside = "KRUNPOD_NAT_TEST"
	// world is an address that is neither the loopback's nor the guest's network's.
	world    = "192.0.2.1"
	patience = 20 * time.Second
)

// TestMain runs the tests as a user without rights, in a network namespace whose loopback has the address world: the gateway's
// sockets are the process's.
func TestMain(m *testing.M) {
	if os.Getenv(envInside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), envInside+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(world + "/32")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, addr); !errors.Is(err, syscall.EEXIST) { // a fuzzer's worker is in its parent's namespace
		return err
	}
	return nil
}

// guest is a machine at the gateway, with a stack of its own.
type guest struct {
	testing.TB
	*stack.Stack
	gateway *Gateway
	config  gateway.Config
}

// newGuest runs a gateway with a guest until the test's end.
func newGuest(t testing.TB, c gateway.Config, services gateway.Services) *guest {
	t.Helper()
	g, err := Open(c, services)
	must(t, err)
	own := vnettest.Host{MAC: gateway.GuestMAC, Addr: c.Guest().Addr()}
	s := vnettest.Station(t, own, c.Address().Addr(), g)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the gateway does not end")
		}
	})
	return &guest{TB: t, Stack: s, gateway: g, config: c}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func full(at string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(at)
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func (g *guest) dial(at string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(g.Context(), patience)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, g.Stack, full(at), ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	g.Cleanup(func() { c.Close() })
	return c, c.SetDeadline(time.Now().Add(patience))
}

// listen serves TCP connections at an address of the host.
func listen(t testing.TB, at string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}
