package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
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

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/netlab"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
	"krun.dev/krunpod/vnet/packet"
	"krun.dev/krunpod/vnet/policy"
	"krun.dev/krunpod/vnet/vnettest"
)

// The test binary is the process too.
const childEnv = "KRUNPOD_VNET_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Args = os.Args[:1]
		main()
		return
	}
	os.Exit(m.Run())
}

// child is a process that carries the frames of a lab's pod.
type child struct {
	*netlab.Pod
	config  vnet.Config
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports *bufio.Scanner
	stderr  strings.Builder
}

// start runs the process as the sandbox does.
func start(t *testing.T, annotations map[string]string, change ...func(*vnet.Config)) *child {
	t.Helper()
	c := prepare(t, annotations, change...)
	c.run()
	return c
}

// prepare makes a lab and the process for it, which does not run yet.
func prepare(t *testing.T, annotations map[string]string, change ...func(*vnet.Config)) *child {
	t.Helper()
	c := &child{Pod: netlab.NewPod(t)}
	c.Silence("eth0", "")
	c.Silence("krun0", "")
	config := vnet.Config{
		Links: []vnet.Link{{Guest: "krun0", Network: "eth0", MAC: c.MAC.String(),
			Addresses: []netip.Addr{netip.MustParseAddr(netlab.Guest4), netip.MustParseAddr(netlab.Guest6)}}},
		Policy: annotations, Root: t.TempDir(),
	}
	for _, f := range change {
		f(&config)
	}
	c.config = config
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = []string{childEnv + "=1"}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	return c
}

func (c *child) run() {
	c.Helper()
	var err error
	c.stdin, err = c.cmd.StdinPipe()
	netlab.Must(c, err)
	stdout, err := c.cmd.StdoutPipe()
	netlab.Must(c, err)
	c.Pod.Pod.In(c.cmd.Start)
	c.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	netlab.Must(c, json.NewEncoder(c.stdin).Encode(c.config))
	c.reports = bufio.NewScanner(stdout)
}

// report is the next one.
func (c *child) report() (r vnet.Report) {
	c.Helper()
	if !c.reports.Scan() {
		c.Fatalf("no report: %v, %v: %s", c.reports.Err(), c.cmd.Wait(), c.stderr.String())
	}
	netlab.Must(c, json.Unmarshal(c.reports.Bytes(), &r))
	return r
}

func TestCarriesWhatThePolicyAllows(t *testing.T) {
	c := start(t, map[string]string{policy.AnnotationEgressAllow: netlab.Node4 + ":80"})
	if r := c.report(); len(r.Links) != 1 || r.Links[0].Interface != "eth0" {
		t.Fatalf("%+v", r)
	}
	c.Listen(c.Node, netlab.At(netlab.Node4, 80), func(conn net.Conn) { io.WriteString(conn, "hello") })
	c.Listen(c.Node, netlab.At(netlab.Node4, 81), func(net.Conn) {})
	conn, err := c.Dial(c.Guest, "tcp", netlab.At(netlab.Node4, 80))
	netlab.Must(t, err)
	if text, err := io.ReadAll(conn); string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := c.Dial(c.Guest, "tcp", netlab.At(netlab.Node4, 81)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that is not allowed: %v", err)
	}
	// Its last report is complete.
	netlab.Must(t, c.stdin.Close())
	var last vnet.Report
	for c.reports.Scan() {
		netlab.Must(t, json.Unmarshal(c.reports.Bytes(), &last))
	}
	if err := c.cmd.Wait(); err != nil || c.stderr.Len() > 0 {
		t.Errorf("it ended with %v: %s", err, c.stderr.String())
	}
	if n := last.Links[0].FromGuest; n.Dropped["refused"] != 1 || n.Passed == 0 {
		t.Errorf("the last report is %+v", last)
	}
	if _, err := c.Dial(c.Guest, "tcp", netlab.At(netlab.Node4, 80)); err == nil {
		t.Error("frames pass without the process")
	}
}

func TestPortThatIsTakenIsNamed(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	netlab.Must(t, err)
	guest, theirs := os.NewFile(uintptr(fds[0]), "nic"), os.NewFile(uintptr(fds[1]), "nic")
	defer guest.Close()
	defer theirs.Close()
	c := prepare(t, nil, func(c *vnet.Config) {
		forwards, err := gateway.ParseForwards("8080:80")
		netlab.Must(t, err)
		c.Links, c.Gateway = nil, &gateway.Config{Forwards: forwards}
	})
	c.Listen(c.Pod.Pod, "127.0.0.1:8080", func(net.Conn) {})
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.run()
	if err := c.cmd.Wait(); err == nil || strings.Count(c.stderr.String(), "\n") != 1 ||
		!strings.Contains(c.stderr.String(), "127.0.0.1:8080: bind: address already in use") {
		t.Errorf("it ended with %v: %s", err, c.stderr.String())
	}
}

