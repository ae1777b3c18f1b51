package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
)

// maxSpecSize bounds a config.json; the message that carries it to the agent may have 4 MiB (ttrpc).
const maxSpecSize = 3 << 20

// readSpec reads the OCI spec of a bundle.
func readSpec(bundle string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the container's spec: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpecSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the container's spec: %w", err)
	}
	if len(data) > maxSpecSize {
		return nil, fmt.Errorf("the container's spec has more than %d bytes", maxSpecSize)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("parse the container's spec: %w", err)
	}
	return &spec, nil
}

// attachment is a path of the host that the guest needs, and its name in the share.
type attachment struct {
	name string
	sandbox.Attach
	// uids and gids are the mappings of an idmapped mount, in the notation of containerd's mount options.
	uids, gids string
}

// translation makes the spec of a container in the guest from the one containerd wrote for the host.
type translation struct {
	id   string
	role cri.Role
	spec *specs.Spec
	// container finds the container that a process id of containerd stands for.
	container func(pid uint32) (string, bool)
	// sandboxPID stands for the pod's own namespaces.
	sandboxPID uint32
	// userNS is the pod's user namespace, or nil.
	userNS *api.UserNamespace
	// volumeName finds the name in the share of what other containers may have too (Sandbox.VolumeName).
	volumeName func(id string, a sandbox.Attach, owners string) (string, error)
	// ownNetwork says that the guest's nameserver is one that only the guest reaches.
	ownNetwork bool
	// guestVolumes are the paths of volumes that are in the guest's memory, by the index of their mount.
	guestVolumes map[int]string

	// ids are the mappings of the container's user namespace.
	ids idMap

	attachments []attachment
}

// idMap is the mappings of a user namespace, or of an idmapped mount.
type idMap struct {
	uids, gids []specs.LinuxIDMapping
}

// apply rewrites spec in place: after it every path and namespace is the guest's, and attachments says what the host
// must attach first.
func (t *translation) apply() error {
	if t.spec.Root == nil || t.spec.Process == nil || t.spec.Linux == nil {
		return errors.New("the container's spec lacks root, process or linux")
	}
	if t.spec.Hooks != nil && !emptyHooks(t.spec.Hooks) {
		return errors.New("the container's spec has OCI hooks: they run on the host and cannot reach into a microVM")
	}
	t.spec.Hooks = nil
	t.spec.Root.Path = filepath.Join(api.ShareDir, t.id, "rootfs")
	if err := t.userNamespace(); err != nil {
		return err
	}
	if err := t.namespaces(); err != nil {
		return err
	}
	if err := t.devices(); err != nil {
		return err
	}
	if s := t.spec.Linux.Seccomp; s != nil && s.ListenerPath != "" {
		return fmt.Errorf("seccomp listener %s is a socket of the host and cannot be reached from a microVM", s.ListenerPath)
	}
	if err := t.security(); err != nil {
		return err
	}
	return t.mounts()
}

func emptyHooks(h *specs.Hooks) bool {
	//lint:ignore SA1019 Prestart is deprecated, and still refused
	return len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) == 0
}

// userNamespace: containers with one share the pod's, so that they need no mappings of their own.
func (t *translation) userNamespace() error {
	own := cri.UserNamespaceOf(t.spec)
	if own != nil && !proto.Equal(own, t.userNS) {
		return fmt.Errorf("the container's user namespace is not its pod's: mappings %v, the pod's are %v", own, t.userNS)
	}
	t.ids = idMap{t.spec.Linux.UIDMappings, t.spec.Linux.GIDMappings}
	t.spec.Linux.UIDMappings, t.spec.Linux.GIDMappings = nil, nil
	return nil
}

// namespaces: the guest itself is the pod's network, IPC and UTS namespace.
func (t *translation) namespaces() error {
	var kept []specs.LinuxNamespace
	ownUTS := false
	for _, n := range t.spec.Linux.Namespaces {
		switch n.Type {
		case specs.NetworkNamespace:
			continue
		case specs.IPCNamespace, specs.UTSNamespace:
			if n.Path != "" {
				continue
			}
			ownUTS = ownUTS || n.Type == specs.UTSNamespace
		case specs.PIDNamespace:
			if n.Path != "" {
				path, err := t.pidNamespace(n.Path)
				if err != nil {
					return err
				}
				n.Path = path
			}
		case specs.UserNamespace:
			n.Path = ""
		case specs.TimeNamespace:
			if n.Path != "" {
				return errors.New("a time namespace of the host cannot be joined from a microVM")
			}
		default:
			n.Path = ""
		}
		kept = append(kept, n)
	}
	t.spec.Linux.Namespaces = kept
	if !ownUTS {
		t.spec.Hostname, t.spec.Domainname = "", ""
	}
	// Sysctls belong to the pod's namespaces and were set with the sandbox.
	t.spec.Linux.Sysctl = nil
	return nil
}

