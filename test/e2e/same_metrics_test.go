package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// What CRI tells of pods and containers in place of cAdvisor: which metrics there are, of what kind and with which labels,
// and how much they say after the same load.
func TestSameMetrics(t *testing.T) {
	compareWithRunc(t, "metrics", 100, func(s *side) {
		p := s.startPod()
		config := testpod.ContainerConfig("load", load)
		config.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, CpuPeriod: 100000, CpuQuota: 80000, CpuShares: 1024,
			Unified: map[string]string{"pids.max": "77"}}
		k := s.container(p, config)
		s.name(k.ID, "CONTAINER")
		s.waitLog(k, "ready")
		s.exec(k, fmt.Sprintf("ping -c %d -s %d -i 0.2 $(ip route | sed -n 's|default via \\([^ ]*\\).*|\\1|p')", frames, frameSize))
		labels := s.lookAtDescriptors()
		s.lookAtPodMetrics(p, k, labels)
	}, "krun", "krun-podsandbox")
}

// lookAtDescriptors returns the names of each metric's labels.
func (s *side) lookAtDescriptors() map[string][]string {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	r, err := s.cri.Runtime.ListMetricDescriptors(ctx, &runtime.ListMetricDescriptorsRequest{})
	s.seeError("descriptors/error", err)
	labels := map[string][]string{}
	for _, d := range r.GetDescriptors() {
		s.see("descriptors/"+d.Name, fmt.Sprint(d.LabelKeys, " ", d.Help))
		labels[d.Name] = d.LabelKeys
	}
	return labels
}

func (s *side) lookAtPodMetrics(p *testpod.Pod, k *testpod.Container, labels map[string][]string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	r, err := s.cri.Runtime.ListPodSandboxMetrics(ctx, &runtime.ListPodSandboxMetricsRequest{})
	s.seeError("error", err)
	i := slices.IndexFunc(r.GetPodMetrics(), func(m *runtime.PodSandboxMetrics) bool { return m.PodSandboxId == p.ID })
	if i < 0 {
		s.Fatalf("under %s: no metrics of pod %s among %d", s.handler, p.ID, len(r.GetPodMetrics()))
	}
	pod := r.PodMetrics[i]
	s.seeMetrics("pod/", pod.Metrics, labels)
	s.see("containers", fmt.Sprint(len(pod.ContainerMetrics)))
	for _, c := range pod.ContainerMetrics {
		if c.ContainerId == k.ID {
			s.seeMetrics("container/", c.Metrics, labels)
		}
	}
}

// settings are the metrics that tell what was asked for, or count what the load makes: they must be exact.
var settings = []string{"container_spec_", "container_threads_max", "container_ulimits_", "container_processes", "container_threads",
	"container_oom_events_total", "container_network_receive_errors_total", "container_network_transmit_errors_total",
	"container_file_descriptors", "container_sockets"}

// measured are those that a load of a fixed size decides.
var measured = []string{"container_cpu_usage_seconds_total", "container_cpu_user_seconds_total", "container_memory_usage_bytes",
	"container_memory_working_set_bytes", "container_memory_cache", "container_fs_usage_bytes", "container_network_receive_bytes_total", "container_network_transmit_bytes_total"}

func (s *side) seeMetrics(prefix string, metrics []*runtime.Metric, labels map[string][]string) {
	s.Helper()
	has := func(prefixes []string, name string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	for _, m := range metrics {
		// A label that only this metric has, such as an interface, tells it from others of its name.
		key := prefix + m.Name
		if n := len(m.LabelValues); n > len(baseLabels) && len(labels[m.Name]) == n {
			key += "." + m.LabelValues[n-1]
		}
		s.see(key, fmt.Sprint(m.MetricType, " ", m.LabelValues, ", has a time: ", m.Timestamp > 0))
		value := m.GetValue().GetValue()
		switch {
		case has(settings, m.Name):
			s.see(key+".value", fmt.Sprint(value))
		case has(measured, m.Name):
			s.see(key+".value~", fmt.Sprint(value))
		}
	}
}

// baseLabels are those that every metric has.
var baseLabels = []string{"pod", "namespace", "container", "id", "image"}
