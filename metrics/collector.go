package metrics

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet"
)

// ofSandbox are the labels of a sandbox's metrics, those of its pod as kube-state-metrics has them.
var ofSandbox = []string{"sandbox", "namespace", "pod"}

var (
	build    = prometheus.NewDesc("krunpod_build_info", "1, with the version of the program that answers.", []string{"version"}, nil)
	boots    = prometheus.NewDesc("krunpod_boot_duration_seconds", "Time from a sandbox's request to its guest's answer.", nil, nil)
	ends     = prometheus.NewDesc("krunpod_sandbox_ends_total", "Sandboxes that ended, by cause.", []string{"cause"}, nil)
	restarts = prometheus.NewDesc("krunpod_container_restarts_total", "Containers that took the place of an earlier one of their pod.", nil, nil)
	info     = prometheus.NewDesc("krunpod_sandbox_info", "1, with the layers of the jail that are switched off, and the id of containerd's namespace.",
		append(ofSandbox, "containerd_namespace", "jail_off"), nil)
	up      = prometheus.NewDesc("krunpod_sandbox_up", "1 if the microVM runs, 0 if it has ended or boots.", ofSandbox, nil)
	started = prometheus.NewDesc("krunpod_sandbox_boot_timestamp_seconds", "When the guest answered, since the epoch.", ofSandbox, nil)
	vcpus   = prometheus.NewDesc("krunpod_sandbox_vcpus", "Virtual CPUs of the microVM.", ofSandbox, nil)
	guest   = prometheus.NewDesc("krunpod_sandbox_guest_memory_bytes", "Memory that the guest has.", ofSandbox, nil)
	memory  = prometheus.NewDesc("krunpod_sandbox_memory_bytes", "Memory of the host that the microVM takes (memory.current of its cgroup).", ofSandbox, nil)
	cpu     = prometheus.NewDesc("krunpod_sandbox_cpu_seconds_total", "CPU time that the microVM took (cpu.stat of its cgroup).", ofSandbox, nil)
	frames  = prometheus.NewDesc("krunpod_vnet_frames_total", "Frames that a pod's vnet had, by the side that they came from and by what became of them.",
		append(ofSandbox, "from", "result"), nil)
	queries = prometheus.NewDesc("krunpod_vnet_dns_queries_total", "DNS queries of a pod whose network policy has names, by what became of them.",
		append(ofSandbox, "result"), nil)
	faults = prometheus.NewDesc("krunpod_unreadable", "Sandboxes, and the ledger, that could not be read for this answer.", nil, nil)
)

// All describes every metric, in the order of the documentation.
var All = []*prometheus.Desc{build, boots, ends, restarts, info, up, started, vcpus, guest, memory, cpu, frames, queries, faults}

// Collector reads a node's sandboxes anew for each answer.
type Collector struct {
	// State is the state directory, Version what build_info says.
	State, Version string
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range All {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, c.Version)
	unreadable := 0
	if l, err := sandbox.LoadLedger(c.State); err == nil {
		collectLedger(out, l)
	} else {
		unreadable++
	}
	dirs, err := sandbox.List(c.State)
	if err != nil {
		unreadable++
	}
	for _, d := range dirs {
		st, err := sandbox.LoadState(d)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it ended meanwhile
		case err != nil:
			unreadable++
		default:
			collectSandbox(out, st)
			if r, err := sandbox.LoadTraffic(d); err == nil {
				collectTraffic(out, st, r)
			}
		}
	}
	out <- prometheus.MustNewConstMetric(faults, prometheus.GaugeValue, float64(unreadable))
}

func collectLedger(out chan<- prometheus.Metric, l *sandbox.Ledger) {
	buckets, count := map[float64]uint64{}, uint64(0)
	for i, n := range l.Boots {
		count += n
		if i < len(sandbox.BootBounds) {
			buckets[sandbox.BootBounds[i].Seconds()] = count
		}
	}
	out <- prometheus.MustNewConstHistogram(boots, count, l.BootTime.Seconds(), buckets)
	for _, e := range sandbox.Ends {
		out <- prometheus.MustNewConstMetric(ends, prometheus.CounterValue, float64(l.Ends[e]), string(e))
	}
	out <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(l.Restarts))
}

func collectSandbox(out chan<- prometheus.Metric, st *sandbox.State) {
	labels := []string{st.ID, st.Pod.Namespace, st.Pod.Name}
	gauge := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	out <- prometheus.MustNewConstMetric(info, prometheus.GaugeValue, 1, append(labels, st.Namespace, names(st.JailOff))...)
	gauge(vcpus, float64(st.VCPUs))
	gauge(guest, float64(st.MemoryMiB)*(1<<20))
	if st.Booted.IsZero() || st.End != "" {
		gauge(up, 0)
		return
	}
	gauge(up, 1)
	gauge(started, float64(st.Booted.UnixMilli())/1000)
	// A cgroup that is gone is a microVM that ends just now.
	if u, err := st.Usage(); err == nil {
		gauge(memory, float64(u.Memory))
		out <- prometheus.MustNewConstMetric(cpu, prometheus.CounterValue, u.CPU.Seconds(), labels...)
	}
}

// collectTraffic tells what the vnet's last report has: its numbers, and none of its words.
func collectTraffic(out chan<- prometheus.Metric, st *sandbox.State, r *vnet.Report) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		labels = append([]string{st.ID, st.Pod.Namespace, st.Pod.Name}, labels...)
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	guest, network := vnet.SideReport{}, vnet.SideReport{}
	for _, l := range r.Links {
		guest.Add(l.FromGuest)
		network.Add(l.FromNetwork)
	}
	for from, s := range map[string]vnet.SideReport{"guest": guest, "network": network} {
		counter(frames, s.Passed, from, "passed")
		counter(frames, s.DroppedInAll(), from, "dropped")
		counter(frames, s.Unread+s.Unsent, from, "lost")
	}
	if q := r.Resolver; q != nil {
		for result, n := range map[string]uint64{"answered": q.Answered, "refused": q.Refused, "failed": q.Failed, "malformed": q.Malformed,
			"overload": q.Overload} {
			counter(queries, n, result)
		}
	}
}

func names(layers []krun.Layer) string {
	var all []string
	for _, l := range layers {
		all = append(all, string(l))
	}
	return strings.Join(all, ",")
}
