package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// usersBase is the first id of the host that belongs to a pod with a user namespace.
const usersBase = 655360

func users() *runtime.UserNamespace {
	m := []*runtime.IDMapping{{ContainerId: 0, HostId: usersBase, Length: 65536}}
	return &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: m, Gids: m}
}

func withUserNamespace(c *runtime.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users()
}

// userContainer has the pod's user namespace, and mounts whose owners are mapped as the kubelet asks for it.
func userContainer(name string, mounts ...*runtime.Mount) *runtime.ContainerConfig {
	c := testpod.ContainerConfig(name, "echo ready; exec sleep 1000")
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = users()
	for _, m := range mounts {
		m.UidMappings, m.GidMappings = users().Uids, users().Gids
		c.Mounts = append(c.Mounts, m)
	}
	return c
}

func TestPodWithAUserNamespace(t *testing.T) {
	for _, h := range []string{handler, handler + "-podsandbox"} {
		t.Run(h, func(t *testing.T) { testUserNamespace(newNode(t), h) })
	}
}

func testUserNamespace(n *node, handler string) {
	dir := n.TempDir()
	if err := os.Chown(dir, 1000, 2000); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(dir+"/hosts-file", []byte("x"), 0o644); err != nil {
		n.Fatal(err)
	}
	p := n.podOf(handler, withUserNamespace)
	a := n.container(p, userContainer("a", &runtime.Mount{HostPath: dir, ContainerPath: "/data"}))
	b := n.container(p, userContainer("b"))
	for _, k := range []*testpod.Container{a, b} {
		want := fmt.Sprint([]string{"0", fmt.Sprint(usersBase), "65536"})
		for _, file := range []string{"/proc/1/uid_map", "/proc/self/gid_map"} {
			if got := fmt.Sprint(strings.Fields(n.exec(k, "cat "+file))); got != want {
				n.Errorf("%s is %s, want %s", file, got, want)
			}
		}
	}
	one, other := n.exec(a, "readlink /proc/self/ns/user"), n.exec(b, "readlink /proc/self/ns/user")
	if one != other {
		n.Errorf("the pod's containers have different user namespaces: %s and %s", one, other)
	}

	// Files: the image's, the pod's and a volume's belong to whom they should, and so does what is written.
	for path, want := range map[string]string{
		"/bin/sh": "0:0", "/etc/hosts": "0:0", "/etc/resolv.conf": "0:0", "/data": "1000:2000", "/data/hosts-file": "0:0",
	} {
		if got := strings.TrimSpace(n.exec(a, "stat -L -c %u:%g "+path)); got != want {
			n.Errorf("%s belongs to %s in the container, want %s", path, got, want)
		}
	}
	n.exec(a, "echo 1.2.3.4 name >>/etc/hosts; echo in >/root-file && cat /root-file && rm /root-file")
	n.exec(a, "echo written >/data/by-root && echo written >/data/by-user && chown 7:8 /data/by-user")
	for file, want := range map[string][2]uint32{"by-root": {0, 0}, "by-user": {7, 8}} {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+file, &st); err != nil || [2]uint32{st.Uid, st.Gid} != want {
			n.Errorf("on the host %s belongs to %d:%d, want %v: %v", file, st.Uid, st.Gid, want, err)
		}
	}

	// The container's root has a say over what is the pod's: a low port, its own mounts, the network.
	n.exec(a, "touch /tmp/index.html; httpd -p 80 -h /tmp && wget -q -O /dev/null http://127.0.0.1:80/")
	n.exec(b, "wget -q -O /dev/null http://127.0.0.1:80/")
	n.exec(a, "ping -c 1 -W 5 $(ip route | awk '/^default/ {print $3}')")
	n.exec(a, "test -d /sys/class/net/eth0 && echo x >/dev/shm/x && rm /dev/shm/x")
	ip, err := p.IP(n.ctx)
	if err != nil {
		n.Fatal(err)
	}
	if addrs := n.exec(a, "ip -o addr show dev eth0"); !strings.Contains(addrs, " "+ip+"/") {
		n.Errorf("eth0 in the guest has %q, CRI says %s", addrs, ip)
	}
}

func TestSharedPIDNamespaceOfAPodWithAUserNamespace(t *testing.T) {
	n := newNode(t)
	p := n.pod(withUserNamespace, func(c *runtime.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtime.NamespaceMode_POD
	})
	shared := func(name string) *runtime.ContainerConfig {
		c := userContainer(name)
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtime.NamespaceMode_POD
		return c
	}
	n.container(p, shared("a"))
	b := n.container(p, shared("b"))
	if ps := n.exec(b, "ps"); strings.Count(ps, "sleep 1000") != 2 {
		t.Errorf("b does not see a's process: %s", ps)
	}
}

func TestUserNamespaceOnAFileSystemThatCannotMapOwnersIsRefusedByName(t *testing.T) {
	n := newNode(t)
	p := n.pod(withUserNamespace)
	config := userContainer("c", &runtime.Mount{HostPath: "/proc/sys", ContainerPath: "/data"})
	_, err := p.Run(n.ctx, config)
	if err == nil {
		t.Fatal("a volume on procfs was mapped")
	}
	for _, want := range []string{"/proc/sys", "user namespace"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}
