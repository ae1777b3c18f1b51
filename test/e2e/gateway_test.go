package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/test/testpod"
)

const (
	ownGateway = "192.168.127.1"
	ownGuest   = "192.168.127.2"
	// forwardAt leads to port 8080 of the guest.
	forwardAt = "127.0.0.1:18080"
)

// alone runs a container without CNI, as ctr run does, with annotations.
func (n *node) alone(name string, annotations map[string]string, opts ...oci.SpecOpts) *ctrTask {
	n.Helper()
	opts = append([]oci.SpecOpts{oci.WithProcessArgs("sleep", "10000"), oci.WithAnnotations(annotations)}, opts...)
	t := n.newContainer(name, opts...)
	t.create(cio.NullIO)
	t.start()
	return t
}

// run runs a shell script in the container, which may fail.
func (t *ctrTask) run(script string) (string, uint32) {
	t.n.Helper()
	ctx, cancel := context.WithTimeout(t.ctx, patience)
	defer cancel()
	out, exit, err := t.tryExec(ctx, "", "sh", "-c", script+" 2>&1")
	if err != nil {
		t.n.Fatalf("%s: %v", script, err)
	}
	return out, exit
}

// The scripts give wget no timeout: the image's crashes with one, whatever it fetched.

func TestContainerWithANetworkOfItsOwn(t *testing.T) {
	n := newNode(t)
	n.world(80)
	c := n.alone("gateway", map[string]string{"krun.dev/network": "vnet", "krun.dev/forward": forwardAt + ":8080"}, hostResolver(t))
	for script, want := range map[string]string{
		"wget -qO- http://" + worldHost + "/":                                  "from-the-world\n",
		"ip -4 -o addr show eth0":                                              ownGuest + "/24",
		"nslookup " + strings.TrimSuffix(worldName, ".") + " " + ownGateway:    worldHost,
		"udhcpc -n -q -f -t 5 -i eth0 -s /bin/true":                            "lease of " + ownGuest + " obtained from " + ownGateway,
		"ping -c 1 -W 10 " + ownGateway:                                        "1 packets received",
		"for i in 1 2 3; do wget -qO- http://" + worldHost + "/; done | wc -l": "3",
	} {
		if out, exit := c.run(script); exit != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d: %s", script, exit, out)
		}
	}
	// Refused at once: a port that nobody serves, the link's metadata service, a neighbour that there is not, the gateway itself.
	for _, target := range []string{worldHost + ":81", "169.254.169.254", "192.168.127.77", ownGateway} {
		began := time.Now()
		if out, exit := c.run("wget -qO- http://" + target + "/"); exit == 0 || !strings.Contains(out, "can't connect") || time.Since(began) > 20*time.Second {
			t.Errorf("%s: exit code %d after %v: %s", target, exit, time.Since(began), out)
		}
	}
	served := make(chan string, 1)
	go func() {
		out, _ := c.run("echo from-the-guest | nc -l -p 8080 -w 30")
		served <- out
	}()
	err := testpod.Poll(n.ctx, "the guest at "+forwardAt, func() (bool, error) {
		conn, err := net.Dial("tcp", forwardAt)
		if err != nil {
			return false, nil // nobody listens in the guest yet
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return false, err
		}
		fmt.Fprintln(conn, "from-the-host")
		text, _ := io.ReadAll(conn)
		return string(text) == "from-the-guest\n", nil
	})
	if err != nil {
		t.Error(err)
	}
	if got := <-served; got != "from-the-host\n" {
		t.Errorf("the guest was told %q", got)
	}
	t.Logf("memory of its krun-vnet:\n%s", n.memoryOf(n.vnetOf("gateway")))
}

func TestPolicyHoldsInANetworkOfItsOwn(t *testing.T) {
	n := newNode(t)
	n.world(80, 81)
	c := n.alone("guarded", map[string]string{"krun.dev/egress-allow": worldHost + ":80"})
	if out, exit := c.run("wget -qO- http://" + worldHost + "/"); exit != 0 || out != "from-the-world\n" {
		t.Errorf("what the policy allows: exit code %d: %s", exit, out)
	}
	for refused, why := range map[string]string{
		"wget -qO- http://" + worldHost + ":81/":   "Connection refused",
		"nslookup " + worldName + " " + ownGateway: "No route to host",
	} {
		if out, exit := c.run(refused); exit == 0 || !strings.Contains(out, why) {
			t.Errorf("%s: exit code %d: %s", refused, exit, out)
		}
	}
	if out, _ := c.run("cat /etc/resolv.conf"); !strings.Contains(out, "nameserver "+ownGateway+"\n") {
		t.Errorf("its nameserver is %s", out)
	}
}

func TestEgressByNameInANetworkOfItsOwn(t *testing.T) {
	n := newNode(t)
	n.world(80, 81)
	name := strings.TrimSuffix(worldName, ".")
	c := n.alone("named", map[string]string{"krun.dev/egress-allow": name + ":80"}, hostResolver(t))
	refused := func(port, why string) {
		t.Helper()
		if out, exit := c.run("wget -qO- http://" + worldHost + ":" + port + "/"); exit == 0 || !strings.Contains(out, "Connection refused") {
			t.Errorf("%s: exit code %d: %s", why, exit, out)
		}
	}
	refused("80", "an address that no name has opened")
	if out, exit := c.run("nslookup " + name + " " + ownGateway); exit != 0 || !strings.Contains(out, worldHost) {
		t.Errorf("the name: exit code %d: %s", exit, out)
	}
	if out, exit := c.run("wget -qO- http://" + worldHost + "/"); exit != 0 || out != "from-the-world\n" {
		t.Errorf("the name's address: exit code %d: %s", exit, out)
	}
	refused("81", "another port of the name's address")
	if out, exit := c.run("nslookup evil.krunpod.test " + ownGateway); exit == 0 || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("another name: exit code %d: %s", exit, out)
	}
}

// hostResolver puts a file in the place of the host's resolv.conf, with the world's nameserver: the container's name comes from there.
func hostResolver(t *testing.T) oci.SpecOpts {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+worldDNS+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return oci.WithMounts([]specs.Mount{{Destination: "/etc/resolv.conf", Type: "bind", Source: resolv, Options: []string{"rbind", "ro"}}})
}

func TestForwardToATakenPortIsNamed(t *testing.T) {
	n := newNode(t)
	l, err := net.Listen("tcp", forwardAt)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := n.newContainer("taken", oci.WithProcessArgs("true"),
		oci.WithAnnotations(map[string]string{"krun.dev/network": "vnet", "krun.dev/forward": forwardAt + ":8080"}))
	if _, err := c.container.NewTask(c.ctx, cio.NullIO); err == nil || !strings.Contains(err.Error(), forwardAt) ||
		!strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v", err)
	}
}

// memoryOf is what smaps_rollup (proc_pid_smaps(5)) says of a process.
func (n *node) memoryOf(pid int) string {
	n.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		n.Fatal(err)
	}
	return string(data)
}
