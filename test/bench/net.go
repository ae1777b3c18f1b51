package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// netResult is what a pod's network gives between it and the node, over the CNI's bridge.
type netResult struct {
	// Mbit/s of TCP by iperf3, one stream.
	Send4    float64 `json:"sendIPv4Mbit"`
	Receive4 float64 `json:"receiveIPv4Mbit"`
	Send6    float64 `json:"sendIPv6Mbit"`
	Receive6 float64 `json:"receiveIPv6Mbit"`
	// Ping is the mean round trip of ICMP echo, in milliseconds.
	Ping float64 `json:"pingMs"`
}

const (
	iperfPort    = "5201"
	iperfSeconds = "5"
	// iperf in the pod is the node's own, shown read-only: only its packets are measured.
	iperfInPod = "/host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /host/lib/x86_64-linux-gnu /host/bin/iperf3"
)

// network measures one pod of a handler.
func network(ctx context.Context, client *testpod.Client, handler string) (r netResult, err error) {
	p, err := client.Run(ctx, handler, client.PodConfig("net"))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.Remove(context.WithoutCancel(ctx))) }()
	config := testpod.ContainerConfig("net", "exec sleep 100000")
	config.Mounts = []*runtime.Mount{{HostPath: "/usr", ContainerPath: "/host", Readonly: true}}
	k, err := p.Run(ctx, config)
	if err != nil {
		return r, err
	}
	for _, m := range []struct {
		to   *float64
		args string
		v6   bool
	}{{&r.Send4, "", false}, {&r.Receive4, "-R", false}, {&r.Send6, "", true}, {&r.Receive6, "-R", true}} {
		if *m.to, err = throughput(ctx, k, m.args, m.v6); err != nil {
			return r, err
		}
	}
	r.Ping, err = ping(ctx, k)
	return r, err
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

func throughput(ctx context.Context, k *testpod.Container, args string, v6 bool) (float64, error) {
	gw, err := gateway(ctx, k, v6)
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
	out, err := output(ctx, k, fmt.Sprintf("%s --client %s --port %s --time %s --json %s", iperfInPod, gw, iperfPort, iperfSeconds, args))
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

func (r *report) printNetwork() {
	if len(r.Network) == 0 {
		return
	}
	fmt.Fprintln(os.Stdout, "\nnetwork, pod and node over the bridge   runc        krun")
	a, b := r.Network["runc"], r.Network["krun"]
	for _, row := range []struct {
		name string
		a, b float64
		unit string
	}{
		{"TCP, pod to node, IPv4", a.Send4, b.Send4, "Mbit/s"}, {"TCP, node to pod, IPv4", a.Receive4, b.Receive4, "Mbit/s"},
		{"TCP, pod to node, IPv6", a.Send6, b.Send6, "Mbit/s"}, {"TCP, node to pod, IPv6", a.Receive6, b.Receive6, "Mbit/s"},
		{"ping", a.Ping, b.Ping, "ms"},
	} {
		fmt.Printf("  %-28s %12.2f %11.2f  %s\n", row.name, row.a, row.b, row.unit)
	}
}
