package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
)

// FromOCI makes the Spec of a sandbox from the OCI spec of its first task: a pause container, or a container alone.
func FromOCI(namespace, id string, spec *specs.Spec, cfg *config.Config) (sandbox.Spec, error) {
	if spec.Linux == nil {
		return sandbox.Spec{}, fmt.Errorf("container %s: its spec has no linux section", id)
	}
	netNS, err := namespacesOf(spec)
	if err != nil {
		return sandbox.Spec{}, err
	}
	l, err := ociLimits(spec)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("container %s: %w", id, err)
	}
	vcpus, mib, err := size(l, spec.Annotations, cfg.VM)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("container %s: %w", id, err)
	}
	guest := &api.ConfigureSandboxRequest{
		Hostname: spec.Hostname, Sysctls: spec.Linux.Sysctl, UserNamespace: UserNamespaceOf(spec),
	}
	if guest.Hostname == "" {
		if guest.Hostname, err = os.Hostname(); err != nil {
			return sandbox.Spec{}, fmt.Errorf("read the node's hostname: %w", err)
		}
	}
	// containerd shows a pod's resolver configuration to VM runtimes as a mount of the pause container.
	resolv := "/etc/resolv.conf"
	for _, m := range spec.Mounts {
		if m.Destination == "/etc/resolv.conf" && filepath.IsAbs(m.Source) {
			resolv = m.Source
		}
	}
	if guest.Dns, err = readResolvConf(resolv); err != nil {
		return sandbox.Spec{}, err
	}
	v, err := vnet(spec.Annotations, netNS, guest.Dns, cfg.Network)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("container %s: %w", id, err)
	}
	return sandbox.Spec{
		ID: id, Namespace: namespace, Pod: podOf(spec.Annotations), VCPUs: vcpus, MemoryMiB: mib, NetNS: netNS, VNet: v,
		Cgroup: sandbox.Cgroup{Parent: cgroupParent(spec.Linux.CgroupsPath)},
		Guest:  guest,
	}, nil
}

// UserNamespaceOf is the user namespace that a spec asks for, or nil.
func UserNamespaceOf(spec *specs.Spec) *api.UserNamespace {
	own := slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if !own {
		return nil
	}
	return &api.UserNamespace{Uids: idMappings(spec.Linux.UIDMappings), Gids: idMappings(spec.Linux.GIDMappings)}
}

func idMappings(list []specs.LinuxIDMapping) []*api.IDMapping {
	var out []*api.IDMapping
	for _, m := range list {
		out = append(out, &api.IDMapping{ContainerId: m.ContainerID, HostId: m.HostID, Size: m.Size})
	}
	return out
}

// namespacesOf refuses host namespaces and returns the path of the network namespace, empty for a new one.
func namespacesOf(spec *specs.Spec) (netNS string, err error) {
	has := map[specs.LinuxNamespaceType]bool{}
	for _, n := range spec.Linux.Namespaces {
		has[n.Type] = true
		if n.Type == specs.NetworkNamespace {
			netNS = n.Path
		}
	}
	for _, n := range []struct {
		kind  specs.LinuxNamespaceType
		field string
	}{{specs.NetworkNamespace, "hostNetwork"}, {specs.PIDNamespace, "hostPID"}, {specs.IPCNamespace, "hostIPC"}} {
		if !has[n.kind] {
			return "", hostNamespace(n.field)
		}
	}
	return netNS, nil
}

// ociLimits are the pod's limits from containerd's annotations, or the container's own.
func ociLimits(spec *specs.Spec) (limits, error) {
	if role, _ := RoleOf(spec.Annotations); role == RoleAlone {
		return limitsOf(spec.Linux.Resources), nil
	}
	var l limits
	for _, a := range []struct {
		key string
		to  *int64
	}{{annotationCPUPeriod, &l.cpuPeriod}, {annotationCPUQuota, &l.cpuQuota}, {annotationMemory, &l.memory}} {
		text, ok := spec.Annotations[a.key]
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return l, fmt.Errorf("annotation %s: %q is not a number", a.key, text)
		}
		*a.to = n
	}
	return l, nil
}

// cgroupParent is the parent in an OCI cgroupsPath: "/parent/id", or "slice:prefix:id" with systemd.
func cgroupParent(path string) string {
	if slice, _, ok := strings.Cut(path, ":"); ok {
		return slice
	}
	if path == "" {
		return ""
	}
	return filepath.Dir(path)
}
