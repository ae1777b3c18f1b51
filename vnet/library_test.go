package vnet_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/nat"
	"krun.dev/krunpod/vnet/policy"
	"krun.dev/krunpod/vnet/vnettest"
)

const (
	// nobodyEnv makes the test binary the program of a user without rights, in a network that the test made.
	nobodyEnv = "KRUNPOD_VNET_NOBODY"
	nobody    = 65534
	// world is the only address of that network, and of every name.
	world     = "192.0.2.1"
	worldName = "api.krunpod.test"
)

// A program without rights has all of it by calls: a guest's stream, the firewall with a policy by name, the resolver, the gateway
// and a service of its own.
func TestAUserWithoutRightsHasAGatewayByCalls(t *testing.T) {
	if os.Getenv(nobodyEnv) == "" {
		asNobody(t)
		return
	}
	if uid := os.Getuid(); uid != nobody {
		t.Fatalf("user %d", uid)
	}
	const served, shut = 8081, 8082
	for name, before := range map[string]string{
		"the first rule": "",
		// A guard puts rules before those of the policy, about as many as these.
		"after others": strings.Repeat("deny egress 203.0.113.0/24;", 9) + "deny egress tcp any 8082;",
	} {
		t.Run(name, func(t *testing.T) {
			g := openGuest(t, map[string]string{
				policy.AnnotationRules:       before + "allow egress tcp 192.168.127.1 80",
				policy.AnnotationEgressAllow: fmt.Sprintf("%s:%d", worldName, served),
			})
			if _, err := g.dial(world, served); err == nil {
				t.Error("an address that no name has opened is reached")
			}
			if got := g.lookup(worldName); got != world {
				t.Fatalf("%s is %q", worldName, got)
			}
			if got := g.lookup("evil.krunpod.test"); got != "" {
				t.Errorf("another name is %q", got)
			}
			if got := g.fetch(world, served); got != "from-the-world" {
				t.Errorf("the name's address: %q", got)
			}
			if _, err := g.dial(world, shut); err == nil {
				t.Error("another port of the name's address is reached")
			}
			if got := g.fetch("192.168.127.1", 80); got != "service" {
				t.Errorf("the service: %q", got)
			}
			if _, err := g.dial("192.168.127.1", 81); err == nil {
				t.Error("another port of the gateway is reached")
			}
		})
	}
}

// asNobody runs the calling test once more, as nobody.
func asNobody(t *testing.T) {
	ns := netlab.New(t)
	ns.Addr("lo", world+"/32")
	ns.In(func() error {
		conn, err := net.ListenPacket("udp", world+":53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		go serveNames(conn)
		for _, port := range []int{8081, 8082} {
			l, err := net.Listen("tcp", netlab.At(world, port))
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					io.WriteString(conn, "from-the-world")
					conn.Close()
				}
			}()
		}
		return nil
	})
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = []string{nobodyEnv + "=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	ns.In(cmd.Start)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

// serveNames answers for every name with world.
func serveNames(conn net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil {
			continue
		}
		m.Response, m.Additionals = true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
			m.Answers = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(world).As4()}}}
		}
		if reply, err := m.Pack(); err == nil {
			conn.WriteTo(reply, from)
		}
	}
}

// guest is a machine at a gateway of package nat, past a firewall.
type guest struct {
	testing.TB
	*stack.Stack
}

func openGuest(t *testing.T, annotations map[string]string) *guest {
	t.Helper()
	ours, theirs := net.Pipe()
	c := &vnet.Config{
		Gateway: &gateway.Config{}, Policy: annotations, Nameservers: []netip.AddrPort{netip.MustParseAddrPort(world + ":53")},
	}
	v, err := vnet.Open(c, vnet.Hooks{
		Guest:   theirs,
		Gateway: func(c gateway.Config, s gateway.Services) (vnet.Gateway, error) { return nat.Open(c, s) },
		Services: gateway.Services{80: func(conn net.Conn) {
			io.WriteString(conn, "service")
			conn.Close()
		}},
	})
	netlab.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		ours.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%+v", v.Report())
		}
	})
	own := vnettest.Host{MAC: gateway.GuestMAC, Addr: c.Gateway.Guest().Addr()}
	return &guest{t, vnettest.Station(t, own, c.Gateway.Address().Addr(), &nic{ours, bufio.NewReader(ours)})}
}

// nic is the guest's end of a stream of frames.
type nic struct {
	net.Conn
	r *bufio.Reader
}

func (n *nic) Read(frame []byte) (int, error) {
	var length [4]byte
	if _, err := io.ReadFull(n.r, length[:]); err != nil {
		return 0, err
	}
	return io.ReadFull(n.r, frame[:binary.BigEndian.Uint32(length[:])])
}

func (n *nic) Write(frame []byte) (int, error) {
	return n.Conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
}

func at(addr string, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: vnettest.NIC, Addr: tcpip.AddrFromSlice(netip.MustParseAddr(addr).AsSlice()), Port: port}
}

func (g *guest) dial(addr string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(g.Context(), netlab.Patience)
	defer cancel()
	conn, err := gonet.DialContextTCP(ctx, g.Stack, at(addr, port), ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	g.Cleanup(func() { conn.Close() })
	return conn, conn.SetDeadline(time.Now().Add(netlab.Patience))
}

func (g *guest) fetch(addr string, port uint16) string {
	conn, err := g.dial(addr, port)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// lookup asks the gateway for the address of a name, "" for none.
func (g *guest) lookup(name string) string {
	client := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		if network != "udp" {
			return nil, errors.New("no DNS over " + network)
		}
		to := at("192.168.127.1", 53)
		return gonet.DialUDP(g.Stack, nil, &to, ipv4.ProtocolNumber)
	}}
	addrs, err := client.LookupNetIP(g.Context(), "ip4", name+".")
	if err != nil || len(addrs) == 0 {
		return ""
	}
	return addrs[0].Unmap().String()
}