// pidNamespace finds whose namespace /proc/PID/ns/pid is: the pod's, or that of another container of it.
func (t *translation) pidNamespace(path string) (string, error) {
	var pid uint32
	if _, err := fmt.Sscanf(path, "/proc/%d/ns/pid", &pid); err != nil {
		return "", fmt.Errorf("PID namespace %s is not one of this pod", path)
	}
	if pid == t.sandboxPID {
		return api.SharedPIDNamespace, nil
	}
	id, ok := t.container(pid)
	if !ok {
		return "", fmt.Errorf("PID namespace %s is not one of this pod: the container with process id %d is gone", path, pid)
	}
	return api.ContainerPIDNamespace(id), nil
}

// deviceNumber is the major and minor number of a character device.
type deviceNumber struct{ major, minor int64 }

// guestDevices exist in every guest and need no driver of the host (Documentation/admin-guide/devices.txt).
var guestDevices = map[string]deviceNumber{
	"/dev/null": {1, 3}, "/dev/zero": {1, 5}, "/dev/full": {1, 7}, "/dev/random": {1, 8}, "/dev/urandom": {1, 9},
	"/dev/tty": {5, 0}, "/dev/fuse": {10, 229}, "/dev/net/tun": {10, 200},
}

// devices refuses those of the host, by their numbers too: the path may be that of any device in the container.
func (t *translation) devices() error {
	for _, d := range t.spec.Linux.Devices {
		if n, ok := guestDevices[d.Path]; !ok || (d.Type != "c" && d.Type != "u") || n != (deviceNumber{d.Major, d.Minor}) {
			return fmt.Errorf("device %s (%s %d:%d) of the host cannot be given to a pod in a microVM; possible are %s under their own names",
				d.Path, d.Type, d.Major, d.Minor, strings.Join(slices.Sorted(maps.Keys(guestDevices)), ", "))
		}
	}
	return nil
}

// defaultProfiles are those that clients name for every container of a host with AppArmor: containerd's CRI, ctr and nerdctl.
var defaultProfiles = []string{"cri-containerd.apparmor.d", "ctr-default", "nerdctl-default"}

// security drops what names a policy of the host's kernel: the guest has neither AppArmor nor SELinux, as a host
// without them. A profile of AppArmor that was asked for by name is a promise that nothing would keep.
func (t *translation) security() error {
	if p := t.spec.Process.ApparmorProfile; p != "" && p != "unconfined" && !slices.Contains(defaultProfiles, p) {
		return fmt.Errorf("AppArmor profile %s of the host cannot confine a container in a microVM, whose kernel has no AppArmor: "+
			"take appArmorProfile RuntimeDefault or Unconfined, or another runtime for that pod", p)
	}
	t.spec.Process.ApparmorProfile = ""
	t.spec.Process.SelinuxLabel = ""
	t.spec.Linux.MountLabel = ""
	t.spec.Linux.IntelRdt = nil
	t.spec.Linux.CgroupsPath = "/" + t.id
	return nil
}

func (t *translation) mounts() error {
	seen := map[string]bool{}
	for i := range t.spec.Mounts {
		m := &t.spec.Mounts[i]
		seen[m.Destination] = true
		if t.isPodShm(*m) {
			*m = t.podMount(m.Destination)
			continue
		}
		if !isBind(*m) {
			continue
		}
		if path, ok := t.guestVolumes[i]; ok {
			m.Source = path // owners are the guest's to map: its tmpfs can, unlike virtio-fs
			continue
		}
		if err := t.bind(i, m); err != nil {
			return err
		}
	}
	var missing []string
	switch {
	case t.role == cri.RoleContainer:
		missing = []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/shm"}
	case t.ownNetwork:
		missing = []string{"/etc/resolv.conf"}
	}
	for _, dest := range missing {
		if !seen[dest] {
			t.spec.Mounts = append(t.spec.Mounts, t.podMount(dest))
		}
	}
	return nil
}

// isPodShm reports whether m stands for the shared memory of the pod: the one that containerd keeps on the host for the
// sandbox, or, where it keeps none, the default of a container alone. A volume at /dev/shm is neither.
func (t *translation) isPodShm(m specs.Mount) bool {
	role, sandboxID := cri.RoleOf(t.spec.Annotations)
	if role != cri.RoleContainer || m.Destination != "/dev/shm" {
		return false
	}
	dir, name := filepath.Split(m.Source)
	return !isBind(m) || name == "shm" && filepath.Base(dir) == sandboxID
}

