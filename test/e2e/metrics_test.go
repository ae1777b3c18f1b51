package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

// scrape is what krunctl metrics says, by name.
func (n *node) scrape() map[string]*dto.MetricFamily {
	n.Helper()
	out, err := exec.Command("krunctl", "metrics").Output()
	if err != nil {
		n.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(out))
	if err != nil {
		n.Fatal(err)
	}
	return families
}

// with is the metric of a family that has a label of that value; nil when there is none.
func with(f *dto.MetricFamily, label, value string) *dto.Metric {
	for _, m := range f.GetMetric() {
		for _, l := range m.Label {
			if l.GetName() == label && l.GetValue() == value {
				return m
			}
		}
	}
	return nil
}

func ended(families map[string]*dto.MetricFamily, cause sandbox.End) float64 {
	return with(families["krunpod_sandbox_ends_total"], "cause", string(cause)).GetCounter().GetValue()
}

// A sandbox is in the metrics from its start to its removal, and what it did for longer.
func TestMetricsTellBootsMemoryAndEnds(t *testing.T) {
	n := newNode(t)
	before := n.scrape()
	var name string
	p := n.pod(func(c *runtime.PodSandboxConfig) { name = c.Metadata.Name })
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	now := n.scrape()
	boots := func(f map[string]*dto.MetricFamily) *dto.Histogram {
		return f["krunpod_boot_duration_seconds"].Metric[0].Histogram
	}
	if got := boots(now).GetSampleCount() - boots(before).GetSampleCount(); got != 1 {
		t.Errorf("%d boots were counted", got)
	}
	if took := boots(now).GetSampleSum() - boots(before).GetSampleSum(); took <= 0 || took > patience.Seconds() {
		t.Errorf("the boot took %v s", took)
	}
	of := func(metric string) *dto.Metric {
		t.Helper()
		m := with(now["krunpod_sandbox_"+metric], "sandbox", p.ID)
		if m == nil || with(&dto.MetricFamily{Metric: []*dto.Metric{m}}, "pod", name) == nil {
			t.Fatalf("%s of pod %s: %v", metric, name, m)
		}
		return m
	}
	st, err := sandbox.LoadState(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(cgroupRoot, st.Cgroup, "memory.current"))
	if err != nil {
		t.Fatal(err)
	}
	current, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := of("memory_bytes").Gauge.GetValue(); got < current*0.8 || got > current*1.2 {
		t.Errorf("the microVM takes %v bytes, by its cgroup %v", got, current)
	}
	if got := of("cpu_seconds_total").Counter.GetValue(); got <= 0 {
		t.Errorf("the boot took %v s of CPU", got)
	}
	if off := with(&dto.MetricFamily{Metric: []*dto.Metric{of("info")}}, "jail_off", ""); off == nil || of("up").Gauge.GetValue() != 1 {
		t.Errorf("not a whole jail that is up: %v %v", of("info"), of("up"))
	}

	if err := syscall.Kill(runnerOf(t, p.ID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.waitExit(k)
	err = testpod.Poll(n.ctx, "the end is not counted", func() (bool, error) {
		now = n.scrape()
		return ended(now, sandbox.EndRunner) == ended(before, sandbox.EndRunner)+1, nil
	})
	if err != nil {
		t.Error(err)
	}
	if of("up").Gauge.GetValue() != 0 {
		t.Error("the sandbox is still up")
	}
	other := n.pod()
	if err := other.Remove(n.ctx); err != nil {
		t.Fatal(err)
	}
	if got := ended(n.scrape(), sandbox.EndStopped) - ended(before, sandbox.EndStopped); got != 1 {
		t.Errorf("%v sandboxes stopped as they were asked to", got)
	}
	if got := n.scrape()["krunpod_unreadable"].Metric[0].Gauge.GetValue(); got != 0 {
		t.Errorf("%v sandboxes cannot be read", got)
	}
}
