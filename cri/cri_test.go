package cri

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/config"
)

func testConfig() *config.Config {
	c := config.Default()
	c.VM = config.VM{DefaultVCPUs: 2, MaxVCPUs: 8, DefaultMemoryMiB: 256, MaxMemoryMiB: 4096, OverheadMiB: 64}
	return &c
}

func podConfig() *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:  &runtime.PodSandboxMetadata{Name: "p", Namespace: "ns"},
		Hostname:  "p",
		DnsConfig: &runtime.DNSConfig{Servers: []string{"10.0.0.1"}},
		Linux: &runtime.LinuxPodSandboxConfig{
			CgroupParent:    "/kubepods/podx",
			Sysctls:         map[string]string{"net.core.somaxconn": "100"},
			SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: &runtime.NamespaceOption{}},
		},
	}
}

func TestSizeOfAPod(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct {
		name        string
		res         *runtime.LinuxContainerResources
		overhead    int64
		annotations map[string]string
		vcpus       uint8
		memory      uint32
	}{
		{name: "defaults without limits", vcpus: 2, memory: 256},
		{name: "limits rounded up, overhead added", res: &runtime.LinuxContainerResources{
			CpuQuota: 150000, CpuPeriod: 100000, MemoryLimitInBytes: 100*mib + 1}, vcpus: 2, memory: 101 + 64},
		{name: "the RuntimeClass's overhead counts", res: &runtime.LinuxContainerResources{MemoryLimitInBytes: 100 * mib},
			overhead: 50 * mib, vcpus: 2, memory: 150 + 64},
		{name: "a fraction of a CPU is one", res: &runtime.LinuxContainerResources{CpuQuota: 1000, CpuPeriod: 100000}, vcpus: 1, memory: 256},
		{name: "never more than the node allows", res: &runtime.LinuxContainerResources{
			CpuQuota: 6400000, CpuPeriod: 100000, MemoryLimitInBytes: 1 << 40}, vcpus: 8, memory: 4096},
		{name: "annotations win", annotations: map[string]string{annotationVCPUs: "3", annotationMemoryMiB: "300"}, vcpus: 3, memory: 300},
	} {
		pod := podConfig()
		pod.Annotations = tc.annotations
		pod.Linux.Resources = tc.res
		pod.Linux.Overhead = &runtime.LinuxContainerResources{MemoryLimitInBytes: tc.overhead}
		spec, err := FromPod("k8s.io", "id", "/run/netns/x", pod, testConfig())
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if spec.VCPUs != tc.vcpus || spec.MemoryMiB != tc.memory {
			t.Errorf("%s: %d vCPUs, %d MiB, want %d and %d", tc.name, spec.VCPUs, spec.MemoryMiB, tc.vcpus, tc.memory)
		}
	}
}

func TestUserNamespaceOfAPodAndOfItsPauseContainerAreTheSame(t *testing.T) {
	pod := podConfig()
	ids := []*runtime.IDMapping{{HostId: 100000, Length: 65536}}
	options := &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: ids, Gids: ids}
	pod.Linux.SecurityContext.NamespaceOptions.UsernsOptions = options
	fromPod, err := FromPod("k8s.io", "id", "/run/netns/x", pod, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	mappings := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	pause := &specs.Spec{Linux: &specs.Linux{
		Namespaces: []specs.LinuxNamespace{{Type: specs.UserNamespace}}, UIDMappings: mappings, GIDMappings: mappings,
	}}
	if got := fromPod.Guest.UserNamespace; got == nil || !proto.Equal(got, UserNamespaceOf(pause)) {
		t.Errorf("the pod's is %v, its pause container's %v", got, UserNamespaceOf(pause))
	}
	options.Mode = runtime.NamespaceMode_NODE
	if fromPod, err = FromPod("k8s.io", "id", "/run/netns/x", pod, testConfig()); err != nil || fromPod.Guest.UserNamespace != nil {
		t.Errorf("a pod in the node's user namespace has %v, error %v", fromPod.Guest.UserNamespace, err)
	}
}