// podMount binds one of the guest's own files. As under runc, rw also drops what the guest mounted them with (noexec …).
func (t *translation) podMount(dest string) specs.Mount {
	access := "rw"
	if t.spec.Root.Readonly && dest != "/dev/shm" {
		access = "ro"
	}
	options := []string{"rbind", "rprivate", access}
	if t.ids.uids != nil && dest != "/dev/shm" {
		options = append(options, "idmap") // by the container's user namespace, so that the file is its root's
	}
	return specs.Mount{Destination: dest, Type: "bind", Source: api.PodFiles[dest], Options: options}
}

// isBind reports what runc takes for a bind mount: the option decides, not only the type.
func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

func (t *translation) bind(i int, m *specs.Mount) error {
	has := func(o string) bool { return slices.Contains(m.Options, o) }
	if has("rshared") || has("shared") {
		return fmt.Errorf("mount %s: mountPropagation Bidirectional is not possible: a mount made in a microVM cannot appear on the host",
			m.Destination)
	}
	if err := bindable(m.Source); err != nil {
		return fmt.Errorf("mount %s: %w", m.Destination, err)
	}
	a := sandbox.Attach{
		Source:       m.Source,
		ReadOnly:     has("ro") || has("rro"),
		ReadOnlyTree: has("rro"),
		Recursive:    has("rbind"),
		Follow:       has("rslave") || has("slave"),
	}
	if a.ReadOnly && !a.ReadOnlyTree && a.Recursive {
		below, err := sandbox.HasMountsBelow(m.Source)
		if err != nil {
			return err
		}
		if below {
			// In the guest the whole tree is one mount: read-only there would cover what is writable below. The
			// host's attribute holds for the top alone.
			m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
	if e, ok := cri.EmptyDir(t.spec.Annotations, *m); ok && e.Part == "" {
		// The pod's own to write: read-only for one container is the guest's matter, as long as all see one file system.
		a.ReadOnly, a.ReadOnlyTree = false, false
	}
	att := attachment{Attach: a}
	if err := t.mapOwners(m, &att); err != nil {
		return err
	}
	var err error
	if att.name, err = t.volumeName(t.id, att.Attach, att.uids+";"+att.gids); err != nil {
		return fmt.Errorf("mount %s: %w", m.Destination, err)
	}
	if att.name == "" {
		att.name = filepath.Join(t.id, "mounts", fmt.Sprint(i))
	}
	t.attachments = append(t.attachments, att)
	m.Source = filepath.Join(api.ShareDir, att.name)
	return nil
}

// mapOwners makes an idmapped mount the host's matter: virtio-fs carries ids as they are.
func (t *translation) mapOwners(m *specs.Mount, a *attachment) error {
	ids := idMap{m.UIDMappings, m.GIDMappings}
	asked := ids.uids != nil || ids.gids != nil
	for _, o := range m.Options {
		switch o {
		case "ridmap":
			return fmt.Errorf("mount %s: option ridmap is not possible with this runtime; idmap is", m.Destination)
		case "idmap":
			if !asked {
				ids, asked = t.ids, true
			}
		}
	}
	if !asked {
		return nil
	}
	if len(ids.uids) == 0 || len(ids.gids) == 0 {
		return fmt.Errorf("mount %s: an idmapped mount needs mappings of both user and group ids", m.Destination)
	}
	a.uids, a.gids = mappingOption(ids.uids), mappingOption(ids.gids)
	m.UIDMappings, m.GIDMappings = nil, nil
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "idmap" })
	return nil
}

// mappingOption writes mappings as containerd's mount options uidmap and gidmap do.
func mappingOption(list []specs.LinuxIDMapping) string {
	var parts []string
	for _, m := range list {
		parts = append(parts, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
	}
	return strings.Join(parts, ",")
}

// bindable refuses what virtio-fs cannot carry. A socket's file would be there, but who listens is known to the host's kernel
// alone (unix(7)): every connect would fail in the guest, and nothing would say why.
func bindable(source string) error {
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG, unix.S_IFIFO:
		return nil
	case unix.S_IFSOCK:
		return fmt.Errorf("%s is a socket of the host and cannot be connected to from a pod in a microVM", source)
	}
	return fmt.Errorf("%s is a device of the host and cannot be shown to a pod in a microVM", source)
}
