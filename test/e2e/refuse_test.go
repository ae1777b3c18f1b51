package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// dropIn writes a configuration for the time of the test.
func dropIn(t *testing.T, text string) {
	t.Helper()
	dir := "/etc/krunpod/config.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "99-e2e.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

// refused runs a pod that must fail with a sentence that has every one of the words, within patience.
func (n *node) refused(change func(*runtime.PodSandboxConfig), words ...string) {
	n.Helper()
	n.refusedOf(handler, change, words...)
}

func (n *node) refusedOf(handler string, change func(*runtime.PodSandboxConfig), words ...string) {
	n.Helper()
	config := n.cri.PodConfig("refused")
	if change != nil {
		change(config)
	}
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	p, err := n.cri.Run(ctx, handler, config)
	if err == nil {
		if err := p.Remove(n.ctx); err != nil {
			n.Error(err)
		}
		n.Fatal("the pod started")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			n.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func TestHostNamespacesAreRefusedByName(t *testing.T) {
	for field, set := range map[string]func(*runtime.NamespaceOption){
		"hostNetwork": func(o *runtime.NamespaceOption) { o.Network = runtime.NamespaceMode_NODE },
		"hostPID":     func(o *runtime.NamespaceOption) { o.Pid = runtime.NamespaceMode_NODE },
		"hostIPC":     func(o *runtime.NamespaceOption) { o.Ipc = runtime.NamespaceMode_NODE },
	} {
		t.Run(field, func(t *testing.T) {
			newNode(t).refused(func(c *runtime.PodSandboxConfig) {
				set(c.Linux.SecurityContext.NamespaceOptions)
			}, field, "microVM")
		})
	}
}

func TestUnreadableConfigurationNamesTheKey(t *testing.T) {
	n := newNode(t)
	dropIn(t, "[vm]\nmemory = 12\n")
	n.refused(nil, "99-e2e.toml", "vm.memory")
}

func TestMissingRunnerIsNamed(t *testing.T) {
	n := newNode(t)
	dropIn(t, "runner = \"/nonexistent/krun-runner\"\n")
	n.refused(nil, "/nonexistent/krun-runner")
}

func TestGuestThatNeverAnswersIsGivenUp(t *testing.T) {
	n := newNode(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// This binary as the guest's init: it waits for ever.
	dropIn(t, "agent = \""+self+"\"\nboot_timeout = \"15s\"\n")
	began := time.Now()
	n.refused(nil, "did not answer within 15s")
	if took := time.Since(began); took > 60*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestGuestThatEndsBeforeItAnswersIsNamed(t *testing.T) {
	n := newNode(t)
	// busybox is no init by this name: it ends, and the guest's kernel with it.
	dropIn(t, "agent = \"/bin/busybox\"\n")
	n.refused(nil, "ended before its agent answered")
}

func TestPodWithoutMemoryForItsVMIsNamed(t *testing.T) {
	n := newNode(t)
	parent := n.podCgroup("small")
	if err := os.WriteFile(cgroupRoot+parent+"/memory.max", []byte("32M"), 0); err != nil {
		t.Fatal(err)
	}
	n.refused(func(c *runtime.PodSandboxConfig) { c.Linux.CgroupParent = parent }, "want of memory", "overhead.podFixed.memory")
}

// What the VM takes beside its containers is in the pod's limit; a VM that needs more ends them as a lack of memory does.
func TestVMThatIsKilledForWantOfMemoryIsTold(t *testing.T) {
	n := newNode(t)
	parent := n.podCgroup("tight")
	p := n.pod(func(c *runtime.PodSandboxConfig) { c.Linux.CgroupParent = parent })
	k := n.container(p, testpod.ContainerConfig("greedy", "read line; dd if=/dev/zero of=/dev/null bs=300M count=1; exec sleep 1000"))
	// Less than the VM has already: the next page that it takes is too much.
	if err := os.WriteFile(cgroupRoot+parent+"/memory.max", []byte("16M"), 0); err != nil {
		t.Fatal(err)
	}
	if st := n.waitExit(k); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("exit code %d, reason %s", st.ExitCode, st.Reason)
	}
}

func TestNodeWithoutKVMIsNamed(t *testing.T) {
	n := newNode(t)
	if err := os.Rename("/dev/kvm", "/dev/kvm.away"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Rename("/dev/kvm.away", "/dev/kvm"); err != nil {
			t.Fatal(err)
		}
	}()
	n.refused(nil, "/dev/kvm")
}

func TestNodeWithoutLibkrunfwIsNamed(t *testing.T) {
	n := newNode(t)
	dropIn(t, "firmware = \"/nonexistent\"\n")
	n.refused(nil, "libkrunfw")
}

func TestUnknownAnnotationIsRefused(t *testing.T) {
	newNode(t).refused(func(c *runtime.PodSandboxConfig) {
		c.Annotations = map[string]string{"krun.dev/vcpu": "2"}
	}, "krun.dev/vcpu", "krun.dev/vcpus")
}

func TestMissingCommandFailsTheStartAndNotThePod(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	config := testpod.ContainerConfig("missing", "")
	config.Command = []string{"/no/such/command"}
	k, err := p.Run(n.ctx, config)
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("error: %v", err)
	}
	if k != nil {
		if st := n.waitExit(k); st.ExitCode != 128 || st.Reason != "StartError" {
			t.Errorf("exit code %d, reason %s", st.ExitCode, st.Reason)
		}
	}
	other := n.container(p, testpod.ContainerConfig("other", "exec sleep 1000"))
	if out := n.exec(other, "echo fine"); out != "fine\n" {
		t.Errorf("another container of the pod: %q", out)
	}
}

func TestBidirectionalMountIsRefusedByName(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	config := testpod.ContainerConfig("rshared", "exec sleep 1000")
	config.Mounts = []*runtime.Mount{{HostPath: t.TempDir(), ContainerPath: "/m", Propagation: runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL}}
	if _, err := p.Run(n.ctx, config); err == nil || !strings.Contains(err.Error(), "Bidirectional") {
		t.Errorf("error: %v", err)
	}
}

func TestDeviceOfTheHostIsRefusedByName(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	config := testpod.ContainerConfig("device", "exec sleep 1000")
	config.Devices = []*runtime.Device{{HostPath: "/dev/kvm", ContainerPath: "/dev/kvm", Permissions: "rwm"}}
	if _, err := p.Run(n.ctx, config); err == nil || !strings.Contains(err.Error(), "/dev/kvm") {
		t.Errorf("error: %v", err)
	}
	config.Metadata.Name = "disguised"
	config.Devices[0].ContainerPath = "/dev/null"
	if _, err := p.Run(n.ctx, config); err == nil || !strings.Contains(err.Error(), "/dev/null (c 10:232)") {
		t.Errorf("/dev/kvm as /dev/null: %v", err)
	}
	config.Metadata.Name = "null"
	config.Devices = []*runtime.Device{{HostPath: "/dev/null", ContainerPath: "/dev/null", Permissions: "rwm"}}
	if out := n.exec(n.container(p, config), "echo x >/dev/null && echo wrote"); out != "wrote\n" {
		t.Errorf("a device that the guest has: %q", out)
	}
}

func TestCheckpointIsRefused(t *testing.T) {
	n := newNode(t)
	k := n.container(n.pod(), testpod.ContainerConfig("checkpoint", "exec sleep 1000"))
	task := n.adopt(k.ID)
	if _, err := task.task.Checkpoint(task.ctx); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "microVM") {
		t.Errorf("error: %v", err)
	}
	if out := n.exec(k, "echo fine"); out != "fine\n" {
		t.Errorf("the container afterwards: %q", out)
	}
}

func TestNetworkNamespaceThatVanishedIsNamed(t *testing.T) {
	n := newNode(t)
	const gone = "/run/netns/gone"
	task := n.newContainer("gone", oci.WithProcessArgs("/bin/true"),
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: gone}))
	ctx, cancel := context.WithTimeout(task.ctx, patience)
	defer cancel()
	if _, err := task.container.NewTask(ctx, cio.NullIO); err == nil || !strings.Contains(err.Error(), gone) {
		t.Errorf("error: %v", err)
	}
}

// TestPodWhoseNetworkNamespaceVanishesCanBeRemoved: somebody removes it as ip-netns(8) does, which CNI's own DEL meets as well.
func TestPodWhoseNetworkNamespaceVanishesCanBeRemoved(t *testing.T) {
	for name, before := range map[string]func(*node, *testpod.Pod){
		"while it runs": func(*node, *testpod.Pod) {},
		"when its VM has ended": func(n *node, p *testpod.Pod) {
			if err := unix.Kill(runnerOf(n.T, p.ID), unix.SIGKILL); err != nil {
				n.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.pod() // its removal, within n's patience, is the test, and that nothing stays
			n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
			st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
			if err != nil {
				t.Fatal(err)
			}
			before(n, p)
			if err := errors.Join(unix.Unmount(st.NetNS, unix.MNT_DETACH), os.Remove(st.NetNS)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
