package cri

import (
	"encoding/json"
	"errors"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPodIsResizedWithinTheVM(t *testing.T) {
	const mib = 1 << 20
	limits := func(cpuQuota, memory int64) *runtime.LinuxContainerResources {
		return &runtime.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: cpuQuota, MemoryLimitInBytes: memory}
	}
	overhead := limits(0, 50*mib)
	for _, tc := range []struct {
		name        string
		was, to     *runtime.LinuxContainerResources
		annotations map[string]string
		refused     bool
	}{
		{name: "less of both", was: limits(200000, 100*mib), to: limits(50000, 20*mib)},
		{name: "the rest of the last CPU", was: limits(110000, 100*mib), to: limits(200000, 100*mib)},
		{name: "another CPU", was: limits(100000, 100*mib), to: limits(100001, 100*mib), refused: true},
		{name: "more memory", was: limits(100000, 100*mib), to: limits(100000, 101*mib), refused: true},
		{name: "as far as the default goes", was: nil, to: limits(200000, 100*mib)},
		{name: "beyond the default", was: nil, to: limits(200000, 1000*mib), refused: true},
		{name: "limits that the kubelet reads as none", was: limits(100000, 100*mib), to: limits(-1, -1)},
		{name: "no less than what the node gave", was: limits(6400000, 1<<40), to: limits(3200000, 1<<39)},
		{name: "a VM that an annotation sized", was: limits(100000, 100*mib), to: limits(800000, 200*mib),
			annotations: map[string]string{annotationVCPUs: "1", annotationMemoryMiB: "300"}},
	} {
		pod := podConfig()
		pod.Annotations = tc.annotations
		pod.Linux.Resources, pod.Linux.Overhead = tc.was, overhead
		vm, err := FromPod("k8s.io", "id", "/run/netns/x", pod, testConfig())
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		err = ResizePod(vm, pod.Annotations, &UpdatedResources{Overhead: overhead, Resources: tc.to}, testConfig())
		if errors.Is(err, ErrBeyondVM) != tc.refused || !tc.refused && err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// The form is that of a type internal to containerd, marshalled as encoding/json does.
func TestUpdatedResourcesAreReadAsContainerdWritesThem(t *testing.T) {
	data, err := json.Marshal(struct {
		Overhead, Resources *runtime.LinuxContainerResources
	}{
		&runtime.LinuxContainerResources{MemoryLimitInBytes: 5}, &runtime.LinuxContainerResources{CpuQuota: 7, MemoryLimitInBytes: 6}})
	if err != nil {
		t.Fatal(err)
	}
	u, err := ParseUpdatedResources(data)
	if err != nil || u.Overhead.MemoryLimitInBytes != 5 || u.Resources.MemoryLimitInBytes != 6 || u.Resources.CpuQuota != 7 {
		t.Errorf("%s is read as %v, %v", data, u, err)
	}
	if _, err := ParseUpdatedResources([]byte("{")); err == nil {
		t.Error("half of an object is taken")
	}
}
