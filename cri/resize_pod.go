package cri

import (
	"encoding/json"
	"errors"
	"fmt"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
)

// ErrBeyondVM is wrapped by the errors of resizes that have no room in the pod's VM.
var ErrBeyondVM = errors.New("a microVM's size is fixed when it boots: delete the pod and create it with these limits")

// UpdatedResourcesKey is the extension of a sandbox in which containerd hands on a pod's new limits
// (podsandbox.UpdatedResourcesKey of containerd's CRI plugin).
const UpdatedResourcesKey = "updated-resources"

// UpdatedResources are a pod's new limits, as containerd writes them in JSON (podsandbox.UpdatedResources).
type UpdatedResources struct {
	Overhead, Resources *runtime.LinuxContainerResources
}

// ParseUpdatedResources reads the extension's value.
func ParseUpdatedResources(data []byte) (*UpdatedResources, error) {
	var u UpdatedResources
	if err := json.Unmarshal(data, &u); err != nil {
		return nil, fmt.Errorf("the sandbox's new resources: %w", err)
	}
	return &u, nil
}

// ResizePod refuses new limits with which the pod would have been given a larger VM than the one it has. What is within is a
// matter of the containers' cgroups in the guest; a limit that is taken away is none that the VM could not keep.
func ResizePod(vm sandbox.Spec, annotations map[string]string, u *UpdatedResources, cfg *config.Config) error {
	l := criLimits(u.Resources, u.Overhead)
	vcpus, mib, err := size(l, annotations, cfg.VM)
	if err != nil {
		return err
	}
	if l.cpuQuota > 0 && vcpus > vm.VCPUs {
		return fmt.Errorf("CPU limits of the pod need %d virtual CPUs, and its VM has %d: %w", vcpus, vm.VCPUs, ErrBeyondVM)
	}
	if l.memory > 0 && mib > vm.MemoryMiB {
		return fmt.Errorf("memory limits of the pod need a VM of %d MiB, and it has %d MiB: %w", mib, vm.MemoryMiB, ErrBeyondVM)
	}
	return nil
}
