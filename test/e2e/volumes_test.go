package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
