package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// way is a pod whose network is measured.
type way struct {
	name, handler string
	annotations   map[string]string
}

// ways are what is compared: runc, a redirect in the kernel, the vnet without a policy and with one.
var ways = []way{
	{"runc", "runc", nil},
	{"tap", "krun", map[string]string{"krun.dev/network": "tap"}},
	{"vnet", "krun", map[string]string{"krun.dev/network": "vnet"}},
	{"policy", "krun", map[string]string{"krun.dev/network-policy": "allow egress 10.0.0.0/8; allow egress fd00::/8; deny egress any"}},
}

// measurement is one thing that a network is asked for, from a pod.
type measurement struct {
	name, unit string
	of         func(ctx context.Context, k *testpod.Container) (float64, error)
}

// measurements are those between a pod and the node, over the CNI's bridge, whose names match a regular expression; none do if that
// is empty.
func measurements(expression string) ([]measurement, error) {
	which, err := regexp.Compile(expression)
	if err != nil || expression == "" {
		return nil, err
	}
	all := allMeasurements()
	some := slices.DeleteFunc(slices.Clone(all), func(m measurement) bool { return !which.MatchString(m.name) })
	if len(some) == 0 {
		return nil, fmt.Errorf("no measurement of the network matches %q; they have names such as %q", expression, all[0].name)
	}
	return some, nil
}

func allMeasurements() (all []measurement) {
	for _, streams := range []int{1, 8} {
		for _, v6 := range []bool{false, true} {
			for _, reverse := range []bool{false, true} {
				t := transfer{streams, v6, reverse}
				all = append(all, measurement{t.String(), "Mbit/s", t.run})
			}
		}
	}
	return append(all,
		measurement{"requests on a connection", "1/s", func(ctx context.Context, k *testpod.Container) (float64, error) {
			return exchange(ctx, k, roleRequests)
		}},
		measurement{"connections, one after the other", "1/s", func(ctx context.Context, k *testpod.Container) (float64, error) {
			return exchange(ctx, k, roleConnects)
		}},
		measurement{"ping, mean", "ms", ping})
}

const (
	iperfPort    = "5201"
	iperfSeconds = "5"
	// iperf in the pod is the node's own, shown read-only: only its packets are measured.
	iperfInPod = "/host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /host/lib/x86_64-linux-gnu /host/bin/iperf3"
)