func TestUserNamespaceOfAnotherContainerIsRefused(t *testing.T) {
	for _, mode := range []runtime.NamespaceMode{runtime.NamespaceMode_CONTAINER, runtime.NamespaceMode_TARGET} {
		pod := podConfig()
		pod.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &runtime.UserNamespace{Mode: mode}
		if _, err := FromPod("k8s.io", "id", "/run/netns/x", pod, testConfig()); err == nil || !strings.Contains(err.Error(), mode.String()) {
			t.Errorf("mode %s: the error is %v, want one that names it", mode, err)
		}
	}
}

func TestSpecOfAPodCarriesWhatItAskedFor(t *testing.T) {
	spec, err := FromPod("k8s.io", "id", "/run/netns/x", podConfig(), testConfig())
	if err != nil {
		t.Fatal(err)
	}
	if spec.ID != "id" || spec.Namespace != "k8s.io" || spec.NetNS != "/run/netns/x" || spec.Cgroup.Parent != "/kubepods/podx" ||
		spec.Guest.Hostname != "p" || spec.Guest.Dns.Servers[0] != "10.0.0.1" || spec.Guest.Sysctls["net.core.somaxconn"] != "100" {
		t.Errorf("spec is %+v, guest %v", spec, spec.Guest)
	}
	if err := spec.Validate(); err != nil {
		t.Error(err)
	}
}

func TestHostNamespacesAreRefused(t *testing.T) {
	for field, set := range map[string]func(*runtime.NamespaceOption){
		"hostNetwork": func(o *runtime.NamespaceOption) { o.Network = runtime.NamespaceMode_NODE },
		"hostPID":     func(o *runtime.NamespaceOption) { o.Pid = runtime.NamespaceMode_NODE },
		"hostIPC":     func(o *runtime.NamespaceOption) { o.Ipc = runtime.NamespaceMode_NODE },
	} {
		pod := podConfig()
		set(pod.Linux.SecurityContext.NamespaceOptions)
		_, err := FromPod("k8s.io", "id", "", pod, testConfig())
		if !errors.Is(err, ErrHostNamespace) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
}

func TestBadAnnotationsAreNamed(t *testing.T) {
	for key, value := range map[string]string{
		annotationVCPUs: "many", annotationMemoryMiB: "99999", "krun.dev/vcpu": "1",
	} {
		pod := podConfig()
		pod.Annotations = map[string]string{key: value}
		if _, err := FromPod("k8s.io", "id", "", pod, testConfig()); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s=%s: error %v", key, value, err)
		}
	}
}

func ociSpec(kinds ...specs.LinuxNamespaceType) *specs.Spec {
	s := &specs.Spec{Linux: &specs.Linux{}, Annotations: map[string]string{}}
	for _, k := range kinds {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k})
	}
	return s
}

func TestSandboxFromAPauseContainer(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("search a b\nnameserver 1.2.3.4\n# no\noptions ndots:5\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := ociSpec(specs.NetworkNamespace, specs.PIDNamespace, specs.IPCNamespace)
	s.Linux.Namespaces[0].Path = "/run/netns/x"
	s.Linux.CgroupsPath = "kubepods-besteffort-podx.slice:cri-containerd:id"
	s.Mounts = []specs.Mount{{Destination: "/etc/resolv.conf", Source: resolv}}
	s.Annotations = map[string]string{
		annotationContainerType: typeSandbox, annotationSandboxID: "id",
		annotationCPUPeriod: "100000", annotationCPUQuota: "300000", annotationMemory: "104857600",
	}
	spec, err := FromOCI("k8s.io", "id", s, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	d := spec.Guest.Dns
	if spec.VCPUs != 3 || spec.MemoryMiB != 164 || spec.NetNS != "/run/netns/x" || spec.Cgroup.Parent != "kubepods-besteffort-podx.slice" {
		t.Errorf("spec is %+v", spec)
	}
	if len(d.Servers) != 1 || d.Servers[0] != "1.2.3.4" || len(d.Searches) != 2 || d.Options[0] != "ndots:5" {
		t.Errorf("DNS is %v", d)
	}
	if role, id := RoleOf(s.Annotations); role != RoleSandbox || id != "id" {
		t.Errorf("role %d, id %s", role, id)
	}
}

func TestOCISpecWithoutAPIDNamespaceIsHostPID(t *testing.T) {
	if _, err := FromOCI("default", "id", ociSpec(specs.NetworkNamespace, specs.IPCNamespace), testConfig()); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("error %v", err)
	}
}
