package ctr

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/guest"
)

// PIDNamespace gives the path of the namespace that all containers share (id empty), or of that of container id.
type PIDNamespace func(id string) (path string, err error)

// adapt changes spec to what holds in the guest, which is the pod: the guest's network, IPC and UTS namespaces are the
// pod's, cgroups have their own tree, and there are no hooks, no AppArmor and no SELinux. It returns the kernel
// parameters that are the guest's to set.
func adapt(id string, spec *specs.Spec, pidns PIDNamespace) (sysctls map[string]string, err error) {
	if !filepath.IsAbs(spec.Root.Path) {
		return nil, fmt.Errorf("root file system %q: not an absolute path", spec.Root.Path)
	}
	l := spec.Linux
	if l.Namespaces, err = namespaces(l.Namespaces, pidns); err != nil {
		return nil, err
	}
	l.CgroupsPath = guest.ContainersGroup + "/" + id
	spec.Hooks = nil
	l.MountLabel, l.IntelRdt = "", nil
	adaptProcess(spec.Process)
	adaptResources(l.Resources)
	if !has(l.Namespaces, specs.UTSNamespace) {
		spec.Hostname, spec.Domainname = "", ""
	}
	if has(l.Namespaces, specs.UserNamespace) {
		bindForUserNamespace(spec.Mounts)
	}
	sysctls, l.Sysctl = splitSysctls(l.Sysctl, has(l.Namespaces, specs.IPCNamespace))
	return sysctls, nil
}

// adaptProcess drops the node's security modules: the guest's kernel has none, and libcontainer would refuse.
func adaptProcess(p *specs.Process) {
	p.ApparmorProfile, p.SelinuxLabel = "", ""
}

func namespaces(list []specs.LinuxNamespace, pidns PIDNamespace) ([]specs.LinuxNamespace, error) {
	var out []specs.LinuxNamespace
	for _, ns := range list {
		switch ns.Type {
		case specs.NetworkNamespace:
			continue // the guest has the pod's interfaces
		case specs.IPCNamespace, specs.UTSNamespace:
			if ns.Path != "" {
				continue // the pod's, and so the guest's
			}
		case specs.PIDNamespace:
			path, err := pidPath(ns.Path, pidns)
			if err != nil {
				return nil, err
			}
			ns.Path = path
		default:
			if ns.Path != "" {
				return nil, fmt.Errorf("%s namespace %q: only new ones, or the pod's PID namespaces", ns.Type, ns.Path)
			}
		}
		out = append(out, ns)
	}
	if !has(out, specs.PIDNamespace) {
		return nil, fmt.Errorf("a container without a PID namespace would see the agent")
	}
	return out, nil
}

// bindForUserNamespace makes bind mounts of what a user namespace may only mount together with a network or IPC
// namespace of its own (user_namespaces(7)): those of the guest belong to the guest.
func bindForUserNamespace(mounts []specs.Mount) {
	for i := range mounts {
		m := &mounts[i]
		switch m.Type {
		case "sysfs":
			m.Source = "/sys"
		case "mqueue":
			m.Source = "/dev/mqueue"
		default:
			continue
		}
		m.Type = "bind"
		m.Options = append([]string{"rbind", "rprivate"}, m.Options...)
	}
}

func pidPath(path string, pidns PIDNamespace) (string, error) {
	if path == "" {
		return "", nil
	}
	if path == api.SharedPIDNamespace {
		return pidns("")
	}
	if id, ok := strings.CutPrefix(path, api.ContainerPIDNamespace("")); ok && id != "" {
		return pidns(id)
	}
	return "", fmt.Errorf("pid namespace %q: neither %s nor that of a container", path, api.SharedPIDNamespace)
}

func has(list []specs.LinuxNamespace, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(list, func(ns specs.LinuxNamespace) bool { return ns.Type == t })
}

// adaptResources drops what names the node's CPUs, NUMA nodes and disks, and sizes of huge pages the guest lacks.
func adaptResources(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if r.CPU != nil {
		r.CPU.Cpus, r.CPU.Mems = "", ""
	}
	r.BlockIO, r.Network, r.Rdma = nil, nil, nil
	r.HugepageLimits = slices.DeleteFunc(r.HugepageLimits, func(h specs.LinuxHugepageLimit) bool {
		_, err := os.Stat(guest.CgroupRoot + guest.ContainersGroup + "/hugetlb." + h.Pagesize + ".max")
		return err != nil
	})
	maps.DeleteFunc(r.Unified, func(key, _ string) bool {
		return strings.HasPrefix(key, "cpuset.") || strings.HasPrefix(key, "io.")
	})
}

// splitSysctls tells the guest's parameters from those of namespaces that the container has of its own. runc refuses
// the former.
func splitSysctls(all map[string]string, ownIPC bool) (guests, own map[string]string) {
	guests, own = map[string]string{}, map[string]string{}
	for name, value := range all {
		if key := strings.ReplaceAll(name, "/", "."); !strings.HasPrefix(key, "net.") && ownIPC {
			own[name] = value
		} else {
			guests[name] = value
		}
	}
	return guests, own
}
