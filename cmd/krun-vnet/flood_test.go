package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
	"krun.dev/krunpod/vnet/vnettest"
)

const floodTime = 2 * time.Second

// hostile makes frames as no guest would send them: each number another one, of a kind in turn.
type hostile struct {
	self, router vnettest.Host
	kinds        [][]byte
}

func newHostile(t *testing.T, self, router vnettest.Host) *hostile {
	world := vnettest.Host{MAC: router.MAC, Addr: netip.MustParseAddr("198.51.100.7")}
	query := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x08xxxxxxxx\x04evil\x07example\x00\x00\x01\x00\x01"...)
	parts := vnettest.Fragments(t, vnettest.IP(t, self, world, vnettest.UDP(1, 80), vnettest.Data(strings.Repeat("x", 64))), 7, 32)
	return &hostile{self, router, [][]byte{
		vnettest.IP(t, self, world, vnettest.TCP(1, 80, "S")),
		vnettest.IP(t, self, world, vnettest.TCP(1, 81, "S")),
		vnettest.IP(t, self, world, vnettest.UDP(1, 80), vnettest.Data("x")),
		vnettest.IP(t, self, router, vnettest.UDP(1, 53), vnettest.Data(string(query))),
		vnettest.IP(t, self.At("198.51.100.9"), world, vnettest.UDP(1, 80)),
		vnettest.IP(t, vnettest.Host{MAC: packet.MAC{2, 1, 1, 1, 1, 1}, Addr: self.Addr}, world, vnettest.UDP(1, 80)),
		vnettest.ARP(t, self.MAC, packet.ARPRequest, self, router),
		vnettest.ARP(t, self.MAC, packet.ARPReply, router, self),
		vnettest.IP(t, self, world, vnettest.Echo(self, 1, false)...),
		parts[0], parts[1],
		append(vnettest.Frame(t, vnettest.Ethernet(self, router, 0x8100)), make([]byte, 50)...),
		vnettest.IP(t, self, world, vnettest.TCP(1, 80, "SFR")),
		make([]byte, 60),
		make([]byte, 3),
	}}
}

// frame is one that is valid until the next call. Each connection has another port, each packet in fragments another number, and each
// name another beginning.
func (h *hostile) frame(i int) []byte {
	f := h.kinds[i%len(h.kinds)]
	n := uint16(i / len(h.kinds))
	if len(f) < 42 || f[12] != 8 || f[13] != 0 {
		return f
	}
	switch f[23] {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		if f[20]&0x3f == 0 && f[21] == 0 {
			binary.BigEndian.PutUint16(f[34:], n|1)
		}
	}
	if len(f) > 70 && f[37] == 53 {
		copy(f[55:], fmt.Sprintf("%08d", i)) // the first label, after headers of 42 bytes, that of DNS and a length
	}
	binary.BigEndian.PutUint16(f[18:], n)
	vnettest.FixIPv4(f)
	return f
}

// memory is the most that a process has had in memory, in MiB (proc_pid_status(5)).
func memory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	netlab.Must(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	netlab.Must(t, err)
	return n >> 10
}

