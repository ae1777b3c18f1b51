package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/policy"
)

// annotated gives a pod an annotation.
func annotated(key, value string) func(*runtime.PodSandboxConfig) {
	return func(c *runtime.PodSandboxConfig) {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[key] = value
	}
}

// eachWay runs a test of the network once with each way from the CNI's interfaces to the guest.
func eachWay(t *testing.T, f func(*node, func(*runtime.PodSandboxConfig))) {
	for _, way := range []string{"tap", "vnet"} {
		t.Run(way, func(t *testing.T) { f(newNode(t), annotated("krun.dev/network", way)) })
	}
}

// Of the world beyond the pod's network: addresses of documentation (RFC 5737), which the node has for the time of a test.
const (
	worldDNS  = "192.0.2.53"
	worldHost = "192.0.2.80"
	worldName = "api.krunpod.test."
)

// world gives the node the addresses of the world, with a nameserver that knows one name, and with web servers at ports.
func (n *node) world(ports ...int) {
	n.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		n.Fatal(err)
	}
	for _, text := range []string{worldDNS, worldHost} {
		addr, err := netlink.ParseAddr(text + "/32")
		if err != nil {
			n.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			n.Fatal(err)
		}
		n.Cleanup(func() {
			if err := netlink.AddrDel(lo, addr); err != nil {
				n.Error(err)
			}
		})
	}
	conn, err := net.ListenPacket("udp", worldDNS+":53")
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { conn.Close() })
	go serveName(conn)
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort(worldHost, strconv.Itoa(port)))
		if err != nil {
			n.Fatal(err)
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "from-the-world") })}
		n.Cleanup(func() { s.Close() })
		go s.Serve(l)
	}
}

// serveName answers for every name with worldHost: what the pod may not know, its resolver must not ask for.
func serveName(conn net.PacketConn) {
	buf := make([]byte, 2000)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(buf[:size]) != nil || len(q.Questions) != 1 {
			continue
		}
		a := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
		if q.Questions[0].Type == dnsmessage.TypeA {
			a.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 300},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(worldHost).To4())},
			}}
		}
		if data, err := a.Pack(); err == nil {
			_, _ = conn.WriteTo(data, from)
		}
	}
}

// vnetOf is the process that carries a pod's frames.
func (n *node) vnetOf(id string) int {
	n.Helper()
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", id))
	if err != nil {
		n.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(cgroupRoot, st.Cgroup, "cgroup.procs"))
	if err != nil {
		n.Fatal(err)
	}
	for _, text := range strings.Fields(string(list)) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			n.Fatal(err)
		}
		if command, err := testpod.ReadCommand(pid); err == nil && strings.HasSuffix(command, "krun-vnet") {
			return pid
		}
	}
	n.Fatalf("no krun-vnet in the pod's cgroup %s: processes %q", st.Cgroup, list)
	return 0
}

// traffic is what krunctl net says of a pod once it has what the test waits for.
func (n *node) traffic(p *testpod.Pod, has func(*vnet.Report) bool) {
	n.Helper()
	var r vnet.Report
	err := testpod.Poll(n.ctx, "report of the vnet", func() (bool, error) {
		out, err := exec.Command("krunctl", "net", "-o", "json", "krunpod-test/"+p.Config.Metadata.Name).CombinedOutput()
		if err != nil {
			return false, fmt.Errorf("%w: %s", err, out)
		}
		r = vnet.Report{}
		return has(&r) || (json.Unmarshal(out, &r) == nil && has(&r)), nil
	})
	if err != nil {
		n.Errorf("%v: the last one is %+v", err, r)
	}
}

func TestEgressByName(t *testing.T) {
	for _, h := range []string{handler, "krun-podsandbox"} {
		t.Run(h, func(t *testing.T) { testEgressByName(newNode(t), h) })
	}
}

