package shim

import (
	"fmt"
	"math"
	"slices"

	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"krun.dev/krunpod/sandbox"
)

// What a guest's statistics can hold: disks and huge page sizes.
const (
	maxDisks     = 64
	maxPageSizes = 8
)

// cgroupMetrics makes what a guest calls its statistics ones that containerd and the kubelet can use. Both take the
// statistics of all pods of the node in one go: one that they cannot read, or write as JSON, would cost them those of all
// others.
func cgroupMetrics(said *anypb.Any) (*anypb.Any, error) {
	var m stats.Metrics
	if !typeurl.Is(said, &m) {
		return nil, fmt.Errorf("the guest's statistics are of type %.100q", said.GetTypeUrl())
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(said.GetValue(), &m); err != nil {
		return nil, fmt.Errorf("the guest's statistics: %w", err)
	}
	m.Rdma, m.Network = nil, nil // a guest has neither in its cgroups
	m.Hugetlb = m.Hugetlb[:min(len(m.Hugetlb), maxPageSizes)]
	m.Hugetlb = slices.DeleteFunc(m.Hugetlb, func(h *stats.HugeTlbStat) bool { return !isPageSize(h.Pagesize) })
	if m.Io != nil {
		m.Io.Usage = m.Io.Usage[:min(len(m.Io.Usage), maxDisks)]
	}
	for _, p := range []*stats.PSIStats{m.GetCPU().GetPSI(), m.GetMemory().GetPSI(), m.GetIo().GetPSI()} {
		boundPressure(p.GetSome())
		boundPressure(p.GetFull())
	}
	return typeurl.MarshalAnyToProto(&m)
}

// usageMetrics are what the host knows of a guest, without a limit.
func usageMetrics(u sandbox.Usage) (*anypb.Any, error) {
	return typeurl.MarshalAnyToProto(&stats.Metrics{
		CPU:    &stats.CPUStat{UsageUsec: uint64(u.CPU.Microseconds())},
		Memory: &stats.MemoryStat{Usage: u.Memory, UsageLimit: math.MaxUint64},
	})
}

// isPageSize: such as 2MB and 1GB (Documentation/admin-guide/cgroup-v2.rst, HugeTLB).
func isPageSize(s string) bool {
	return len(s) > 2 && len(s) < 8 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z')
	})
}

// boundPressure makes shares of time what they are, percentages. JSON has no way to write another float64, NaN.
func boundPressure(p *stats.PSIData) {
	if p == nil {
		return
	}
	for _, share := range []*float64{&p.Avg10, &p.Avg60, &p.Avg300} {
		if !(*share >= 0 && *share <= 100) {
			*share = 0
		}
	}
}
