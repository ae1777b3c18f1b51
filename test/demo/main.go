// Command demo runs one pod of two containers in a microVM on this node, shows what it is, and removes it again. It
// checks everything that it shows: its exit code is 0 only if all was as promised. make demo brings it to a node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/test/testpod"
)

type demo struct {
	ctx    context.Context
	out    io.Writer
	client *testpod.Client
	report report
}

func main() {
	handler := flag.String("handler", "krun", "runtime handler of the pod")
	file := flag.String("json", "demo.json", "file for the report")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	d := &demo{ctx: ctx, out: os.Stdout, report: newReport()}
	if err := d.run(*handler); err != nil {
		d.report.Problems = append(d.report.Problems, err.Error())
	} else {
		d.report.Problems = append(d.report.Problems, d.report.judge()...)
	}
	if err := d.report.write(*file); err != nil {
		d.report.Problems = append(d.report.Problems, err.Error())
	}
	for _, p := range d.report.Problems {
		fmt.Fprintln(os.Stderr, "demo: not as promised:", p)
	}
	if len(d.report.Problems) > 0 {
		os.Exit(1)
	}
	fmt.Fprintln(d.out, "\nAll as promised.")
}

// timed runs one stage and notes its time.
func (d *demo) timed(name string, f func() error) error {
	began := time.Now()
	err := f()
	ms := float64(time.Since(began).Microseconds()) / 1000
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.report.Stages = append(d.report.Stages, stage{name, ms})
	fmt.Fprintf(d.out, "%8.0f ms  %s\n", ms, name)
	return nil
}

func (d *demo) run(handler string) (err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	d.report.HostKernel = unix.ByteSliceToString(u.Release[:])
	before, err := testpod.TakeInventory()
	if err != nil {
		return err
	}
	logs, err := os.MkdirTemp("", "krunpod-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(logs)
	if d.client, err = testpod.Dial(testpod.Address(), logs); err != nil {
		return err
	}
	defer d.client.Close()
	// A pod that failed is to leave nothing either.
	return errors.Join(d.pod(handler), d.checkLeftovers(before))
}

// pod is the life of the pod: whatever fails, it is removed.
func (d *demo) pod(handler string) (err error) {
	fmt.Fprintln(d.out, "\nA pod of two containers, through CRI, runtime handler", handler)
	var p *testpod.Pod
	if err := d.timed("RunPodSandbox", func() (err error) {
		p, err = d.client.Run(d.ctx, handler, d.client.PodConfig("demo"))
		return err
	}); err != nil {
		return err
	}
	defer func() {
		rerr := d.timed("StopPodSandbox, RemovePodSandbox", func() error { return p.Remove(context.WithoutCancel(d.ctx)) })
		err = errors.Join(err, rerr)
	}()
	web, err := d.container(p, "web", "mkdir /www && echo hello-from-web > /www/index.html && echo web: serving && exec httpd -f -p 8080 -h /www")
	if err != nil {
		return err
	}
	client, err := d.container(p, "client", "echo client: ready; exec sleep 1000")
	if err != nil {
		return err
	}
	if err := d.show(p, web, client); err != nil {
		return err
	}
	return d.timeline(p)
}

func (d *demo) container(p *testpod.Pod, name, script string) (k *testpod.Container, err error) {
	if err := d.timed("CreateContainer "+name, func() (err error) {
		k, err = p.Create(d.ctx, testpod.ContainerConfig(name, script))
		return err
	}); err != nil {
		return nil, err
	}
	return k, d.timed("StartContainer "+name, func() error { return k.Start(d.ctx) })
}

// show looks at the pod from inside and outside.
func (d *demo) show(p *testpod.Pod, web, client *testpod.Container) error {
	r := &d.report
	for _, look := range []struct {
		name string
		into *string
		at   func() (string, error)
	}{
		{"log line of web", &r.LogOfWeb, func() (string, error) { return web.WaitLog(d.ctx, "serving") }},
		{"log line of client", &r.LogOfClient, func() (string, error) { return client.WaitLog(d.ctx, "ready") }},
		{"exec uname -r", &r.PodKernel, func() (string, error) { return d.exec(client, "uname -r") }},
		{"client reaches web over localhost", &r.OverLocalhost, func() (string, error) {
			return d.exec(client, "for i in 1 2 3 4 5; do wget -q -O - http://127.0.0.1:8080/ && exit; sleep 1; done; exit 1")
		}},
		{"client reaches the node", &r.OverNetwork, func() (string, error) {
			return d.exec(client, "ping -q -c 1 -W 5 $(ip route | awk '/^default/ {print $3}')")
		}},
		{"the pod has an address", &r.PodIP, func() (string, error) { return p.IP(d.ctx) }},
		{"the node reaches web", &r.FromNode, func() (string, error) { return fetch(r.PodIP) }},
	} {
		if err := d.timed(look.name, func() (err error) {
			*look.into, err = look.at()
			return err
		}); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n  kernel of the host   %s\n  kernel of the pod    %s\n", r.HostKernel, r.PodKernel)
	fmt.Fprintf(d.out, "  the pod's IP (CNI)   %s\n", r.PodIP)
	fmt.Fprintf(d.out, "  log of web           %s\n  log of client        %s\n", strings.TrimSpace(r.LogOfWeb), strings.TrimSpace(r.LogOfClient))
	fmt.Fprintf(d.out, "  over localhost       %s\n  over the network     %s\n", r.OverLocalhost, received(r.OverNetwork))
	fmt.Fprintf(d.out, "  from the node        %s\n", r.FromNode)
	return nil
}

func (d *demo) exec(k *testpod.Container, script string) (string, error) {
	out, errs, exit, err := k.Exec(d.ctx, script)
	if err == nil && exit != 0 {
		err = fmt.Errorf("exit code %d: %s%s", exit, out, errs)
	}
	return strings.TrimSpace(out), err
}

func fetch(ip string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort(ip, "8080") + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return strings.TrimSpace(string(body)), err
}

// timeline shows where the time of the sandbox's start went. Only krun keeps one.
func (d *demo) timeline(p *testpod.Pod) error {
	record, err := sandbox.LoadTimeline(sandbox.Dir("/run/krunpod", "k8s.io", p.ID))
	if err != nil {
		return fmt.Errorf("boot timeline: %w", err)
	}
	fmt.Fprintln(d.out, "\nWhere the time of the start went, from the shim's start:")
	record.Print(d.out)
	for _, s := range record.Stages {
		d.report.Boot = append(d.report.Boot, stage{s.Name, float64(s.At) / 1000})
	}
	fmt.Fprintln(d.out)
	return nil
}

func (d *demo) checkLeftovers(before testpod.Inventory) (err error) {
	d.report.Leftovers, err = testpod.Leftovers(context.WithoutCancel(d.ctx), before)
	for _, l := range d.report.Leftovers {
		fmt.Fprintln(d.out, "  left behind:", l)
	}
	if err == nil {
		fmt.Fprintln(d.out, "  left behind: nothing (processes, mounts, interfaces, namespaces, cgroups, addresses, files)")
	}
	return err
}
