package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// kubeletVolume makes the directory of a volume of the pod, where the kubelet would.
func (n *node) kubeletVolume(pod *testpod.Pod, kind, name string) string {
	n.Helper()
	dir := filepath.Join(n.TempDir(), "pods", pod.Config.Metadata.Uid, "volumes", "kubernetes.io~"+kind, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.Fatal(err)
	}
	return dir
}

func (n *node) write(dir string, files map[string]string) {
	n.Helper()
	if err := testpod.WriteVolume(dir, files); err != nil {
		n.Fatal(err)
	}
}

// watchEnv makes this binary, in a container, print what inotify(7) shows of the directories that it names.
const watchEnv = "KRUNPOD_E2E_WATCH"

func watch(dirs []string) {
	for _, dir := range dirs {
		w, err := testpod.NewWatch(dir)
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				events, err := w.Next()
				if err != nil {
					panic(err)
				}
				for _, e := range events {
					fmt.Println(dir, e)
				}
			}
		}()
	}
	fmt.Println("watching")
	select {}
}

func TestChangesOfVolumesAreSeenByInotify(t *testing.T) {
	for _, h := range []string{handler, "runc"} {
		t.Run(h, func(t *testing.T) { testChangesOfVolumes(newNode(t), h) })
	}
}

func testChangesOfVolumes(n *node, handler string) {
	p := n.podOf(handler)
	self, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	watcher, reader := testpod.ContainerConfig("watcher", "exec /e2e.test"), testpod.ContainerConfig("reader", "exec sleep 1000")
	watcher.Mounts = []*runtime.Mount{{HostPath: self, ContainerPath: "/e2e.test", Readonly: true}}
	volumes := map[string]string{}
	var paths []string
	for _, kind := range []string{"configmap", "secret", "projected", "downward-api"} {
		dir, path := n.kubeletVolume(p, kind, "volume-"+kind), "/v/"+kind
		n.write(dir, map[string]string{"key": "one", "gone": "x", "deep/key": "d"})
		mount := &runtime.Mount{HostPath: dir, ContainerPath: path, Readonly: true}
		watcher.Mounts, reader.Mounts = append(watcher.Mounts, mount), append(reader.Mounts, mount)
		volumes[path] = dir
		paths = append(paths, path)
	}
	watcher.Envs = []*runtime.KeyValue{{Key: watchEnv, Value: []byte(strings.Join(paths, ":"))}}
	w, r := n.container(p, watcher), n.container(p, reader)
	n.waitLog(w, "watching\n")
	for _, path := range paths {
		n.exec(r, "cd "+path+" && test $(cat key deep/key gone) = onedx && ! touch new && ! rm key && ! echo x >key")
	}
	for _, path := range paths {
		n.write(volumes[path], map[string]string{"key": "two", "new": "y", "deep/key": "d"})
	}
	for _, path := range paths {
		log := n.waitLog(w, path+" delete ..2026") // the version before goes last
		for _, event := range []string{"create ..2026", "moved to ..data\n", "create new\n", "delete gone\n"} {
			if !strings.Contains(log, path+" "+event) {
				n.Errorf("%s: no event %q in %q", path, event, log)
			}
		}
		if got := n.exec(r, "cd "+path+" && cat key new deep/key && echo $(ls)"); got != "twoyddeep key new\n" {
			n.Errorf("%s: after its change it holds %q", path, got)
		}
	}
}

func TestVolumesThatTheKubeletWritesKeepTheirOwners(t *testing.T) {
	n := newNode(t)
	p := n.pod(withUserNamespace)
	dir := n.kubeletVolume(p, "secret", "token")
	n.write(dir, map[string]string{"key": "one"})
	// fsGroup and defaultMode, as the kubelet sets them.
	if err := errors.Join(os.Chown(dir+"/key", 0, 2000), os.Chmod(dir+"/key", 0o440)); err != nil {
		t.Fatal(err)
	}
	k := n.container(p, userContainer("c", &runtime.Mount{HostPath: dir, ContainerPath: "/v", Readonly: true}))
	if got := n.exec(k, "stat -L -c %u:%g:%a /v/key && cat /v/key"); got != "0:2000:440\none" {
		t.Errorf("the file is %q", got)
	}
}

