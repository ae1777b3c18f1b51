package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// inventory counts what the node has.
func (n *node) inventory() testpod.Inventory {
	n.Helper()
	inv, err := testpod.TakeInventory()
	if err != nil {
		n.Fatal(err)
	}
	return inv
}

// TestInventoryHasAllOfARunningPod: what the inventory does not see of a pod that runs, it would not miss of one that stayed.
func TestInventoryHasAllOfARunningPod(t *testing.T) {
	n := newNode(t)
	before := n.inventory()
	p := n.pod(func(c *runtime.PodSandboxConfig) {
		c.Annotations = map[string]string{"krun.dev/egress-allow": "192.0.2.1:80"} // for a krun-vnet
	})
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	ip, err := p.IP(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		t.Fatal(err)
	}
	has := n.inventory().Since(before)
	for what, is := range map[string]func(line string) bool{
		"the shim":          func(l string) bool { return l == fmt.Sprintf("process %d containerd-shim-krun-v2", st.Shim) },
		"the VM":            func(l string) bool { return l == fmt.Sprintf("process %d krun-runner", st.Runner.PID) },
		"its krun-vnet":     func(l string) bool { return strings.HasSuffix(l, " krun-vnet") },
		"the shim's socket": func(l string) bool { return strings.HasPrefix(l, "file /run/containerd/s/") },
		"the sandbox's directory": func(l string) bool {
			return l == "file "+sandbox.Dir("/run/krunpod", "k8s.io", p.ID)
		},
		"containerd's bundle of the sandbox":   func(l string) bool { return strings.HasPrefix(l, "file ") && strings.HasSuffix(l, "/k8s.io/"+p.ID) },
		"containerd's bundle of the container": func(l string) bool { return strings.HasPrefix(l, "file ") && strings.HasSuffix(l, "/k8s.io/"+k.ID) },
		"CNI's result": func(l string) bool {
			return strings.HasPrefix(l, "file /var/lib/cni/results/") && strings.Contains(l, p.ID)
		},
		"its address":           func(l string) bool { return strings.HasPrefix(l, "lease ") && filepath.Base(l) == ip },
		"its network namespace": func(l string) bool { return l == "network namespace "+filepath.Base(st.NetNS) },
		"the mount of that": func(l string) bool {
			return strings.HasPrefix(l, "mount ") && strings.HasSuffix(l, filepath.Base(st.NetNS)+" nsfs")
		},
		"the interface on the bridge": func(l string) bool { return strings.HasPrefix(l, "interface veth") },
		"its cgroup":                  func(l string) bool { return l == "cgroup "+filepath.Join(cgroupRoot, st.Cgroup) },
	} {
		if !slices.ContainsFunc(has, is) {
			t.Errorf("the inventory of a node with a pod does not have %s", what)
		}
	}
	if t.Failed() {
		t.Logf("it has\n%s", strings.Join(has, "\n"))
	}
}

// TestInventoryNamesWhatIsPlanted has what no pod shows while it runs: processes on their way, and what lies on the node's
// own interfaces and mounts.
func TestInventoryNamesWhatIsPlanted(t *testing.T) {
	n := newNode(t)
	before := n.inventory()
	want := []string{}

	for _, name := range []string{"krun-runner", "containerd-shim-krun-v2", "krun-vnet"} {
		want = append(want, fmt.Sprintf("process %d %s", n.process(name), name))
	}

	dir := t.TempDir()
	for range 2 {
		if err := unix.Mount("planted", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
	}
	want = append(want, "mount "+dir+" tmpfs (2 of them)")

	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "planted"}, PeerName: "planted-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		t.Fatal(err)
	}
	want = append(want, "interface planted", fmt.Sprintf("qdisc clsact on interface %d", link.Index))

	has := n.inventory().Since(before)
	for _, line := range want {
		if !slices.Contains(has, line) {
			t.Errorf("the inventory does not have %q, but\n%s", line, strings.Join(has, "\n"))
		}
	}
}

// process is one whose command line begins with that name, until the test ends.
func (n *node) process(name string) int {
	n.Helper()
	cmd := exec.Command("cat")
	cmd.Args[0] = filepath.Join("/opt/krunpod/bin", name)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		n.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			n.Error(err)
		}
	})
	return cmd.Process.Pid
}
