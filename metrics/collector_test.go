package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/dns"
)

// write makes a file of a state directory as a shim does.
func write(t *testing.T, v any, path ...string) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func node(t *testing.T) *Collector {
	state := t.TempDir()
	l := sandbox.Ledger{Boots: make([]uint64, len(sandbox.BootBounds)+1), Ends: map[sandbox.End]uint64{sandbox.EndGuest: 2}, Restarts: 3}
	l.Boots[3], l.Boots[len(l.Boots)-1], l.BootTime = 4, 1, 200*time.Second
	write(t, l, state, ".ledger.json")
	write(t, sandbox.State{ID: "one", Namespace: "k8s.io", Pod: sandbox.Pod{Namespace: "default", Name: "web"}, VCPUs: 2, MemoryMiB: 512,
		Booted: time.UnixMilli(1500), JailOff: []krun.Layer{krun.LayerSeccomp}, Cgroup: "/none"}, state, "k8s.io", "one", "state.json")
	side := vnet.SideReport{Frames: 9, Passed: 4, Dropped: map[string]uint64{"refused": 2, "krunpod_evil": 1}, Unread: 1, Unsent: 1}
	write(t, vnet.Report{Links: []vnet.LinkReport{{FromGuest: side}, {FromGuest: side}}, Resolver: &dns.Stats{Refused: 5}},
		state, "k8s.io", "one", "traffic.json")
	write(t, sandbox.State{ID: "two", Namespace: "default"}, state, "default", "two", "state.json")
	write(t, 1, state, "default", "broken", "state.json")
	return &Collector{State: state, Version: "v1"}
}

const answer = `
# HELP krunpod_boot_duration_seconds Time from a sandbox's request to its guest's answer.
# TYPE krunpod_boot_duration_seconds histogram
BUCKETSkrunpod_boot_duration_seconds_bucket{le="+Inf"} 5
krunpod_boot_duration_seconds_sum 200
krunpod_boot_duration_seconds_count 5
# HELP krunpod_sandbox_boot_timestamp_seconds When the guest answered, since the epoch.
# TYPE krunpod_sandbox_boot_timestamp_seconds gauge
krunpod_sandbox_boot_timestamp_seconds{namespace="default",pod="web",sandbox="one"} 1.5
# HELP krunpod_sandbox_info 1, with the layers of the jail that are switched off, and the id of containerd's namespace.
# TYPE krunpod_sandbox_info gauge
krunpod_sandbox_info{containerd_namespace="default",jail_off="",namespace="",pod="",sandbox="two"} 1
krunpod_sandbox_info{containerd_namespace="k8s.io",jail_off="seccomp",namespace="default",pod="web",sandbox="one"} 1
# HELP krunpod_sandbox_up 1 if the microVM runs, 0 if it has ended or boots.
# TYPE krunpod_sandbox_up gauge
krunpod_sandbox_up{namespace="",pod="",sandbox="two"} 0
krunpod_sandbox_up{namespace="default",pod="web",sandbox="one"} 1
# HELP krunpod_unreadable Sandboxes, and the ledger, that could not be read for this answer.
# TYPE krunpod_unreadable gauge
krunpod_unreadable 1
# HELP krunpod_vnet_dns_queries_total DNS queries of a pod whose network policy has names, by what became of them.
# TYPE krunpod_vnet_dns_queries_total counter
krunpod_vnet_dns_queries_total{namespace="default",pod="web",result="answered",sandbox="one"} 0
krunpod_vnet_dns_queries_total{namespace="default",pod="web",result="failed",sandbox="one"} 0
krunpod_vnet_dns_queries_total{namespace="default",pod="web",result="malformed",sandbox="one"} 0
krunpod_vnet_dns_queries_total{namespace="default",pod="web",result="overload",sandbox="one"} 0
krunpod_vnet_dns_queries_total{namespace="default",pod="web",result="refused",sandbox="one"} 5
# HELP krunpod_vnet_frames_total Frames that a pod's vnet had, by the side that they came from and by what became of them.
# TYPE krunpod_vnet_frames_total counter
krunpod_vnet_frames_total{from="guest",namespace="default",pod="web",result="dropped",sandbox="one"} 6
krunpod_vnet_frames_total{from="guest",namespace="default",pod="web",result="lost",sandbox="one"} 4
krunpod_vnet_frames_total{from="guest",namespace="default",pod="web",result="passed",sandbox="one"} 8
krunpod_vnet_frames_total{from="network",namespace="default",pod="web",result="dropped",sandbox="one"} 0
krunpod_vnet_frames_total{from="network",namespace="default",pod="web",result="lost",sandbox="one"} 0
krunpod_vnet_frames_total{from="network",namespace="default",pod="web",result="passed",sandbox="one"} 0
`

func TestAnswer(t *testing.T) {
	buckets := ""
	for i, b := range sandbox.BootBounds {
		n := 4
		if i < 3 {
			n = 0
		}
		buckets += fmt.Sprintf("krunpod_boot_duration_seconds_bucket{le=\"%v\"} %d\n", b.Seconds(), n)
	}
	err := testutil.CollectAndCompare(node(t), strings.NewReader(strings.Replace(answer, "BUCKETS", buckets, 1)),
		"krunpod_boot_duration_seconds", "krunpod_sandbox_boot_timestamp_seconds", "krunpod_sandbox_info", "krunpod_sandbox_up", "krunpod_unreadable", "krunpod_vnet_frames_total", "krunpod_vnet_dns_queries_total")
	if err != nil {
		t.Error(err)
	}
}

// Names and types are as Prometheus recommends, and every answer agrees with Describe.
func TestAnswerIsWellFormed(t *testing.T) {
	problems, err := testutil.CollectAndLint(node(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if err := prometheus.NewPedanticRegistry().Register(node(t)); err != nil {
		t.Error(err)
	}
}

// docs/metrics.md has every metric, and no other.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, real []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(krunpod_[a-z_]+)`").FindAllSubmatch(text, -1) {
		documented = append(documented, string(m[1]))
	}
	for _, d := range All {
		real = append(real, regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1])
	}
	if !slices.Equal(documented, real) {
		t.Errorf("documented are\n%q, and told\n%q", documented, real)
	}
}

// The chart's dashboard asks for metrics that exist.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../charts/krunpod/dashboards/krunpod.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Error("the dashboard is not JSON")
	}
	asked := regexp.MustCompile(`krunpod_[a-z_]+`).FindAllString(string(text), -1)
	for _, name := range asked {
		name = strings.TrimSuffix(name, "_bucket")
		if !slices.ContainsFunc(All, func(d *prometheus.Desc) bool { return strings.Contains(d.String(), `"`+name+`"`) }) {
			t.Errorf("the dashboard asks for %s", name)
		}
	}
	if len(asked) == 0 {
		t.Error("the dashboard asks for nothing")
	}
}
