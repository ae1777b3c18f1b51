package e2e

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

func TestRecursivelyReadOnlyVolumeHoldsAgainstRootInTheGuest(t *testing.T) {
	n := newNode(t)
	dir := t.TempDir()
	sub := dir + "/sub"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(sub, 0); err != nil {
			t.Error(err)
		}
	})
	for _, f := range []string{dir + "/f", sub + "/f"} {
		if err := os.WriteFile(f, []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := n.pod(func(c *runtime.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true })
	config := testpod.ContainerConfig("root", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{{HostPath: dir, ContainerPath: "/ro", Readonly: true, RecursiveReadOnly: true}}
	config.Linux.SecurityContext.Privileged = true
	k := n.container(p, config)
	if got := n.exec(k, "cat /ro/f /ro/sub/f"); got != "keptkept" {
		t.Errorf("the volume holds %q", got)
	}
	n.exec(k, `for d in /ro /ro/sub; do mount -o remount,rw,bind $d; mount -o remount,rw $d
		echo lost >$d/f; echo new >$d/g; rm $d/f; done; true`)
	// The share by its tag, without the container's own mount options: the guest's kernel shows the file system in it that was met
	// last, that below the volume (sget_fc, fs/super.c: all have one connection). It must be that, or nothing would be tried.
	n.exec(k, `mkdir -p /share && mount -t virtiofs pod /share && grep ' /share virtiofs rw,' /proc/mounts && test "$(cat /share/f)" = kept`)
	n.exec(k, "! echo lost >/share/f && ! echo new >/share/g && ! rm /share/f && umount /share")
	for _, d := range []string{dir, sub} {
		if got, err := os.ReadFile(d + "/f"); err != nil || string(got) != "kept" {
			t.Errorf("%s/f was written by the guest: %q, %v", d, got, err)
		}
		if _, err := os.Stat(d + "/g"); err == nil {
			t.Errorf("the guest made a file in %s", d)
		}
	}
}
