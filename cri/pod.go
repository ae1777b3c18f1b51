package cri

import (
	"errors"
	"fmt"
	"maps"
	"os"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
)

// ErrHostNamespace is wrapped by the errors of pods that ask for a namespace of the host.
var ErrHostNamespace = errors.New("a pod in a microVM has its own kernel and cannot join a namespace of the host")

func hostNamespace(field string) error {
	return fmt.Errorf("%s is not possible with this runtime: %w; remove %s or use another runtimeClassName",
		field, ErrHostNamespace, field)
}

// FromPod makes the Spec of the pod that CRI's RunPodSandbox describes.
func FromPod(namespace, id, netNS string, pod *runtime.PodSandboxConfig, cfg *config.Config) (sandbox.Spec, error) {
	linux := pod.GetLinux()
	ns := linux.GetSecurityContext().GetNamespaceOptions()
	switch {
	case ns.GetNetwork() == runtime.NamespaceMode_NODE:
		return sandbox.Spec{}, hostNamespace("hostNetwork")
	case ns.GetPid() == runtime.NamespaceMode_NODE:
		return sandbox.Spec{}, hostNamespace("hostPID")
	case ns.GetIpc() == runtime.NamespaceMode_NODE:
		return sandbox.Spec{}, hostNamespace("hostIPC")
	}
	name := sandbox.Pod{Namespace: pod.GetMetadata().GetNamespace(), Name: pod.GetMetadata().GetName()}
	vcpus, mib, err := size(criLimits(linux.GetResources(), linux.GetOverhead()), pod.GetAnnotations(), cfg.VM)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("pod %s/%s: %w", name.Namespace, name.Name, err)
	}
	guest := &api.ConfigureSandboxRequest{
		Hostname: pod.GetHostname(),
		Sysctls:  podSysctls(linux.GetSysctls()),
	}
	if guest.UserNamespace, err = userNamespace(ns.GetUsernsOptions()); err != nil {
		return sandbox.Spec{}, err
	}
	if guest.Hostname == "" {
		// What containerd does for a pod without a hostname.
		if guest.Hostname, err = os.Hostname(); err != nil {
			return sandbox.Spec{}, fmt.Errorf("read the node's hostname: %w", err)
		}
	}
	if guest.Dns, err = dns(pod.GetDnsConfig()); err != nil {
		return sandbox.Spec{}, err
	}
	v, err := vnet(pod.GetAnnotations(), netNS, guest.Dns, cfg.Network)
	if err != nil {
		return sandbox.Spec{}, fmt.Errorf("pod %s/%s: %w", name.Namespace, name.Name, err)
	}
	return sandbox.Spec{
		ID: id, Namespace: namespace, Pod: name, VCPUs: vcpus, MemoryMiB: mib, NetNS: netNS, VNet: v,
		Cgroup: sandbox.Cgroup{Parent: linux.GetCgroupParent()},
		Guest:  guest,
	}, nil
}

// podSysctls adds what containerd sets for a pause container unless it is configured otherwise: every process may listen
// on any port and may ping (enable_unprivileged_ports, enable_unprivileged_icmp). How it is configured a shim is not told:
// neither the PodSandboxConfig nor the runtime's options have it.
func podSysctls(asked map[string]string) map[string]string {
	all := map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	}
	maps.Copy(all, asked)
	return all
}

// userNamespace is what a pod asks for, or nil. containerd asks this of the pods of its own sandboxer only.
func userNamespace(users *runtime.UserNamespace) (*api.UserNamespace, error) {
	switch {
	case users == nil || users.Mode == runtime.NamespaceMode_NODE:
		return nil, nil
	case users.Mode == runtime.NamespaceMode_POD:
		return &api.UserNamespace{Uids: criMappings(users.Uids), Gids: criMappings(users.Gids)}, nil
	}
	return nil, fmt.Errorf("user namespace mode %s is not possible: a pod has one of its own (POD) or none (NODE)", users.Mode)
}

func criMappings(list []*runtime.IDMapping) []*api.IDMapping {
	var out []*api.IDMapping
	for _, m := range list {
		out = append(out, &api.IDMapping{ContainerId: m.ContainerId, HostId: m.HostId, Size: m.Length})
	}
	return out
}

// dns is the pod's resolver configuration; a pod that says nothing gets the node's, as with containerd's own runtimes.
func dns(c *runtime.DNSConfig) (*api.DNS, error) {
	if c == nil {
		return readResolvConf("/etc/resolv.conf")
	}
	return &api.DNS{Servers: c.Servers, Searches: c.Searches, Options: c.Options}, nil
}
