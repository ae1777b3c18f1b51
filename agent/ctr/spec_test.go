package ctr

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
)

// ns are the namespaces of a pod that has none of its own; it knows the PID namespace of container "other".
type ns struct{}

func (ns) Pod(string) (string, error) { return "", nil }

func (ns) SharedPID() (string, error) { return "/proc/7/ns/pid", nil }

func (ns) PIDOf(id string) (string, error) {
	if id == "other" {
		return "/proc/1/fd/8", nil
	}
	return "", errors.New("no such container")
}

func (ns) Inside(f func() error) error { return f() }

// userNS are those of a pod with a user namespace.
type userNS struct{ ns }

func (userNS) Pod(kind string) (string, error) { return "/proc/7/ns/" + kind, nil }

func podSpec(pid string) *specs.Spec {
	return &specs.Spec{
		Hostname: "web",
		Root:     &specs.Root{Path: "/run/krunpod/share/c/rootfs"},
		Process:  &specs.Process{ApparmorProfile: "cri-containerd.apparmor.d", SelinuxLabel: "system_u"},
		Hooks:    &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/usr/bin/hook"}}},
		Linux: &specs.Linux{
			MountLabel: "label",
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace, Path: pid}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
				{Type: specs.NetworkNamespace, Path: "/var/run/netns/x"}, {Type: specs.IPCNamespace, Path: "/proc/5/ns/ipc"},
				{Type: specs.UTSNamespace, Path: "/proc/5/ns/uts"},
			},
			Sysctl: map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"},
			Resources: &specs.LinuxResources{
				CPU:            &specs.LinuxCPU{Cpus: "3-5", Mems: "0"},
				Memory:         &specs.LinuxMemory{Swap: new(int64)},
				BlockIO:        &specs.LinuxBlockIO{},
				HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "999GB"}},
				Unified: map[string]string{"memory.oom.group": "1", "cpuset.cpus": "3", "io.max": "8:0 rbps=1",
					"memory.swap.max": "0", "memory.zswap.max": "0"},
			},
		},
	}
}

func TestAdaptMakesTheGuestThePod(t *testing.T) {
	s := podSpec("")
	sysctls, err := adapt("c", s, ns{})
	if err != nil {
		t.Fatal(err)
	}
	var types []specs.LinuxNamespaceType
	for _, ns := range s.Linux.Namespaces {
		types = append(types, ns.Type)
		if ns.Path != "" {
			t.Errorf("%s namespace at %s", ns.Type, ns.Path)
		}
	}
	want := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.MountNamespace, specs.CgroupNamespace}
	if !slices.Equal(types, want) {
		t.Errorf("namespaces %v", types)
	}
	if s.Hostname != "" || s.Hooks != nil || s.Process.ApparmorProfile != "" || s.Process.SelinuxLabel != "" {
		t.Error("something of the node's is left")
	}
	if s.Linux.CgroupsPath != "/krunpod/c" {
		t.Errorf("cgroup %s", s.Linux.CgroupsPath)
	}
	r := s.Linux.Resources
	if r.CPU.Cpus != "" || r.CPU.Mems != "" || r.BlockIO != nil || len(r.HugepageLimits) != 0 || r.Memory.Swap != nil ||
		!maps.Equal(r.Unified, map[string]string{"memory.oom.group": "1"}) {
		t.Errorf("resources %+v", r)
	}
	if len(s.Linux.Sysctl) != 0 || len(sysctls) != 2 {
		t.Errorf("sysctls %v and %v", s.Linux.Sysctl, sysctls)
	}
}

func TestContainersWithTheirOwnIPCKeepItsSysctls(t *testing.T) {
	s := podSpec("")
	s.Linux.Namespaces[4].Path = ""
	sysctls, err := adapt("c", s, ns{})
	if err != nil || sysctls["net.ipv4.ip_forward"] != "1" || s.Linux.Sysctl["kernel.shm_rmid_forced"] != "1" {
		t.Errorf("%v and %v, %v", sysctls, s.Linux.Sysctl, err)
	}
}

func TestPIDNamespacesAreOursOnly(t *testing.T) {
	for path, want := range map[string]string{
		"":                                 "",
		api.SharedPIDNamespace:             "/proc/7/ns/pid",
		api.ContainerPIDNamespace("other"): "/proc/1/fd/8",
	} {
		s := podSpec(path)
		if _, err := adapt("c", s, ns{}); err != nil || s.Linux.Namespaces[0].Path != want {
			t.Errorf("%q: %q, %v", path, s.Linux.Namespaces[0].Path, err)
		}
	}
	for _, path := range []string{"/proc/1/ns/pid", api.ContainerPIDNamespace("gone"), api.ContainerPIDNamespace("")} {
		if _, err := adapt("c", podSpec(path), ns{}); err == nil {
			t.Errorf("%q: accepted", path)
		}
	}
	none := podSpec("")
	none.Linux.Namespaces = none.Linux.Namespaces[1:]
	if _, err := adapt("c", none, ns{}); err == nil {
		t.Error("accepted without a PID namespace")
	}
	mount := podSpec("")
	mount.Linux.Namespaces[1].Path = "/proc/1/ns/mnt"
	if _, err := adapt("c", mount, ns{}); err == nil {
		t.Error("accepted with the agent's mount namespace")
	}
}

func TestRootFileSystemIsAbsolute(t *testing.T) {
	s := podSpec("")
	s.Root.Path = "rootfs"
	if _, err := adapt("c", s, ns{}); err == nil {
		t.Error("accepted")
	}
}

func TestAPodsUserNamespaceBringsAllOthers(t *testing.T) {
	s := podSpec(api.SharedPIDNamespace)
	// As the shim sends it: without the pod's namespaces.
	s.Linux.Namespaces = append(s.Linux.Namespaces[:3], specs.LinuxNamespace{Type: specs.UserNamespace})
	if _, err := adapt("c", s, userNS{}); err != nil {
		t.Fatal(err)
	}
	want := map[specs.LinuxNamespaceType]string{
		specs.PIDNamespace: "/proc/7/ns/pid", specs.MountNamespace: "", specs.CgroupNamespace: "",
		specs.NetworkNamespace: "/proc/7/ns/net", specs.IPCNamespace: "/proc/7/ns/ipc",
		specs.UTSNamespace: "/proc/7/ns/uts", specs.UserNamespace: "/proc/7/ns/user",
	}
	got := map[specs.LinuxNamespaceType]string{}
	for _, n := range s.Linux.Namespaces {
		got[n.Type] = n.Path
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAContainerHasNoUserNamespaceOfItsOwn(t *testing.T) {
	s := podSpec("")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	if _, err := adapt("c", s, ns{}); err == nil {
		t.Error("accepted")
	}
}