// networks measures a new pod of each way, rounds times. Each measurement asks one pod after the other, so that a machine that slows
// down slows all.
func networks(ctx context.Context, client *testpod.Client, measured []measurement, rounds int) (map[string]map[string][]float64, error) {
	r := map[string]map[string][]float64{}
	for _, w := range ways {
		r[w.name] = map[string][]float64{}
	}
	for i := range rounds {
		if err := networkRound(ctx, client, measured, fmt.Sprintf("network, round %d of %d", i+1, rounds), r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func networkRound(ctx context.Context, client *testpod.Client, measured []measurement, title string, r map[string]map[string][]float64) (err error) {
	var pods []*testpod.Pod
	defer func() { err = errors.Join(err, removeAll(ctx, pods)) }()
	containers := map[string]*testpod.Container{}
	for _, w := range ways {
		config := client.PodConfig("net")
		config.Annotations = w.annotations
		p, err := client.Run(ctx, w.handler, config)
		if err != nil {
			return fmt.Errorf("network of %s: %w", w.name, err)
		}
		pods = append(pods, p)
		if containers[w.name], err = equipped(ctx, p); err != nil {
			return fmt.Errorf("network of %s: %w", w.name, err)
		}
	}
	// What the starts have left to write would be written during the first measurements.
	unix.Sync()
	for _, m := range measured {
		fmt.Fprintf(os.Stderr, "%s: %s\n", title, m.name)
		for _, w := range ways {
			v, err := m.of(ctx, containers[w.name])
			if err != nil {
				return fmt.Errorf("network of %s: %s: %w", w.name, m.name, err)
			}
			r[w.name][m.name] = append(r[w.name][m.name], v)
		}
	}
	return nil
}

// equipped starts a container with the programs of the measurements.
func equipped(ctx context.Context, p *testpod.Pod) (*testpod.Container, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config := testpod.ContainerConfig("net", "exec sleep 100000")
	config.Mounts = []*runtime.Mount{
		{HostPath: "/usr", ContainerPath: "/host", Readonly: true}, {HostPath: self, ContainerPath: benchInPod, Readonly: true},
	}
	return p.Run(ctx, config)
}

// transfer is a run of iperf3.
type transfer struct {
	streams     int
	v6, reverse bool
}

func (t transfer) String() string {
	family, direction := "IPv4", "pod to node"
	if t.v6 {
		family = "IPv6"
	}
	if t.reverse {
		direction = "node to pod"
	}
	return fmt.Sprintf("TCP, %s, %s, streams: %d", direction, family, t.streams)
}

// gateway is the node's address on the bridge as the pod sees it.
func gateway(ctx context.Context, k *testpod.Container, v6 bool) (string, error) {
	family := ""
	if v6 {
		family = "-6 "
	}
	out, err := output(ctx, k, "ip "+family+"route | awk '/^default/ {print $3; exit}'")
	if err == nil && net.ParseIP(out) == nil {
		err = fmt.Errorf("the pod has no default route: %q", out)
	}
	return out, err
}

func (t transfer) run(ctx context.Context, k *testpod.Container) (float64, error) {
	gw, err := gateway(ctx, k, t.v6)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	server := exec.CommandContext(ctx, "iperf3", "--server", "--one-off", "--bind", gw, "--port", iperfPort)
	if err := server.Start(); err != nil {
		return 0, fmt.Errorf("iperf3 on the node: %w", err)
	}
	defer func() { _ = server.Wait() }() // killed or done: the client's result is what counts
	defer cancel()
	if err := listening(ctx, net.JoinHostPort(gw, iperfPort)); err != nil {
		return 0, err
	}
	args := ""
	if t.reverse {
		args = "--reverse"
	}
	out, err := output(ctx, k, fmt.Sprintf("%s --client %s --port %s --time %s --parallel %d --json %s", iperfInPod, gw, iperfPort, iperfSeconds,
		t.streams, args))
	if err != nil {
		return 0, err
	}
	var result struct {
		End struct {
			Received struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return 0, fmt.Errorf("iperf3 in the pod: %w: %.200s", err, out)
	}
	return result.End.Received.Bits / 1e6, nil
}

// listening waits until the server has its port; a connection would be its one client, so it looks at the kernel's list.
func listening(ctx context.Context, addr string) error {
	return testpod.Poll(ctx, "iperf3 does not listen on "+addr, func() (bool, error) {
		out, err := exec.CommandContext(ctx, "ss", "-Hltn", "sport = :"+iperfPort).Output()
		return len(strings.TrimSpace(string(out))) > 0, err
	})
}

func ping(ctx context.Context, k *testpod.Container) (float64, error) {
	gw, err := gateway(ctx, k, false)
	if err != nil {
		return 0, err
	}
	out, err := output(ctx, k, "ping -q -c 30 -i 0.2 "+gw)
	if err != nil {
		return 0, err
	}
	var lo, avg, hi float64
	last := out[strings.LastIndexByte(out, '\n')+1:]
	if _, err := fmt.Sscanf(last, "round-trip min/avg/max = %f/%f/%f ms", &lo, &avg, &hi); err != nil {
		return 0, fmt.Errorf("ping says %q", out)
	}
	return avg, nil
}

func output(ctx context.Context, k *testpod.Container, script string) (string, error) {
	out, errs, exit, err := k.Exec(ctx, script)
	if err == nil && exit != 0 {
		err = fmt.Errorf("%q: exit code %d: %s%s", script, exit, out, errs)
	}
	return strings.TrimSpace(out), err
}

func (r *report) printNetwork(measured []measurement) {
	if len(r.Network) == 0 {
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\nnetwork, pod and node over the bridge, median\t")
	for _, way := range ways {
		fmt.Fprintf(w, "%s\t", way.name)
	}
	fmt.Fprintln(w, "\t")
	for _, m := range measured {
		fmt.Fprintf(w, "%s\t", m.name)
		for _, way := range ways {
			fmt.Fprintf(w, "%.1f\t", median(r.Network[way.name][m.name]))
		}
		fmt.Fprintf(w, "%s\t\n", m.unit)
	}
	w.Flush()
}