func testEgressByName(n *node, handler string) {
	n.world(8081, 8082)
	p := n.podOf(handler, annotated(policy.AnnotationEgressAllow, "api.krunpod.test:8081"), func(c *runtime.PodSandboxConfig) {
		c.DnsConfig = &runtime.DNSConfig{Servers: []string{worldDNS}}
	})
	w := worldSeen{n, n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))}
	w.refused("8081", "an address that no name has opened")
	if out := n.exec(w.Container, "nslookup api.krunpod.test"); !strings.Contains(out, worldHost) {
		n.Errorf("the name is %q", out)
	}
	w.reached("8081", "the name's address")
	w.refused("8082", "another port of the name's address")
	out, _, exit, err := w.Exec(n.ctx, "nslookup evil.krunpod.test")
	if err != nil || exit == 0 || !strings.Contains(out, "NXDOMAIN") {
		n.Errorf("another name: exit %d, %v: %q", exit, err, out)
	}
	n.traffic(p, func(r *vnet.Report) bool {
		return len(r.Links) == 1 && r.Links[0].FromGuest.Dropped["refused"] >= 2 && r.OpenAddresses == 1 &&
			(r.RefusedNames["evil.krunpod.test."] > 0 || r.RefusedNames["evil.krunpod.test"] > 0)
	})
	text, err := exec.Command("krunctl", "net", p.ID).Output()
	if err != nil || !strings.Contains(string(text), "evil.krunpod.test") || !strings.Contains(string(text), "api.krunpod.test:8081") {
		n.Errorf("krunctl net: %v: %s", err, text)
	}
}

// worldSeen is the world as a container sees it.
type worldSeen struct {
	n *node
	*testpod.Container
}

// fetch gets what the world serves at a port; it knows at once when it cannot.
func (w worldSeen) fetch(port string) (string, error) {
	w.n.Helper()
	began := time.Now()
	out, errs, exit, err := w.Exec(w.n.ctx, "wget -q -O - http://"+net.JoinHostPort(worldHost, port)+"/")
	if err != nil {
		w.n.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		w.n.Errorf("port %s: the answer took %v", port, took)
	}
	if exit != 0 {
		return "", fmt.Errorf("exit %d: %s", exit, errs)
	}
	return out, nil
}

func (w worldSeen) reached(port, why string) {
	w.n.Helper()
	if out, err := w.fetch(port); out != "from-the-world\n" {
		w.n.Errorf("%s: %q, %v", why, out, err)
	}
}

func (w worldSeen) refused(port, why string) {
	w.n.Helper()
	if out, err := w.fetch(port); err == nil || !strings.Contains(err.Error(), "Connection refused") {
		w.n.Errorf("%s: %q, %v", why, out, err)
	}
}

// What enforces a NetworkPolicy has rules at the node's end of the veth: they hold outside of the vnet, whatever that lets pass.
func TestRulesOfTheNodeHoldBesideAPolicy(t *testing.T) {
	n := newNode(t)
	n.world(8081, 8082, 8083)
	p := n.pod(annotated(policy.AnnotationEgressAllow, worldHost+":8081, "+worldHost+":8082"))
	w := worldSeen{n, n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))}
	w.reached("8082", "what both allow")
	rule := []string{"INPUT", "-s", n.addresses(p)[0], "-d", worldHost, "-p", "tcp", "--dport", "8082", "-j", "REJECT", "--reject-with", "tcp-reset"}
	iptables := func(do string) {
		if out, err := exec.Command("iptables", append([]string{"-w", do}, rule...)...).CombinedOutput(); err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	}
	iptables("-I")
	t.Cleanup(func() { iptables("-D") })
	w.reached("8081", "what both allow, beside a rule of the node")
	w.refused("8082", "what the node's rule refuses")
	n.traffic(p, func(r *vnet.Report) bool { return len(r.Links) == 1 && r.Links[0].FromGuest.Dropped["refused"] == 0 })
	w.refused("8083", "what the pod's policy refuses")
	n.traffic(p, func(r *vnet.Report) bool { return len(r.Links) == 1 && r.Links[0].FromGuest.Dropped["refused"] > 0 })
}

