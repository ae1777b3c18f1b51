package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// Handlers of the node on other CNI networks: hack/containerd/config.toml.
const (
	ipv6Handler = "krun-ipv6"
	twoHandler  = "krun-two"
)

// web serves its name on port 8080 of every address.
func web(name string) *runtime.ContainerConfig {
	return testpod.ContainerConfig(name,
		fmt.Sprintf("mkdir -p /www && echo from-%s > /www/index.html && exec httpd -f -p '[::]:8080' -h /www", name))
}

// fetch gets what web serves at an address, as soon as it serves.
func (n *node) fetch(k *testpod.Container, address string) string {
	n.Helper()
	url := "http://" + net.JoinHostPort(address, "8080") + "/"
	return n.exec(k, "for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - '"+url+"' && exit 0; sleep 1; done; exit 1")
}

// addresses are all that CRI knows of a pod.
func (n *node) addresses(p *testpod.Pod) []string {
	n.Helper()
	r, err := n.cri.Runtime.PodSandboxStatus(n.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		n.Fatal(err)
	}
	network := r.GetStatus().GetNetwork()
	list := []string{network.GetIp()}
	for _, ip := range network.GetAdditionalIps() {
		list = append(list, ip.GetIp())
	}
	return list
}

func TestTwoPodsTalkOverTheCNINetwork(t *testing.T) { eachWay(t, testTwoPodsTalkOverTheCNINetwork) }

func testTwoPodsTalkOverTheCNINetwork(n *node, way func(*runtime.PodSandboxConfig)) {
	a, b := n.pod(way), n.pod(way)
	ka, kb := n.container(a, web("a")), n.container(b, web("b"))
	for _, ip := range n.addresses(b) {
		if got := n.fetch(ka, ip); got != "from-b\n" {
			n.Errorf("a gets %q from %s", got, ip)
		}
	}
	for _, ip := range n.addresses(a) {
		if got := n.fetch(kb, ip); got != "from-a\n" {
			n.Errorf("b gets %q from %s", got, ip)
		}
	}
}

func TestPodOnANetworkWithIPv6Alone(t *testing.T) { eachWay(t, testPodOnANetworkWithIPv6Alone) }

func testPodOnANetworkWithIPv6Alone(n *node, way func(*runtime.PodSandboxConfig)) {
	p := n.podOf(ipv6Handler, way)
	k := n.container(p, web("six"))
	list := n.addresses(p)
	if ip := net.ParseIP(list[0]); len(list) != 1 || ip == nil || ip.To4() != nil {
		n.Fatalf("the pod's addresses are %v", list)
	}
	n.fetch(k, "::1")
	if v4 := n.exec(k, "ip -4 -o addr show scope global; ip -4 route"); v4 != "" {
		n.Errorf("the pod has IPv4: %q", v4)
	}
	if got := n.exec(k, "ping -6 -c 1 -W 10 $(ip -6 route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')"); !strings.Contains(got, " 0% packet loss") {
		n.Errorf("ping to the gateway: %q", got)
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(list[0], "8080"), patience)
	if err != nil {
		n.Fatalf("the node does not reach the pod: %v", err)
	}
	conn.Close()
}

func TestPodOnTwoCNINetworks(t *testing.T) { eachWay(t, testPodOnTwoCNINetworks) }

func testPodOnTwoCNINetworks(n *node, way func(*runtime.PodSandboxConfig)) {
	p, other := n.podOf(twoHandler, way), n.podOf(twoHandler, way)
	k, serves := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000")), n.container(other, web("other"))
	n.fetch(serves, "127.0.0.1")
	// Names of the interfaces, their order and the second one's MTU are the CNI's.
	links := strings.Fields(n.exec(k, "cat /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu; ls /sys/class/net | grep -c eth"))
	if len(links) != 3 || links[1] != "1400" || links[2] != "2" {
		n.Errorf("MTU of eth0 and eth1, number of interfaces: %v", links)
	}
	for _, dev := range []string{"eth0", "eth1"} {
		ip := strings.TrimSpace(n.exec(serves, "ip -4 -o addr show dev "+dev+" | sed 's/.* inet \\([^/]*\\).*/\\1/'"))
		if got := n.fetch(k, ip); got != "from-other\n" {
			n.Errorf("over %s, to %s: %q", dev, ip, got)
		}
	}
}

// offloads are virtio-net's bits (VIRTIO 1.2, 5.1.3) for checksums and segmentation in both directions, and ethtool's names for
// what the tap is told.
var offloads = map[string]int{"CSUM": 0, "GUEST_CSUM": 1, "GUEST_TSO4": 7, "GUEST_TSO6": 8, "HOST_TSO4": 11, "HOST_TSO6": 12}

// TestOffloadsAreInUse: without them everything works, at a tenth of the speed.
func TestOffloadsAreInUse(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	features := strings.TrimSpace(n.exec(k, "cat /sys/class/net/eth0/device/features")) // a character for each bit, from 0 on
	for name, bit := range offloads {
		if len(features) <= bit || features[bit] != '1' {
			t.Errorf("the guest's NIC does not have %s, bit %d of %s", name, bit, features)
		}
	}
	// And without this a guest on a slow node stays in frames of two segments (agent/guest, whereKnown).
	if got := strings.TrimSpace(n.exec(k, "cat /proc/sys/net/ipv4/tcp_tso_rtt_log")); got != "12" {
		t.Errorf("tcp_tso_rtt_log is %s", got)
	}
	var out []byte
	if err := n.inNetNS(p, func() (err error) {
		out, err = exec.Command("ethtool", "-k", "krun0").CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"tx-checksumming", "tx-tcp-segmentation", "tx-tcp6-segmentation"} {
		if !strings.Contains(string(out), name+": on") {
			t.Errorf("the tap does not hand on frames with %s:\n%s", name, out)
		}
	}
}