// flood sends hostile frames for a while, as fast as they are taken, and returns how many.
func flood(t *testing.T, h *hostile, send func(frame []byte) error) (frames int) {
	t.Helper()
	for end := time.Now().Add(floodTime); time.Now().Before(end); frames++ {
		if err := send(h.frame(frames)); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	return frames
}

// A hostile guest costs its own process a bounded memory, and others nothing but the time that its cgroup lets it have.
func TestFloodOfAGuestIsItsOwn(t *testing.T) {
	only80 := map[string]string{policy.AnnotationEgressAllow: netlab.Node4 + ":80, 198.51.100.7:80, api.example.org"}
	here := func(c *vnet.Config) { c.Nameservers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")} }
	c, other := start(t, only80, here), start(t, only80, here)
	echo := func(conn net.Conn) { io.Copy(conn, conn) }
	for _, p := range []*child{c, other} {
		p.report()
		p.Listen(p.Node, netlab.At(netlab.Node4, 80), echo)
	}
	before := memory(t, c.cmd.Process.Pid)

	var raw *os.File
	c.Guest.In(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		raw = os.NewFile(uintptr(fd), "eth0")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: c.Guest.Link("eth0").Attrs().Index})
	})
	defer raw.Close()
	stop := make(chan struct{})
	var neighbour sync.WaitGroup
	rounds := 0
	neighbour.Go(func() {
		conn, err := other.Dial(other.Guest, "tcp", netlab.At(netlab.Node4, 80))
		if err != nil {
			t.Error(err)
			return
		}
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = conn.SetDeadline(time.Now().Add(netlab.Patience))
			_, err := conn.Write([]byte("x"))
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			if err != nil {
				t.Errorf("another pod, after %d rounds: %v", rounds, err)
				return
			}
			rounds++
		}
	})
	self := vnettest.Host{MAC: packet.MAC(c.MAC), Addr: netip.MustParseAddr(netlab.Guest4)}
	router := vnettest.Host{MAC: packet.MAC(c.Node.Link("veth0").Attrs().HardwareAddr), Addr: netip.MustParseAddr(netlab.Node4)}
	sent := flood(t, newHostile(t, self, router), func(frame []byte) error {
		_, err := raw.Write(frame)
		if errors.Is(err, unix.EINVAL) {
			return nil // the guest's own kernel wants a header
		}
		return err
	})
	close(stop)
	neighbour.Wait()
	conn, err := c.Dial(c.Guest, "tcp", netlab.At(netlab.Node4, 80))
	if err != nil {
		t.Fatalf("after the flood: %v: %s", err, c.stderr.String())
	}
	conn.Close()
	grown := memory(t, c.cmd.Process.Pid) - before
	netlab.Must(t, c.stdin.Close())
	r := c.report()
	for c.reports.Scan() {
	}
	t.Logf("%d frames, %d MiB more than %d, %d rounds of another pod; %+v", sent, grown, before, rounds, r.Links[0].FromGuest)
	if grown > floodMemory {
		t.Errorf("%d MiB more than the %d before", grown, before)
	}
	if rounds == 0 {
		t.Error("nothing passed for another pod")
	}
}

// At a gateway each frame that passes may cost a socket of the host. The guest reads nothing of what comes back, or all.
func TestFloodAtAGatewayIsBounded(t *testing.T) {
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads %t", reads), func(t *testing.T) {
			guest, theirs := pair(t)
			config := &gateway.Config{}
			c := prepare(t, nil, func(c *vnet.Config) {
				c.Links, c.Gateway, c.Nameservers = nil, config, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
			})
			c.cmd.ExtraFiles = []*os.File{theirs}
			c.run()
			theirs.Close()
			c.report()
			// Everything is here, and takes connections.
			c.Pod.Pod.Addr("lo", "198.51.100.7/32")
			c.Listen(c.Pod.Pod, "198.51.100.7:80", func(conn net.Conn) { io.Copy(conn, conn) })
			before := memory(t, c.cmd.Process.Pid)
			if reads {
				go io.Copy(io.Discard, guest)
			}
			self := vnettest.Host{MAC: gateway.GuestMAC, Addr: config.Guest().Addr()}
			router := vnettest.Host{MAC: gateway.MAC, Addr: config.Address().Addr()}
			sent := flood(t, newHostile(t, self, router), func(frame []byte) error {
				netlab.Must(t, guest.SetWriteDeadline(time.Now().Add(netlab.Patience)))
				_, err := guest.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
				if errors.Is(err, os.ErrDeadlineExceeded) && !reads {
					time.Sleep(floodTime) // it waits for a guest that does not read, and nobody else
					return nil
				}
				return err
			})
			grown := memory(t, c.cmd.Process.Pid) - before
			files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
			netlab.Must(t, err)
			r := c.report()
			t.Logf("%d frames, %d MiB more than %d, %d descriptors; %+v", sent, grown, before, len(files), r.Links[0].FromGuest)
			if grown > floodMemory || len(files) > 1024 {
				t.Errorf("%d MiB more, %d descriptors", grown, len(files))
			}
			netlab.Must(t, c.stdin.Close())
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("it ended with %v: %s", err, c.stderr.String())
			}
		})
	}
}