// vnetHandler has a configuration of its own: hack/containerd/krun-vnet.
const vnetHandler = "krun-vnet"

// A RuntimeClass whose handler has a configuration of its own has the vnet, and nothing else.
func TestRuntimeClassWithTheVNet(t *testing.T) {
	n := newNode(t)
	p := n.podOf(vnetHandler)
	n.vnetOf(p.ID)
	n.refusedOf(vnetHandler, annotated("krun.dev/network", "tap"), `"tap"`, "network.allow")
}

func TestGuestSpeaksAsItselfAlone(t *testing.T) {
	n := newNode(t)
	p := n.pod(annotated("krun.dev/network", "vnet"))
	config := testpod.ContainerConfig("main", "exec sleep 1000")
	config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
		Capabilities: &runtime.Capability{AddCapabilities: []string{"NET_ADMIN", "NET_RAW"}},
	}}
	k := n.container(p, config)
	const ping = "ping -c 1 -W 3 $(ip route | awk '/^default/ {print $3}')"
	n.exec(k, ping)
	n.exec(k, "ip addr add "+worldHost+"/32 dev eth0")
	if out, _, exit, err := k.Exec(n.ctx, strings.Replace(ping, "ping ", "ping -I "+worldHost+" ", 1)); err != nil || exit == 0 {
		n.Errorf("a ping from an address that is not the guest's: exit %d, %v: %s", exit, err, out)
	}
	n.exec(k, "ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:99 && ip link set eth0 up")
	_, _, _, err := k.Exec(n.ctx, "ping -c 1 -W 3 -I eth0 10.89.1.1")
	if err != nil {
		t.Fatal(err)
	}
	n.traffic(p, func(r *vnet.Report) bool {
		return len(r.Links) == 1 && r.Links[0].FromGuest.Dropped["spoofed address"] > 0 && r.Links[0].FromGuest.Dropped["spoofed hardware address"] > 0
	})
}

// With the process that carries its frames a pod's network ends, and so does the pod: nothing passes without it.
func TestEndOfTheVNetIsTheEndOfThePod(t *testing.T) {
	n := newNode(t)
	p := n.pod(annotated("krun.dev/network", "vnet"))
	pid := n.vnetOf(p.ID)
	for field, want := range map[string]string{"Uid": "65534\t65534\t65534\t65534", "CapEff": "0000000000000000", "CapBnd": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2"} {
		if got, err := testpod.StatusField(pid, field); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", field, got, want, err)
		}
	}
	if score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err != nil || strings.TrimSpace(string(score)) != "0" {
		t.Errorf("oom_score_adj is %s, %v", score, err)
	}
	// Before the VM's threads, which are in the same cgroup: the system call returns 20 - nice.
	for process, want := range map[int]int{pid: 30, runnerOf(t, p.ID): 20} {
		if got, err := unix.Getpriority(unix.PRIO_PROCESS, process); err != nil || got != want {
			t.Errorf("priority of process %d is %d, want %d (%v)", process, got, want, err)
		}
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := testpod.Poll(n.ctx, "end of the pod", func() (bool, error) {
		r, err := n.cri.Runtime.PodSandboxStatus(n.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
		return r.GetStatus().GetState() == runtime.PodSandboxState_SANDBOX_NOTREADY, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID)); err == nil && st.End != sandbox.EndNetwork {
		t.Errorf("it ended as %q", st.End)
	} else if err != nil {
		t.Error(err)
	}
}

func TestMistakeInAPolicyIsNamed(t *testing.T) {
	newNode(t).refused(annotated(policy.AnnotationRules, "allow egress tcp 10.0.0.0/8 80-70"), policy.AnnotationRules, "80-70")
}

func TestMissingVNetIsNamed(t *testing.T) {
	n := newNode(t)
	dropIn(t, "vnet = \"/nonexistent/krun-vnet\"\n")
	n.refused(annotated("krun.dev/network", "vnet"), "/nonexistent/krun-vnet")
}
