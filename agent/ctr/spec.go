package ctr

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/podns"
)

// Namespaces finds those that containers join, by their paths.
type Namespaces interface {
	// Pod is the pod's namespace of a kind (a file of /proc/PID/ns); empty when that is the guest's own.
	Pod(kind string) (path string, err error)
	// SharedPID is the PID namespace that all containers of the pod may share, PIDOf that of container id.
	SharedPID() (path string, err error)
	PIDOf(id string) (path string, err error)
	// Inside runs f in the pod's network, IPC and UTS namespaces.
	Inside(f func() error) error
}

// adapt changes spec to what holds in the guest, which is the pod: the guest's network, IPC and UTS namespaces are the
// pod's, cgroups have their own tree, and there are no hooks, no AppArmor and no SELinux. It returns the kernel
// parameters that are the guest's to set.
func adapt(id string, spec *specs.Spec, ns Namespaces) (sysctls map[string]string, err error) {
	if !filepath.IsAbs(spec.Root.Path) {
		return nil, fmt.Errorf("root file system %q: not an absolute path", spec.Root.Path)
	}
	l := spec.Linux
	if l.Namespaces, err = namespaces(l.Namespaces, ns); err != nil {
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
	sysctls, l.Sysctl = splitSysctls(l.Sysctl, has(l.Namespaces, specs.IPCNamespace))
	return sysctls, nil
}

// adaptProcess drops the node's security modules: the guest's kernel has none, and libcontainer would refuse.
func adaptProcess(p *specs.Process) {
	p.ApparmorProfile, p.SelinuxLabel = "", ""
}

// podKinds are the namespaces of a pod that its containers are in unless they have their own.
var podKinds = map[string]specs.LinuxNamespaceType{
	podns.Net: specs.NetworkNamespace, podns.IPC: specs.IPCNamespace, podns.UTS: specs.UTSNamespace,
}

func namespaces(list []specs.LinuxNamespace, of Namespaces) (out []specs.LinuxNamespace, err error) {
	for _, ns := range list {
		switch ns.Type {
		case specs.NetworkNamespace:
			continue // the pod's has its interfaces
		case specs.IPCNamespace, specs.UTSNamespace:
			if ns.Path != "" {
				continue // the pod's
			}
		case specs.UserNamespace:
			if ns.Path, err = of.Pod(podns.User); err == nil && ns.Path == "" {
				err = errors.New("a container's user namespace is its pod's, and this pod has none")
			}
		case specs.PIDNamespace:
			ns.Path, err = pidPath(ns.Path, of)
		default:
			if ns.Path != "" {
				err = fmt.Errorf("%s namespace %q: only new ones, or the pod's", ns.Type, ns.Path)
			}
		}
		if err != nil {
			return nil, err
		}
		out = append(out, ns)
	}
	for kind, t := range podKinds {
		if has(out, t) {
			continue
		}
		path, err := of.Pod(kind)
		if err != nil {
			return nil, err
		}
		if path != "" {
			out = append(out, specs.LinuxNamespace{Type: t, Path: path})
		}
	}
	if !has(out, specs.PIDNamespace) {
		return nil, fmt.Errorf("a container without a PID namespace would see the agent")
	}
	return out, nil
}

func pidPath(path string, of Namespaces) (string, error) {
	if path == "" {
		return "", nil
	}
	if path == api.SharedPIDNamespace {
		return of.SharedPID()
	}
	if id, ok := strings.CutPrefix(path, api.ContainerPIDNamespace("")); ok && id != "" {
		return of.PIDOf(id)
	}
	return "", fmt.Errorf("pid namespace %q: neither %s nor that of a container", path, api.SharedPIDNamespace)
}

func has(list []specs.LinuxNamespace, t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(list, func(ns specs.LinuxNamespace) bool { return ns.Type == t })
}

// adaptResources drops what names the node's CPUs, NUMA nodes and disks, and sizes of huge pages and swap the guest lacks.
func adaptResources(r *specs.LinuxResources) {
	if r == nil {
		return
	}
	if r.CPU != nil {
		r.CPU.Cpus, r.CPU.Mems = "", ""
	}
	r.BlockIO, r.Network, r.Rdma = nil, nil, nil
	r.HugepageLimits = slices.DeleteFunc(r.HugepageLimits, func(h specs.LinuxHugepageLimit) bool {
		return !groupHas("hugetlb." + h.Pagesize + ".max")
	})
	if r.Memory != nil && !groupHas("memory.swap.max") {
		r.Memory.Swap = nil // an update would fail with it, and leave the memory's limit as it was
	}
	maps.DeleteFunc(r.Unified, func(key, _ string) bool {
		// The kubelet forbids swap to every container of a node whose kernel knows swap.
		swap := strings.HasPrefix(key, "memory.swap.") || strings.HasPrefix(key, "memory.zswap.")
		return strings.HasPrefix(key, "cpuset.") || strings.HasPrefix(key, "io.") || swap && !groupHas(key)
	})
}

// groupHas reports whether the guest's kernel has a file of a controller.
func groupHas(file string) bool {
	_, err := os.Stat(filepath.Join(guest.CgroupRoot, guest.ContainersGroup, file))
	return err == nil
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
