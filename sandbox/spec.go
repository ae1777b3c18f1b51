package sandbox

import (
	"fmt"
	"path/filepath"
	"regexp"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/krun"
)

// Spec is what one sandbox is to be. Package cri makes it from what Kubernetes or an OCI spec asked for.
type Spec struct {
	// ID is containerd's id of the sandbox, Namespace the containerd namespace that owns it.
	ID        string
	Namespace string
	// Pod names the pod; a container without one has none.
	Pod Pod
	// VCPUs and MemoryMiB are the size of the VM.
	VCPUs     uint8
	MemoryMiB uint32
	// NetNS is the path of the pod's network namespace; empty is a guest with loopback only.
	NetNS string
	// VNet is what frames pass on their way to and from the guest; nil is a redirect in the kernel.
	VNet *VNet
	// Cgroup is where the runner runs.
	Cgroup Cgroup
	// Guest is what the agent is told; its Interfaces are filled in by Start.
	Guest *api.ConfigureSandboxRequest
}

// Pod is a pod's name in Kubernetes.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

// Cgroup names the parent of the sandbox's cgroup (cgroup v2) as the CRI or OCI writes it.
type Cgroup struct {
	// Parent is a path below the cgroup root, or a systemd slice name such as kubepods-besteffort.slice; empty puts
	// the sandbox under /krunpod.
	Parent string
}

// idPattern is what containerd allows for an id (containerd/pkg/identifiers).
var idPattern = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

// ValidateID reports whether id is usable as a file name below the state directory.
func ValidateID(kind, id string) error {
	if len(id) > 76 || !idPattern.MatchString(id) {
		return fmt.Errorf("%s %q is not a containerd identifier", kind, id)
	}
	return nil
}

// Validate reports the first value that cannot be used.
func (s *Spec) Validate() error {
	if err := ValidateID("sandbox id", s.ID); err != nil {
		return err
	}
	if err := ValidateID("namespace", s.Namespace); err != nil {
		return err
	}
	if s.VCPUs == 0 {
		return fmt.Errorf("sandbox %s: no virtual CPU", s.ID)
	}
	if s.MemoryMiB < krun.MinMemoryMiB {
		return fmt.Errorf("sandbox %s: %d MiB of memory are less than the %d MiB a guest needs", s.ID, s.MemoryMiB, krun.MinMemoryMiB)
	}
	if s.NetNS != "" && !filepath.IsAbs(s.NetNS) {
		return fmt.Errorf("sandbox %s: network namespace %q is not an absolute path", s.ID, s.NetNS)
	}
	return nil
}
