package shim

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
)

const sandboxPID = 77

func containerSpec() *specs.Spec {
	return &specs.Spec{
		Root:     &specs.Root{Path: "rootfs"},
		Process:  &specs.Process{ApparmorProfile: "cri-containerd.apparmor.d", SelinuxLabel: "x"},
		Hostname: "h",
		Linux: &specs.Linux{
			Sysctl:      map[string]string{"net.core.somaxconn": "1"},
			CgroupsPath: "/kubepods/x/y",
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace, Path: "/proc/77/ns/net"},
				{Type: specs.IPCNamespace, Path: "/proc/77/ns/ipc"},
				{Type: specs.UTSNamespace, Path: "/proc/77/ns/uts"},
				{Type: specs.PIDNamespace},
			},
		},
	}
}

// ownName has no two containers share a volume.
func ownName(string, sandbox.Attach, string) (string, error) { return "", nil }

func translate(t *testing.T, spec *specs.Spec) (*translation, error) {
	t.Helper()
	p := newPIDs()
	p.add("other")
	tr := &translation{id: "c1", role: cri.RoleContainer, spec: spec, container: p.container, sandboxPID: sandboxPID,
		volumeName: ownName}
	return tr, tr.apply()
}

func TestTranslatedSpecNamesNothingOfTheHost(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := containerSpec()
	spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod1"}
	spec.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev/shm", Type: "bind", Source: "/run/host/sandboxes/pod1/shm", Options: []string{"rbind"}},
		{Destination: "/f", Type: "bind", Source: file, Options: []string{"rbind", "ro"}},
		{Destination: "/d", Source: dir, Options: []string{"bind", "rslave"}},
	}
	tr, err := translate(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Root.Path != "/run/krunpod/share/c1/rootfs" || spec.Linux.CgroupsPath != "/c1" || spec.Hostname != "" ||
		spec.Linux.Sysctl != nil || spec.Process.ApparmorProfile != "" || spec.Process.SelinuxLabel != "" {
		t.Errorf("spec is %+v, linux %+v", spec, spec.Linux)
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Path != "" || n.Type == specs.NetworkNamespace || n.Type == specs.IPCNamespace || n.Type == specs.UTSNamespace {
			t.Errorf("namespace %+v is left", n)
		}
	}
	if len(tr.attachments) != 2 {
		t.Fatalf("attachments are %+v", tr.attachments)
	}
	f, d := tr.attachments[0], tr.attachments[1]
	if f.Source != file || !f.ReadOnly || !f.Recursive || f.Follow || f.name != "c1/mounts/2" {
		t.Errorf("the file is attached as %+v", f)
	}
	if d.Source != dir || d.ReadOnly || d.Recursive || !d.Follow {
		t.Errorf("the directory is attached as %+v", d)
	}
	sources := map[string]string{}
	for _, m := range spec.Mounts {
		sources[m.Destination] = m.Source
	}
	if sources["/f"] != "/run/krunpod/share/c1/mounts/2" || sources["/dev/shm"] != api.PodFiles["/dev/shm"] ||
		sources["/etc/hosts"] != api.PodFiles["/etc/hosts"] {
		t.Errorf("mount sources are %v", sources)
	}
}

func TestSharedMemoryIsThePodsUnlessAVolumeIsThere(t *testing.T) {
	volume := filepath.Join(t.TempDir(), "shm")
	if err := os.Mkdir(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		mount specs.Mount
		want  string
	}{
		"containerd's default":   {specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm"}, api.PodFiles["/dev/shm"]},
		"containerd's own of it": {specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/run/host/sandboxes/pod1/shm"}, api.PodFiles["/dev/shm"]},
		"a volume":               {specs.Mount{Destination: "/dev/shm", Type: "bind", Source: volume}, api.ShareDir + "/c1/mounts/0"},
	} {
		spec := containerSpec()
		spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod1"}
		spec.Mounts = []specs.Mount{tc.mount}
		if _, err := translate(t, spec); err != nil || spec.Mounts[0].Source != tc.want {
			t.Errorf("%s: the mount is %+v, error %v", name, spec.Mounts[0], err)
		}
	}
}

func TestAnEmptyDirIsWritableInTheShareAndReadOnlyInTheContainer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pods/uid/volumes/kubernetes.io~empty-dir/scratch")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := containerSpec()
	spec.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-uid": "uid"}
	for _, source := range []string{dir, filepath.Dir(dir)} {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: source, Type: "bind", Source: source, Options: []string{"rbind", "ro"}})
	}
	tr, err := translate(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	for i, readOnly := range []bool{false, true} {
		if tr.attachments[i].ReadOnly != readOnly {
			t.Errorf("attachment %d is %+v", i, tr.attachments[i])
		}
		if !slices.Contains(spec.Mounts[i].Options, "ro") {
			t.Errorf("mount %d has options %v", i, spec.Mounts[i].Options)
		}
	}
}

