package netbridge

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// soon bounds waiting for what comes, and for what must not.
const soon = 500 * time.Millisecond

// watched joins the pod for a process that carries the frames, which is not there.
func (l *lab) watched(nameservers ...string) *Bridge {
	l.Helper()
	w := &Watch{}
	for _, ns := range nameservers {
		w.Nameservers = append(w.Nameservers, netip.MustParseAddrPort(ns))
	}
	b, err := Join(context.Background(), l.pod.Path, w)
	must(l, err)
	return b
}

// tellNode lets the node know where the pod is, as the guest does when it is asked.
func (l *lab) tellNode() {
	l.Helper()
	for _, ip := range []string{"10.9.0.2", "fd09::2"} {
		must(l, l.node.NeighSet(&netlink.Neigh{
			LinkIndex: l.node.Link("kpbr0").Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.ParseIP(ip), HardwareAddr: l.pod.Link("eth0").Attrs().HardwareAddr,
		}))
	}
}

// echo answers datagrams and connections at an address of a namespace.
func (l *lab) echo(ns *testNS, address string) {
	l.Helper()
	ns.In(func() error {
		udp, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		l.Cleanup(func() { udp.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				n, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				udp.WriteTo(buf[:n], from)
			}
		}()
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		l.Cleanup(func() { tcp.Close() })
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		return nil
	})
}

// reaches asks an echo over UDP, and connects to it over TCP.
func (l *lab) reaches(ns *testNS, address string) (udp, tcp bool) {
	l.Helper()
	ns.In(func() error {
		c, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		// Asked again: what UDP loses on a busy machine is not what the stack does not hear.
		for deadline := time.Now().Add(soon); !udp && time.Now().Before(deadline); {
			must(l, c.SetDeadline(time.Now().Add(soon/10)))
			if _, err := c.Write([]byte("x")); err != nil {
				return err
			}
			_, err = c.Read(make([]byte, 1))
			udp = err == nil
		}
		d := net.Dialer{Timeout: soon}
		t, err := d.Dial("tcp", address)
		if tcp = err == nil; tcp {
			t.Close()
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			l.Errorf("%s: the stack answered", address)
		}
		return nil
	})
	return udp, tcp
}

func TestStackOfAWatchedPodHearsItsNameserversAlone(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.node.Addr("kpbr0", "10.9.0.53/24")
	for _, a := range []string{"10.9.0.53:53", "[fd09::1]:53", "10.9.0.53:54", "10.9.0.1:53", "[fd09::1]:54"} {
		l.echo(l.node, a)
	}
	l.echo(l.pod, "10.9.0.2:80")
	l.echo(l.pod, "[fd09::2]:80")
	if udp, tcp := l.reaches(l.pod, "10.9.0.1:53"); !udp || !tcp {
		t.Fatal("the lab has no way")
	}
	l.tellNode()
	l.watched("10.9.0.53:53", "[fd09::1]:53")
	for address, want := range map[string]bool{
		"10.9.0.53:53": true, "[fd09::1]:53": true,
		"10.9.0.53:54": false, "10.9.0.1:53": false, "[fd09::1]:54": false,
	} {
		if udp, tcp := l.reaches(l.pod, address); udp != want || tcp != want {
			t.Errorf("%s: an answer over UDP: %t, over TCP: %t", address, udp, tcp)
		}
	}
	for _, address := range []string{"10.9.0.2:80", "[fd09::2]:80"} {
		if udp, tcp := l.reaches(l.node, address); udp || tcp {
			t.Errorf("the stack answers the node at %s: over UDP: %t, over TCP: %t", address, udp, tcp)
		}
	}
}

