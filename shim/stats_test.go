package shim

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/sandbox"
)

func metricsOf(t *testing.T, m *stats.Metrics) *anypb.Any {
	t.Helper()
	a, err := typeurl.MarshalAnyToProto(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func parsed(t *testing.T, a *anypb.Any) *stats.Metrics {
	t.Helper()
	v, err := typeurl.UnmarshalAny(a)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := v.(*stats.Metrics)
	if !ok {
		t.Fatalf("containerd would not know %T", v)
	}
	return m
}

func TestStatisticsOfAGuestThatIsHonestStayAsTheyAre(t *testing.T) {
	said := &stats.Metrics{
		Pids:    &stats.PidsStat{Current: 3, Limit: 9},
		CPU:     &stats.CPUStat{UsageUsec: 7, PSI: &stats.PSIStats{Some: &stats.PSIData{Avg10: 1.5, Avg60: 100, Total: 4}}},
		Memory:  &stats.MemoryStat{Usage: 1 << 40, Anon: 5, PSI: &stats.PSIStats{Full: &stats.PSIData{Avg300: .25}}},
		Io:      &stats.IOStat{Usage: []*stats.IOEntry{{Major: 254, Rbytes: 1}}},
		Hugetlb: []*stats.HugeTlbStat{{Pagesize: "2MB", Current: 1}}, MemoryEvents: &stats.MemoryEvents{OomKill: 2},
	}
	got, err := cgroupMetrics(metricsOf(t, said))
	if err != nil {
		t.Fatal(err)
	}
	if m := parsed(t, got); !proto.Equal(m, said) {
		t.Errorf("it said  %v\nand it is %v", said, m)
	}
}

func TestStatisticsThatContainerdCannotReadAreRefused(t *testing.T) {
	good := metricsOf(t, &stats.Metrics{})
	for name, said := range map[string]*anypb.Any{
		"none":             nil,
		"unknown type":     {TypeUrl: "type.googleapis.com/of.its.own", Value: good.Value},
		"another type":     {TypeUrl: "io.containerd.cgroups.v1.Metrics"},
		"no such encoding": {TypeUrl: good.TypeUrl, Value: []byte{0x12, 0xff}},
	} {
		if got, err := cgroupMetrics(said); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// checkFit: containerd reads it, the kubelet writes it as JSON, and it is not large.
func checkFit(t *testing.T, got *anypb.Any) {
	t.Helper()
	m := parsed(t, got)
	if _, err := json.Marshal(m); err != nil {
		t.Error(err)
	}
	if size := proto.Size(m); size > 16<<10 {
		t.Errorf("it has %d bytes", size)
	}
}

func TestStatisticsOfAGuestAreBounded(t *testing.T) {
	said := &stats.Metrics{
		CPU:     &stats.CPUStat{PSI: &stats.PSIStats{Some: &stats.PSIData{Avg10: math.NaN()}}},
		Memory:  &stats.MemoryStat{PSI: &stats.PSIStats{Full: &stats.PSIData{Avg60: math.Inf(1)}}},
		Io:      &stats.IOStat{PSI: &stats.PSIStats{Full: &stats.PSIData{Avg300: -1}}},
		Network: []*stats.NetworkStat{{Name: "eth0"}},
		Hugetlb: []*stats.HugeTlbStat{{Pagesize: "2MB\n"}, {Pagesize: "1GB"}},
		Rdma:    &stats.RdmaStat{Current: []*stats.RdmaEntry{{Device: "x"}}},
	}
	for range 10000 {
		said.Io.Usage = append(said.Io.Usage, &stats.IOEntry{Major: 1})
		said.Hugetlb = append(said.Hugetlb, &stats.HugeTlbStat{Pagesize: "2MB"})
	}
	got, err := cgroupMetrics(metricsOf(t, said))
	if err != nil {
		t.Fatal(err)
	}
	checkFit(t, got)
	m := parsed(t, got)
	if m.Network != nil || m.Rdma != nil || m.Hugetlb[0].Pagesize != "1GB" || m.Io.PSI.Full.Avg300 != 0 {
		t.Errorf("it is %v", m)
	}
}

func FuzzCgroupMetrics(f *testing.F) {
	good, err := typeurl.MarshalAnyToProto(&stats.Metrics{CPU: &stats.CPUStat{PSI: &stats.PSIStats{}}, Io: &stats.IOStat{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Value)
	f.Fuzz(func(t *testing.T, value []byte) {
		got, err := cgroupMetrics(&anypb.Any{TypeUrl: good.TypeUrl, Value: value})
		if err == nil {
			checkFit(t, got)
		}
	})
}

func TestAGuestThatIsLateHoldsUpStatisticsOnce(t *testing.T) {
	s := gauges{wait: soon}
	var one, other gauge
	said := metricsOf(t, &stats.Metrics{Pids: &stats.PidsStat{Current: 3}})
	answers := func(context.Context) (*anypb.Any, error) { return said, nil }
	if _, err := s.read(context.Background(), &one, answers); err != nil {
		t.Fatal(err)
	}
	thaw := make(chan struct{})
	frozen := func(context.Context) (*anypb.Any, error) {
		<-thaw
		return said, nil
	}
	got, err := s.read(context.Background(), &one, frozen)
	if err != nil || parsed(t, got).Pids.Current != 3 {
		t.Errorf("not what it said last, but %v, %v", got, err)
	}
	asked := func(context.Context) (*anypb.Any, error) {
		t.Error("a guest that owes an answer was asked again")
		return said, nil
	}
	if _, err := s.read(context.Background(), &one, asked); err != nil {
		t.Error(err)
	}
	if _, err := s.read(context.Background(), &other, asked); !errdefs.IsUnavailable(errgrpc.ToNative(err)) {
		t.Errorf("of what was never said: %v", err)
	}
	close(thaw)
	for deadline := time.Now().Add(10 * time.Second); s.owed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its answer does not count")
		}
	}
	if _, err := s.read(context.Background(), &other, answers); err != nil {
		t.Error(err)
	}
}

func TestAGuestThatRefusesStatisticsIsHeard(t *testing.T) {
	s := gauges{wait: late}
	refuses := func(context.Context) (*anypb.Any, error) { return nil, errors.New("no") }
	if got, err := s.read(context.Background(), new(gauge), refuses); err == nil {
		t.Errorf("%v", got)
	}
}

// teller is a guest of which only the statistics matter.
type teller struct {
	api.AgentClient
	said *anypb.Any
	err  error
}

func (t *teller) SandboxStats(context.Context, *api.SandboxStatsRequest) (*api.SandboxStatsResponse, error) {
	return &api.SandboxStatsResponse{Metrics: t.said}, t.err
}

// One error for one pod would be one for all pods of the node.
func TestStatisticsOfAPodAreNeverMissing(t *testing.T) {
	good := metricsOf(t, &stats.Metrics{CPU: &stats.CPUStat{UsageUsec: 7}, Memory: &stats.MemoryStat{Usage: 5}})
	open, closed := make(chan struct{}), make(chan struct{})
	close(closed)
	for _, tc := range []struct {
		name  string
		guest teller
		pod   *pod
		cpu   uint64
	}{
		{"that tells", teller{said: good}, &pod{ready: closed, ended: open}, 7},
		{"that starts", teller{said: good}, &pod{ready: open, ended: open}, 0},
		{"that did not start", teller{said: good}, &pod{ready: closed, ended: closed, err: errors.New("no")}, 0},
		{"that has ended", teller{said: good}, &pod{ready: closed, ended: closed}, 0},
		{"that refuses", teller{err: errors.New("no")}, &pod{ready: closed, ended: open}, 0},
		{"that tells nothing", teller{}, &pod{ready: closed, ended: open}, 0},
		{"that tells nonsense", teller{said: &anypb.Any{TypeUrl: good.TypeUrl, Value: []byte{0x12, 0xff}}}, &pod{ready: closed, ended: open}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.pod.sb = &sandbox.Sandbox{Agent: &tc.guest}
			s := &service{gauges: gauges{wait: late}}
			got, err := s.podStats(t.Context(), tc.pod)
			if err != nil {
				t.Fatal(err)
			}
			m := parsed(t, got)
			if tc.cpu > 0 && m.GetCPU().GetUsageUsec() != tc.cpu {
				t.Errorf("it took %d µs, not %d", m.GetCPU().GetUsageUsec(), tc.cpu)
			}
			if m.CPU == nil || m.Memory == nil {
				t.Errorf("the kubelet would miss something: %v", m)
			}
		})
	}
}
