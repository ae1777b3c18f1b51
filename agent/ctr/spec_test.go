package ctr

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
)

// pidns knows the shared namespace and that of container "other".
func pidns(id string) (string, error) {
	switch id {
	case "":
		return "/proc/1/fd/7", nil
	case "other":
		return "/proc/1/fd/8", nil
	}
	return "", errors.New("no such container")
}

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
				BlockIO:        &specs.LinuxBlockIO{},
				HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "999GB"}},
				Unified:        map[string]string{"memory.oom.group": "1", "cpuset.cpus": "3", "io.max": "8:0 rbps=1"},
			},
		},
	}
}

func TestAdaptMakesTheGuestThePod(t *testing.T) {
	s := podSpec("")
	sysctls, err := adapt("c", s, pidns)
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
	if r.CPU.Cpus != "" || r.CPU.Mems != "" || r.BlockIO != nil || len(r.HugepageLimits) != 0 ||
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
	sysctls, err := adapt("c", s, pidns)
	if err != nil || sysctls["net.ipv4.ip_forward"] != "1" || s.Linux.Sysctl["kernel.shm_rmid_forced"] != "1" {
		t.Errorf("%v and %v, %v", sysctls, s.Linux.Sysctl, err)
	}
}

func TestPIDNamespacesAreOursOnly(t *testing.T) {
	for path, want := range map[string]string{
		"":                                 "",
		api.SharedPIDNamespace:             "/proc/1/fd/7",
		api.ContainerPIDNamespace("other"): "/proc/1/fd/8",
	} {
		s := podSpec(path)
		if _, err := adapt("c", s, pidns); err != nil || s.Linux.Namespaces[0].Path != want {
			t.Errorf("%q: %q, %v", path, s.Linux.Namespaces[0].Path, err)
		}
	}
	for _, path := range []string{"/proc/1/ns/pid", api.ContainerPIDNamespace("gone"), api.ContainerPIDNamespace("")} {
		if _, err := adapt("c", podSpec(path), pidns); err == nil {
			t.Errorf("%q: accepted", path)
		}
	}
	none := podSpec("")
	none.Linux.Namespaces = none.Linux.Namespaces[1:]
	if _, err := adapt("c", none, pidns); err == nil {
		t.Error("accepted without a PID namespace")
	}
	mount := podSpec("")
	mount.Linux.Namespaces[1].Path = "/proc/1/ns/mnt"
	if _, err := adapt("c", mount, pidns); err == nil {
		t.Error("accepted with the agent's mount namespace")
	}
}

func TestRootFileSystemIsAbsolute(t *testing.T) {
	s := podSpec("")
	s.Root.Path = "rootfs"
	if _, err := adapt("c", s, pidns); err == nil {
		t.Error("accepted")
	}
}

func TestUserNamespacesBindWhatTheyCannotMount(t *testing.T) {
	s := podSpec("")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Mounts = []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		{Destination: "/proc", Type: "proc", Source: "proc"}}
	if _, err := adapt("c", s, pidns); err != nil {
		t.Fatal(err)
	}
	want := []string{"rbind", "rprivate", "ro"}
	if m := s.Mounts[0]; m.Type != "bind" || m.Source != "/sys" || !slices.Equal(m.Options, want) {
		t.Errorf("sysfs: %+v", m)
	}
	if m := s.Mounts[1]; m.Type != "proc" {
		t.Errorf("proc: %+v", m)
	}
}