// pair is the NIC of a guest at a gateway: its end, and what is the process's descriptor vnet.GuestFile.
func pair(t *testing.T) (guest net.Conn, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	netlab.Must(t, err)
	own := os.NewFile(uintptr(fds[0]), "nic")
	defer own.Close()
	guest, err = net.FileConn(own)
	netlab.Must(t, err)
	t.Cleanup(func() { guest.Close() })
	netlab.Must(t, guest.SetDeadline(time.Now().Add(netlab.Patience)))
	return guest, os.NewFile(uintptr(fds[1]), "nic")
}

// At a gateway it connects, accepts and takes datagrams in its jail, for a guest that is the other end of a socket.
func TestServesAGatewayInItsJail(t *testing.T) {
	guest, theirs := pair(t)
	config := &gateway.Config{}
	c := prepare(t, nil, func(c *vnet.Config) {
		c.Links, c.Gateway = nil, config
		var err error
		config.Forwards, err = gateway.ParseForwards("8080:80,5353:53/udp")
		netlab.Must(t, err)
	})
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.run()
	theirs.Close()
	if r := c.report(); len(r.Links) != 1 || r.Links[0].Interface != "gateway" {
		t.Fatalf("%+v", r)
	}

	self := vnettest.Host{MAC: gateway.GuestMAC, Addr: config.Guest().Addr()}
	router := vnettest.Host{MAC: gateway.MAC, Addr: config.Address().Addr()}
	frames := func(wanted string, has func(p *packet.Packet) bool) {
		t.Helper()
		for {
			var length [4]byte
			_, err := io.ReadFull(guest, length[:])
			if err != nil {
				t.Fatalf("no %s: %v: %s", wanted, err, c.stderr.String())
			}
			frame := make([]byte, binary.BigEndian.Uint32(length[:]))
			_, err = io.ReadFull(guest, frame)
			netlab.Must(t, err)
			var p packet.Packet
			if packet.Parse(frame, &p) != packet.WellFormed {
				t.Fatalf("a malformed frame %x", frame)
			}
			if has(&p) {
				return
			}
		}
	}
	send := func(frame []byte) {
		t.Helper()
		_, err := guest.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
		netlab.Must(t, err)
	}
	known := func(p *packet.Packet) bool { // and tell it where the guest is
		if p.Kind == packet.KindARP && p.To == self.Addr {
			send(vnettest.ARP(t, self.MAC, 2, self, router))
		}
		return false
	}

	conn, err := c.Dial(c.Pod.Pod, "tcp", "127.0.0.1:8080")
	netlab.Must(t, err)
	defer conn.Close()
	frames("connection from the forwarded port", func(p *packet.Packet) bool {
		return known(p) || p.Protocol == packet.TCPProtocol && p.TCP.Has(packet.SYN) && p.ToPort == 80
	})
	datagram, err := c.Dial(c.Pod.Pod, "udp", "127.0.0.1:5353")
	netlab.Must(t, err)
	defer datagram.Close()
	_, err = io.WriteString(datagram, "x")
	netlab.Must(t, err)
	frames("datagram from the forwarded port", func(p *packet.Packet) bool {
		return known(p) || p.Protocol == packet.UDPProtocol && p.ToPort == 53
	})
	// Outwards: to the lab's node, which answers.
	node := vnettest.Host{MAC: gateway.MAC, Addr: netip.MustParseAddr(netlab.Guest4)}
	c.Listen(c.Pod.Pod, netlab.At(netlab.Guest4, 80), func(net.Conn) {})
	send(vnettest.IP(t, self, node, vnettest.TCP(4000, 80, "S")))
	frames("answer of a server outside", func(p *packet.Packet) bool {
		return known(p) || p.Protocol == packet.TCPProtocol && p.TCP.Has(packet.SYN|packet.ACK) && p.FromPort == 80
	})
	netlab.Must(t, c.stdin.Close())
	if err := c.cmd.Wait(); err != nil || c.stderr.Len() > 0 {
		t.Errorf("it ended with %v: %s", err, c.stderr.String())
	}
}

// Once it carries frames it has nothing: what proc(5) says of each of its threads.
func TestHasNoRights(t *testing.T) {
	nameserver := func(c *vnet.Config) {
		c.Nameservers = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(netlab.Node4), 53)}
	}
	for name, begin := range map[string]func(*testing.T) *child{
		"without a policy": func(t *testing.T) *child { return start(t, nil, nameserver) },
		"with names": func(t *testing.T) *child {
			return start(t, map[string]string{policy.AnnotationEgressAllow: "api.example.org:443"}, nameserver)
		},
		"at a gateway": func(t *testing.T) *child {
			_, theirs := pair(t)
			defer theirs.Close()
			c := prepare(t, nil, nameserver, func(c *vnet.Config) { c.Links, c.Gateway = nil, &gateway.Config{} })
			c.cmd.ExtraFiles = []*os.File{theirs}
			c.run()
			return c
		},
	} {
		t.Run(name, func(t *testing.T) { begin(t).hasNoRights() })
	}
}

