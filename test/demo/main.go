// Command demo runs one pod of two containers in a microVM on this node, shows what it is, and removes it again. It
// checks everything that it shows: its exit code is 0 only if all was as promised. make demo brings it to a node.
package main

import (
	"context"
	"encoding/json"
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

// report is demo.json. Times are in milliseconds.
type report struct {
	HostKernel string   `json:"hostKernel"`
	PodKernel  string   `json:"podKernel"`
	PodIP      string   `json:"podIP"`
	Stages     []stage  `json:"stages"`
	Boot       []stage  `json:"bootTimeline"`
	Leftovers  []string `json:"leftovers"`
	Problems   []string `json:"problems"`
}

type stage struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"ms"`
}

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
	d := &demo{ctx: ctx, out: os.Stdout}
	err := d.run(*handler)
	if err != nil {
		d.report.Problems = append(d.report.Problems, err.Error())
	}
	if werr := d.write(*file); werr != nil {
		d.report.Problems = append(d.report.Problems, werr.Error())
	}
	if len(d.report.Problems) > 0 {
		for _, p := range d.report.Problems {
			fmt.Fprintln(os.Stderr, "demo: not as promised:", p)
		}
		os.Exit(1)
	}
	fmt.Fprintln(d.out, "\nAll as promised.")
}

func (d *demo) write(file string) error {
	data, err := json.MarshalIndent(d.report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
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
	if err := d.pod(handler); err != nil {
		return err
	}
	return d.checkLeftovers(before)
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
	var fromWeb, fromClient, local, gateway string
	steps := []struct {
		name string
		do   func() error
	}{
		{"log line of web", func() (err error) { fromWeb, err = web.WaitLog(d.ctx, "serving"); return err }},
		{"log line of client", func() (err error) { fromClient, err = client.WaitLog(d.ctx, "ready"); return err }},
		{"exec uname -r", func() (err error) { d.report.PodKernel, err = d.exec(client, "uname -r"); return err }},
		{"client reaches web over localhost", func() (err error) {
			local, err = d.exec(client, "for i in 1 2 3 4 5; do wget -q -O - http://127.0.0.1:8080/ && exit; sleep 1; done; exit 1")
			return err
		}},
		{"client reaches the node", func() (err error) {
			gateway, err = d.exec(client, "ping -q -c 1 -W 5 $(ip route | awk '/^default/ {print $3}') | grep -o '.* packets received'")
			return err
		}},
		{"the node reaches web", func() (err error) {
			if d.report.PodIP, err = p.IP(d.ctx); err != nil {
				return err
			}
			return fetch(d.report.PodIP)
		}},
	}
	for _, s := range steps {
		if err := d.timed(s.name, s.do); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "\n  kernel of the host   %s\n  kernel of the pod    %s\n", d.report.HostKernel, d.report.PodKernel)
	fmt.Fprintf(d.out, "  the pod's IP (CNI)   %s\n", d.report.PodIP)
	fmt.Fprintf(d.out, "  log of web           %s\n  log of client        %s\n", strings.TrimSpace(fromWeb), strings.TrimSpace(fromClient))
	fmt.Fprintf(d.out, "  over localhost       %s\n  over the network     %s\n", local, gateway)
	switch {
	case d.report.PodKernel == d.report.HostKernel:
		return errors.New("the pod runs on the host's kernel")
	case local != "hello-from-web":
		return fmt.Errorf("over localhost the client got %q", local)
	case net.ParseIP(d.report.PodIP) == nil:
		return fmt.Errorf("the pod's IP is %q", d.report.PodIP)
	}
	return nil
}

func (d *demo) exec(k *testpod.Container, script string) (string, error) {
	out, errs, exit, err := k.Exec(d.ctx, script)
	if err == nil && exit != 0 {
		err = fmt.Errorf("exit code %d: %s%s", exit, out, errs)
	}
	return strings.TrimSpace(out), err
}

func fetch(ip string) error {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort(ip, "8080") + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && !strings.Contains(string(body), "hello-from-web") {
		err = fmt.Errorf("the answer is %q", body)
	}
	return err
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

func (d *demo) checkLeftovers(before testpod.Inventory) error {
	ctx, cancel := context.WithTimeout(d.ctx, 20*time.Second)
	defer cancel()
	err := testpod.Poll(ctx, "the pod left something behind", func() (bool, error) {
		now, err := testpod.TakeInventory()
		if err != nil {
			return false, err
		}
		d.report.Leftovers = now.Since(before)
		return len(d.report.Leftovers) == 0, nil
	})
	for _, l := range d.report.Leftovers {
		fmt.Fprintln(d.out, "  left behind:", l)
	}
	if err == nil {
		fmt.Fprintln(d.out, "  left behind: nothing (processes, mounts, interfaces, namespaces, cgroups, files)")
	}
	return err
}
