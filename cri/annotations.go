package cri

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet/policy"
)

// Annotations of containerd on the spec of a container that belongs to a pod (containerd/internal/cri/annotations).
const (
	annotationContainerType = "io.kubernetes.cri.container-type"
	annotationSandboxID     = "io.kubernetes.cri.sandbox-id"
	annotationPodNamespace  = "io.kubernetes.cri.sandbox-namespace"
	annotationPodName       = "io.kubernetes.cri.sandbox-name"
	annotationContainerName = "io.kubernetes.cri.container-name"
	annotationSandboxUID    = "io.kubernetes.cri.sandbox-uid"
	annotationCPUPeriod     = "io.kubernetes.cri.sandbox-cpu-period"
	annotationCPUQuota      = "io.kubernetes.cri.sandbox-cpu-quota"
	annotationMemory        = "io.kubernetes.cri.sandbox-memory"

	typeSandbox   = "sandbox"
	typeContainer = "container"
)

// Annotations of ours on a pod, handed on by containerd's pod_annotations = ["krun.dev/*"].
const (
	annotationPrefix    = "krun.dev/"
	annotationVCPUs     = "krun.dev/vcpus"
	annotationMemoryMiB = "krun.dev/memory-mib"
	annotationNetwork   = "krun.dev/network"
	annotationForward   = "krun.dev/forward"
)

// known are all of them.
var known = []string{annotationVCPUs, annotationMemoryMiB, annotationNetwork, annotationForward, policy.AnnotationRules,
	policy.AnnotationEgressAllow}

// Role is what a task is in its shim.
type Role int

const (
	// RoleAlone is a container without a pod: a sandbox of one.
	RoleAlone Role = iota
	// RoleSandbox is the pause container of the podsandbox sandboxer: it is the VM.
	RoleSandbox
	// RoleContainer is a container of a pod.
	RoleContainer
)

// RoleOf reads a task's role and the id of its sandbox (empty for RoleAlone) from its spec's annotations.
func RoleOf(annotations map[string]string) (Role, string) {
	switch annotations[annotationContainerType] {
	case typeSandbox:
		return RoleSandbox, annotations[annotationSandboxID]
	case typeContainer:
		return RoleContainer, annotations[annotationSandboxID]
	}
	return RoleAlone, ""
}

func podOf(annotations map[string]string) sandbox.Pod {
	return sandbox.Pod{Namespace: annotations[annotationPodNamespace], Name: annotations[annotationPodName]}
}

// ContainerName is what the pod calls a container; empty for one without a pod.
func ContainerName(annotations map[string]string) string { return annotations[annotationContainerName] }

// number parses an annotation of ours; 0 when it is not set.
func number(annotations map[string]string, key string, max uint64) (uint64, error) {
	text, ok := annotations[key]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("annotation %s: %q is not a positive number", key, text)
	}
	if n > max {
		return 0, fmt.Errorf("annotation %s: %d is more than this node allows (%d)", key, n, max)
	}
	return n, nil
}

// checkAnnotations refuses those of ours that do not exist, so that a misspelt one is not ignored.
func checkAnnotations(annotations map[string]string) error {
	for key := range annotations {
		if strings.HasPrefix(key, annotationPrefix) && !slices.Contains(known, key) {
			return fmt.Errorf("unknown annotation %s: known are %s", key, strings.Join(known, ", "))
		}
	}
	return nil
}