// Another station of the link says that it is the nameserver, or the way to it: the stack, from which names are resolved, goes on
// sending to the one that it knew at the start.
func TestNeighboursCannotTakeTheNameserversPlace(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.node.Addr("kpbr0", "10.9.0.53/24")
	servers := []string{"10.9.0.53:53", "[fd09::1]:53"}
	for _, a := range servers {
		l.echo(l.node, a)
	}
	l.tellNode()
	l.watched(servers...)
	pod, gateway := l.pod.Link("eth0").Attrs().HardwareAddr, netip.MustParseAddr("fd09::1")
	liar := net.HardwareAddr{2, 9, 9, 9, 9, 9}
	wire := l.packetSocket(l.node.Link("veth0").Attrs().Index)
	advertisement := append([]byte{136, 0, 0, 0, 0xa0, 0, 0, 0}, gateway.AsSlice()...)
	advertisement = append(append(advertisement, 2, 1), liar...)
	for _, address := range servers {
		l.reaches(l.pod, address)
	}
	time.Sleep(1100 * time.Millisecond) // until the kernel believes another address at all (net/ipv4/arp.c, LOCKTIME)
	for _, lie := range [][]byte{
		arp(2, liar, netip.MustParseAddr("10.9.0.53"), pod, netip.MustParseAddr("10.9.0.2")),
		ip6(liar, pod, gateway, netip.MustParseAddr("fd09::2"), 58, advertisement, 2),
	} {
		copy(lie, pod)
		_, err := wire.Write(lie)
		must(t, err)
	}
	for _, address := range servers {
		if udp, tcp := l.reaches(l.pod, address); !udp || !tcp {
			t.Errorf("%s: an answer over UDP: %t, over TCP: %t", address, udp, tcp)
		}
	}
}

// A nameserver that does not answer at the start is asked for later, and then nobody else is heard.
func TestNameserverThatComesLaterIsHeard(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	l.watched("10.9.0.53:53")
	l.node.Addr("kpbr0", "10.9.0.53/24")
	l.echo(l.node, "10.9.0.53:53")
	if udp, tcp := l.reaches(l.pod, "10.9.0.53:53"); !udp && !tcp {
		t.Error("it is not heard")
	}
}

// The addresses are the guest's to answer for.
func TestStackOfAWatchedPodAnswersForNoAddress(t *testing.T) {
	l := newLab(t)
	l.bridgePod()
	b := l.watched("10.9.0.1:53", "[fd09::1]:53")
	g := l.attach(b.Interfaces[0])
	for address, network := range map[string]string{"10.9.0.2": "ip4:icmp", "fd09::2": "ip6:ipv6-icmp"} {
		c := l.pinger(network, map[string]string{"ip4:icmp": "10.9.0.1", "ip6:ipv6-icmp": "fd09::1"}[network])
		request := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
		if network != "ip4:icmp" {
			request[0] = 128
		}
		_, err := c.WriteTo(request, &net.IPAddr{IP: net.ParseIP(address)})
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(soon)))
		buf := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			must(t, err)
			if from.String() == address && n > 0 && (buf[0] == 0 || buf[0] == 129) {
				t.Errorf("%s answers a ping", address)
			}
		}
	}
	// And nothing crosses by itself.
	must(t, g.tap.SetReadDeadline(time.Now().Add(soon)))
	if n, err := g.tap.Read(make([]byte, 2000)); err == nil {
		t.Errorf("a frame of %d bytes came to the guest", n)
	}
}

func TestLeaveOfAWatchedPodRestoresTheNamespace(t *testing.T) {
	for _, foreign := range []bool{false, true} {
		l := newLab(t)
		l.bridgePod()
		if foreign {
			_, err := addClsact(l.pod.Handle, l.pod.Link("eth0").Attrs().Index)
			must(t, err)
		}
		before := l.pod.state()
		data, err := json.Marshal(l.watched("10.9.0.1:53"))
		must(t, err)
		restored := new(Bridge)
		must(t, json.Unmarshal(data, restored))
		for range 2 {
			must(t, Leave(context.Background(), l.pod.Path, restored))
			if after := l.pod.state(); after != before {
				t.Errorf("with a foreign qdisc: %t; after Leave:\n%s\nbefore Join:\n%s", foreign, after, before)
			}
		}
	}
}
