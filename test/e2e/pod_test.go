package e2e

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

func hostKernel(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}

func TestPodHasItsOwnKernelAndTheCNIsAddress(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "uname -r; hostname; exec sleep 1000"))
	log := n.waitLog(k, "pod\n")
	kernel, _, _ := strings.Cut(log, "\n")
	if kernel == hostKernel(t) || kernel == "" {
		t.Errorf("the container's kernel is %q, the host's %q", kernel, hostKernel(t))
	}
	ip, err := p.IP(n.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if addrs := n.exec(k, "ip -o addr show dev eth0"); !strings.Contains(addrs, " "+ip+"/") {
		t.Errorf("eth0 in the guest has %q, CRI says %s", addrs, ip)
	}
	if resolv := n.exec(k, "cat /etc/resolv.conf"); !strings.Contains(resolv, "nameserver 10.96.0.10") {
		t.Errorf("resolv.conf is %q", resolv)
	}
}

func TestContainersOfAPodShareNetworkAndReachTheNode(t *testing.T) {
	eachWay(t, testContainersOfAPodShareNetworkAndReachTheNode)
}

func testContainersOfAPodShareNetworkAndReachTheNode(n *node, way func(*runtime.PodSandboxConfig)) {
	p := n.pod(way)
	web := n.container(p, testpod.ContainerConfig("web",
		"mkdir -p /www && echo from-web > /www/index.html && exec httpd -f -p 8080 -h /www"))
	client := n.container(p, testpod.ContainerConfig("client", "echo ready; exec sleep 1000"))
	n.waitLog(client, "ready")
	fetch := "for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://%/ && exit 0; sleep 1; done; exit 1"
	if out := n.exec(client, strings.ReplaceAll(fetch, "%", "127.0.0.1:8080")); out != "from-web\n" {
		n.Errorf("over localhost the client got %q", out)
	}
	ip, err := p.IP(n.ctx)
	if err != nil {
		n.Fatal(err)
	}
	http := http.Client{Timeout: 10 * time.Second}
	resp, err := http.Get("http://" + net.JoinHostPort(ip, "8080") + "/")
	if err != nil {
		n.Fatalf("the node cannot reach the pod: %v", err)
	}
	resp.Body.Close()
	n.exec(client, "ping -c 1 -W 5 $(ip route | awk '/^default/ {print $3}')")
	if err := web.Stop(n.ctx, 1); err != nil {
		n.Errorf("stop: %v", err)
	}
}

func TestExitCodesAndStreamsOfContainersAndExecs(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("exits", "echo out; echo err >&2; exit 7"))
	if st := n.waitExit(k); st.ExitCode != 7 || st.Reason != "Error" {
		t.Errorf("exit code %d, reason %s", st.ExitCode, st.Reason)
	}
	out, errs, err := k.Log()
	if err != nil || out != "out\n" || errs != "err\n" {
		t.Errorf("stdout %q, stderr %q, error %v", out, errs, err)
	}
	long := n.container(p, testpod.ContainerConfig("long", "exec sleep 1000"))
	eout, eerrs, exit, err := long.Exec(n.ctx, "echo o; echo e >&2; exit 3")
	if err != nil || eout != "o\n" || eerrs != "e\n" || exit != 3 {
		t.Errorf("exec: stdout %q, stderr %q, exit %d, error %v", eout, eerrs, exit, err)
	}
	if err := k.Remove(n.ctx); err != nil {
		t.Errorf("remove an exited container: %v", err)
	}
}

// The agent lengthens the timer slack of its Go runtime's monitor: no process of a container may inherit that.
func TestProcessesHaveTheUsualTimerSlack(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	const show, usual = "cat /proc/self/timerslack_ns", "50000\n"
	k := n.container(p, testpod.ContainerConfig("slack", show+"; exec sleep 1000"))
	if got := n.waitLog(k, "\n"); got != usual {
		t.Errorf("a container's process has %q ns", got)
	}
	if got := n.exec(k, show); got != usual {
		t.Errorf("an exec has %q ns", got)
	}
}