// emptyDirInMemory is an emptyDir of the pod with medium Memory, of 8 MiB and with an fsGroup, as the kubelet makes it.
func (n *node) emptyDirInMemory(p *testpod.Pod) (dir string) {
	n.Helper()
	dir = n.kubeletVolume(p, "empty-dir", "scratch")
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8388608")
	n.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err = errors.Join(err, os.Chown(dir, 0, 2000), unix.Chmod(dir, 0o2777)); err != nil {
		n.Fatal(err)
	}
	return dir
}

func TestEmptyDirInMemory(t *testing.T) {
	for _, h := range []string{handler, "runc"} {
		t.Run(h, func(t *testing.T) { testEmptyDirInMemory(newNode(t), h) })
	}
}

func testEmptyDirInMemory(n *node, handler string) {
	p := n.podOf(handler)
	dir := n.emptyDirInMemory(p)
	n.checkNeighbours(p, "memory", &runtime.Mount{HostPath: dir, ContainerPath: "/d"})
	config := testpod.ContainerConfig("whole", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{{HostPath: dir, ContainerPath: "/d"}}
	whole := n.container(p, config)
	if got := n.exec(whole, "cat /d/grows; stat -c ' %u:%g:%a' /d; stat -f -c '%T' /d; df -k /d | awk 'END {print $2}'"); got !=
		"12 0:2000:2777\ntmpfs\n8192\n" {
		n.Errorf("the volume is %q", got)
	}
	n.exec(whole, "! dd if=/dev/zero of=/d/big bs=1M count=9 2>/tmp/e && grep 'No space' /tmp/e && rm /d/big")
	// What is in it is charged to the container that wrote it.
	n.exec(whole, "dd if=/dev/zero of=/d/charged bs=1M count=4 && test $(awk '/^shmem / {print $2}' /sys/fs/cgroup/memory.stat) -ge 4194304")

	// A subPath, as the kubelet binds it.
	part := filepath.Join(dir, "../../../volume-subpaths/scratch/part/0")
	if err := errors.Join(os.MkdirAll(dir+"/a/b", 0o750), os.MkdirAll(part, 0o755), unix.Mount(dir+"/a/b", part, "", unix.MS_BIND, "")); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = unix.Unmount(part, unix.MNT_DETACH) })
	config = testpod.ContainerConfig("part", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{{HostPath: part, ContainerPath: "/p"}, {HostPath: dir, ContainerPath: "/ro", Readonly: true}}
	k := n.container(p, config)
	n.exec(k, "echo x >/p/file && test $(cat /ro/a/b/file) = x && test $(cat /ro/grows) = 12 && ! touch /ro/x")
	n.exec(whole, "test $(cat /d/a/b/file) = x && stat -c %a /d/a/b | grep -q 750")
	if handler == "runc" {
		return
	}
	if _, err := os.Stat(dir + "/grows"); err == nil {
		n.Error("what the pod has in memory is on the host")
	}
}

func TestEmptyDirInMemoryOfAPodWithAUserNamespace(t *testing.T) {
	n := newNode(t)
	p := n.pod(withUserNamespace)
	dir := n.emptyDirInMemory(p)
	k := n.container(p, userContainer("c", &runtime.Mount{HostPath: dir, ContainerPath: "/d"}))
	if got := n.exec(k, "touch /d/f && chown 7:8 /d/f && stat -c %u:%g /d /d/f && stat -f -c %T /d"); got != "0:2000\n7:8\ntmpfs\n" {
		t.Errorf("the volume and its file belong to %q", got)
	}
}