func TestPIDNamespacesOfThePod(t *testing.T) {
	for path, want := range map[string]string{
		"/proc/77/ns/pid":      api.SharedPIDNamespace,
		"/proc/4194305/ns/pid": api.ContainerPIDNamespace("other"),
	} {
		spec := containerSpec()
		spec.Linux.Namespaces[4].Path = path
		if _, err := translate(t, spec); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		i := slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
		if got := spec.Linux.Namespaces[i].Path; got != want {
			t.Errorf("%s became %s, want %s", path, got, want)
		}
	}
}

func TestWhatAMicroVMCannotHaveIsRefusedByName(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"PID namespace /proc/1/ns/pid": func(s *specs.Spec) { s.Linux.Namespaces[4].Path = "/proc/1/ns/pid" },
		"OCI hooks":                    func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x"}}} },
		"/dev/sda":                     func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sda"}} },
		"/dev/null (c 10:232)": func(s *specs.Spec) { // KVM by the name of another
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 10, Minor: 232}}
		},
		"/dev/null (b 1:3)": func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "b", Major: 1, Minor: 3}}
		},
		"AppArmor profile k8s-nginx": func(s *specs.Spec) { s.Process.ApparmorProfile = "k8s-nginx" },
		"Bidirectional": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/m", Source: "/tmp", Options: []string{"rbind", "rshared"}}}
		},
		"device of the host": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/m", Source: "/dev/null", Options: []string{"bind"}}}
		},
		"socket of the host": func(s *specs.Spec) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			s.Mounts = []specs.Mount{{Destination: "/m", Source: path, Options: []string{"bind"}}}
		},
		"ridmap": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/m", Source: "/tmp", Options: []string{"rbind", "ridmap"}}}
		},
		"seccomp listener": func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/run/l"} },
		"no such file": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/m", Source: "/no/such/file", Options: []string{"bind"}}}
		},
	} {
		spec := containerSpec()
		change(spec)
		if _, err := translate(t, spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestWhatEveryHostNamesIsIgnored(t *testing.T) {
	for _, profile := range []string{"", "unconfined", "cri-containerd.apparmor.d", "ctr-default", "nerdctl-default"} {
		spec := containerSpec()
		spec.Process.ApparmorProfile = profile
		spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200}}
		if _, err := translate(t, spec); err != nil || spec.Process.ApparmorProfile != "" {
			t.Errorf("AppArmor profile %q: %q, %v", profile, spec.Process.ApparmorProfile, err)
		}
	}
}

func TestProcessIDsAreNoneOfTheHost(t *testing.T) {
	p := newPIDs()
	if pid := p.add("a"); pid <= 4<<20 {
		t.Errorf("process id %d can be one of the host's", pid)
	}
}

var podUsers = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}

func userNamespaceSpec() *specs.Spec {
	s := containerSpec()
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/77/ns/user"})
	s.Linux.UIDMappings, s.Linux.GIDMappings = podUsers, podUsers
	return s
}

func TestOwnersOfVolumesAreMappedOnTheHost(t *testing.T) {
	spec := userNamespaceSpec()
	spec.Mounts = []specs.Mount{
		{Destination: "/mapped", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}, UIDMappings: podUsers, GIDMappings: podUsers},
		{Destination: "/plain", Type: "bind", Source: t.TempDir(), Options: []string{"rbind"}},
		{Destination: "/asked", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "idmap"}},
	}
	tr := &translation{id: "c1", role: cri.RoleContainer, spec: spec, container: newPIDs().container,
		sandboxPID: sandboxPID, userNS: cri.UserNamespaceOf(spec), volumeName: ownName}
	if err := tr.apply(); err != nil {
		t.Fatal(err)
	}
	const want = "0:100000:65536"
	for i, ids := range []string{want, "", want} {
		if a := tr.attachments[i]; a.uids != ids || a.gids != ids {
			t.Errorf("%s is mapped by %q and %q, want %q", spec.Mounts[i].Destination, a.uids, a.gids, ids)
		}
		if m := spec.Mounts[i]; m.UIDMappings != nil || m.GIDMappings != nil || slices.Contains(m.Options, "idmap") {
			t.Errorf("the guest is told to map what the host has mapped: %+v", m)
		}
	}
	if spec.Linux.UIDMappings != nil || spec.Linux.GIDMappings != nil {
		t.Error("the container has mappings of its own, not its pod's user namespace")
	}
	for _, m := range spec.Mounts[3:] {
		if got := slices.Contains(m.Options, "idmap"); got != (m.Destination != "/dev/shm") {
			t.Errorf("the pod's %s has options %v", m.Destination, m.Options)
		}
	}
}

func TestAUserNamespaceThatIsNotThePodsIsRefused(t *testing.T) {
	if _, err := translate(t, userNamespaceSpec()); err == nil || !strings.Contains(err.Error(), "user namespace") {
		t.Errorf("error %v", err)
	}
}