func TestStopGivesTheGracePeriodAndThenKills(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	polite := n.container(p, testpod.ContainerConfig("polite", "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"))
	deaf := n.container(p, testpod.ContainerConfig("deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done"))
	n.waitLog(polite, "ready")
	n.waitLog(deaf, "ready")
	if err := polite.Stop(n.ctx, 30); err != nil {
		t.Fatal(err)
	}
	if st := n.waitExit(polite); st.ExitCode != 5 {
		t.Errorf("a container that ends on TERM has exit code %d", st.ExitCode)
	}
	if err := deaf.Stop(n.ctx, 2); err != nil {
		t.Fatal(err)
	}
	if st := n.waitExit(deaf); st.ExitCode != 137 {
		t.Errorf("a container that ignores TERM has exit code %d", st.ExitCode)
	}
}

func TestVolumesOfFilesAndDirectories(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	file := dir + "/secret"
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/neighbour", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	p := n.pod()
	config := testpod.ContainerConfig("volumes", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{
		{HostPath: file, ContainerPath: "/etc/one-file"},
		{HostPath: data, ContainerPath: "/data"},
	}
	k := n.container(p, config)
	if got := n.exec(k, "cat /etc/one-file"); got != "content" {
		t.Errorf("the file volume holds %q", got)
	}
	n.exec(k, "echo written > /data/f && chown 1000:2000 /data/f && chmod 4755 /data/f")
	var st unix.Stat_t
	if err := unix.Stat(data+"/f", &st); err != nil || st.Uid != 1000 || st.Gid != 2000 || st.Mode&0o7777 != 0o4755 {
		t.Errorf("on the host: owner %d:%d, mode %o, error %v", st.Uid, st.Gid, st.Mode, err)
	}
	// A file volume brings that file alone: its directory on the host is nowhere in the guest.
	if out := n.exec(k, "find / -xdev -name neighbour 2>/dev/null | head -1"); out != "" {
		t.Errorf("the guest sees a neighbour of its file volume: %q", out)
	}
}

func TestReadOnlyVolumeHoldsAgainstRootInTheGuest(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := n.pod(func(c *runtime.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := testpod.ContainerConfig("root", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{{HostPath: dir, ContainerPath: "/ro", Readonly: true}}
	config.Linux.SecurityContext.Privileged = true
	k := n.container(p, config)
	// Once root in the guest has made its own mount writable, it is the host's that holds; with the share mounted by its tag, too:
	// TestRecursivelyReadOnlyVolumeHoldsAgainstRootInTheGuest.
	n.exec(k, "mount -o remount,rw,bind /ro && grep ' /ro virtiofs rw,' /proc/mounts")
	n.exec(k, "for i in 1 2; do ! echo lost >/ro/f && ! echo new >/ro/g && ! rm /ro/f && ! touch /ro/f || exit 1; mount -o remount,rw /ro; done; true")
	got, err := os.ReadFile(dir + "/f")
	if err != nil || string(got) != "kept" {
		t.Errorf("a read-only volume was written by the guest: %q, %v", got, err)
	}
	if _, err := os.Stat(dir + "/g"); err == nil {
		t.Error("the guest made a file in a read-only volume")
	}
}

func TestPodThatSharesItsPIDNamespace(t *testing.T) {
	n := newNode(t)
	p := n.pod(func(c *runtime.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtime.NamespaceMode_POD
	})
	shared := func(name, script string) *runtime.ContainerConfig {
		c := testpod.ContainerConfig(name, script)
		c.Linux.SecurityContext = &runtime.LinuxContainerSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_POD}}
		return c
	}
	n.container(p, shared("a", "exec sleep 4242"))
	b := n.container(p, shared("b", "exec sleep 1000"))
	if ps := n.exec(b, "ps"); !strings.Contains(ps, "sleep 4242") {
		t.Errorf("b does not see a's process: %s", ps)
	}
	target, err := p.Create(n.ctx, testpod.ContainerConfig("own", "exec sleep 5353"))
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Start(n.ctx); err != nil {
		t.Fatal(err)
	}
	debug := testpod.ContainerConfig("debug", "exec sleep 1000")
	debug.Linux.SecurityContext = &runtime.LinuxContainerSecurityContext{NamespaceOptions: &runtime.NamespaceOption{
		Pid: runtime.NamespaceMode_TARGET, TargetId: target.ID}}
	d := n.container(p, debug)
	if ps := n.exec(d, "ps"); !strings.Contains(ps, "sleep 5353") {
		t.Errorf("a container that targets another's PID namespace does not see it: %s", ps)
	}
}