func (c *child) hasNoRights() {
	c.Helper()
	c.report()
	dir := fmt.Sprintf("/proc/%d/", c.cmd.Process.Pid)
	threads, err := os.ReadDir(dir + "task")
	netlab.Must(c, err)
	for _, thread := range threads {
		status, err := os.ReadFile(dir + "task/" + thread.Name() + "/status")
		netlab.Must(c, err)
		for _, line := range []string{
			"\nUid:\t65534\t65534\t65534\t65534\n", "\nGid:\t65534\t65534\t65534\t65534\n", "\nGroups:\t \n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n",
			"\nCapInh:\t0000000000000000\n", "\nCapPrm:\t0000000000000000\n", "\nCapEff:\t0000000000000000\n", "\nCapAmb:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n",
		} {
			if !strings.Contains(string(status), line) {
				c.Errorf("thread %s has not %q: %s", thread.Name(), line, status)
			}
		}
	}
	entries, err := os.ReadDir(dir + "root")
	if err != nil || len(entries) != 1 || entries[0].Name() != "proc" {
		c.Errorf("its root holds %v, %v", entries, err)
	}
	mounts, err := os.ReadFile(dir + "mounts")
	if err != nil || strings.Count(string(mounts), "\n") != 2 || !strings.Contains(string(mounts), " / tmpfs ro,") {
		c.Errorf("its mounts are %s, %v", mounts, err)
	}
}

// The nameserver is asked from the pod's own stack, in the jail.
func TestResolvesNamesInItsJail(t *testing.T) {
	c := start(t, map[string]string{policy.AnnotationEgressAllow: "api.example.org:443"}, func(c *vnet.Config) {
		// The lab's stack hears nothing of the node (package netbridge lets it), so the nameserver is the pod's own.
		c.Nameservers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	})
	c.report()
	asked := make(chan struct{}, 1)
	c.Pod.Pod.In(func() error {
		udp, err := net.ListenPacket("udp", "127.0.0.1:53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { udp.Close() })
		go func() {
			buf := make([]byte, 2000)
			if _, _, err := udp.ReadFrom(buf); err == nil {
				asked <- struct{}{}
			}
		}()
		return nil
	})
	conn, err := c.Dial(c.Guest, "udp", netlab.At(netlab.Node4, 53))
	netlab.Must(t, err)
	// A query for the addresses of a name, and of another (RFC 1035, section 4.1).
	query := func(name string) []byte {
		q := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
		for _, label := range strings.Split(name, ".") {
			q = append(append(q, byte(len(label))), label...)
		}
		return append(q, 0, 0, 1, 0, 1)
	}
	_, err = conn.Write(query("evil.example.org"))
	netlab.Must(t, err)
	answer := make([]byte, 2000)
	n, err := conn.Read(answer)
	netlab.Must(t, err)
	const nameError = 3
	if n < 12 || answer[3]&0xf != nameError {
		t.Errorf("the answer about another name is %x", answer[:n])
	}
	_, err = conn.Write(query("api.example.org"))
	netlab.Must(t, err)
	select {
	case <-asked:
	case <-time.After(netlab.Patience):
		t.Errorf("the nameserver was not asked: %s", c.stderr.String())
	}
}

// A sandbox that hangs and reads nothing must not keep it alive.
func TestEndsThoughNobodyReads(t *testing.T) {
	c := start(t, nil)
	c.report()
	fill(t, fmt.Sprintf("/proc/%d/fd/1", c.cmd.Process.Pid))
	netlab.Must(t, c.stdin.Close())
	ended := make(chan struct{})
	go func() {
		_, _ = c.cmd.Process.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(netlab.Patience):
		t.Error("it waits for its last report to be read")
	}
}

// fill writes to a pipe until it is full.
func fill(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	netlab.Must(t, err)
	defer unix.Close(fd)
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
}

func TestBadConfigurationNamesTheField(t *testing.T) {
	for field, change := range map[string]func(*vnet.Config){
		"links":        func(c *vnet.Config) { c.Links = nil },
		"links[0].mac": func(c *vnet.Config) { c.Links[0].MAC = "x" },
		"links[0]":     func(c *vnet.Config) { c.Links[0].Guest = "eth0" },
		"root":         func(c *vnet.Config) { c.Root = "relative" },
		"krun.dev/egress-allow": func(c *vnet.Config) {
			c.Policy = map[string]string{policy.AnnotationEgressAllow: "api.example.org:443:x"}
		},
		"nameservers": func(c *vnet.Config) { c.Nameservers = []netip.AddrPort{{}} },
		"nameservers: there are none": func(c *vnet.Config) {
			c.Policy = map[string]string{policy.AnnotationEgressAllow: "api.example.org:443"}
		},
	} {
		c := start(t, nil, change)
		if c.reports.Scan() {
			t.Errorf("%s: it runs", field)
		}
		_ = c.cmd.Wait()
		if !strings.Contains(c.stderr.String(), field) {
			t.Errorf("%s: %q", field, c.stderr.String())
		}
	}
}
