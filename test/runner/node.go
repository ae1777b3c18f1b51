package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// node is the number of a node of hack/node.
type node int

func (n node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "hack/node", append([]string{"-n", strconv.Itoa(int(n))}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// prepare makes the node fresh, with the build and the test binary on it.
func (n node) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "hack/prepare-node", strconv.Itoa(int(n))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("prepare node %d: %w: %s", n, err, out)
	}
	return nil
}

// status is what hack/node status says: ok, frozen, panicked or down.
func (n node) status(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := n.command(ctx, "status").Output()
	if text := strings.TrimSpace(string(out)); text != "" {
		return text
	}
	return fmt.Sprintf("unknown (%v)", err)
}

// work runs tests on one node until the queue is empty.
func work(ctx context.Context, o options, n node, q *queue) error {
	if err := n.prepare(ctx); err != nil {
		return err
	}
	for {
		name, ok := q.next()
		if !ok || ctx.Err() != nil {
			return ctx.Err()
		}
		r, fault := runTest(ctx, o, n, name)
		if fault == "" {
			log.Printf("%s  %6.1fs  node %d  %s", r.outcome, r.seconds, n, name)
			if r.outcome == failed {
				log.Printf("---- output of %s\n%s\n----", name, indent(lastPart(r.output)))
				n.saveLogs(ctx, o, name)
			}
			q.add(r)
			continue
		}
		log.Printf("NODE %d BROKE during %s: %s", n, name, fault)
		n.saveLogs(ctx, o, name)
		if !q.broke(name) {
			r.output += "\nnode broke twice: " + fault
			q.add(r)
		}
		if err := errors.Join(n.command(ctx, "down").Run(), n.prepare(ctx)); err != nil {
			return err
		}
	}
}

// runTest runs one test and watches the node meanwhile; fault says how the node broke, if it did.
func runTest(ctx context.Context, o options, n node, name string) (result, string) {
	ctx, cancel := context.WithTimeout(ctx, o.limit+time.Minute)
	defer cancel()
	args := []string{"exec", "--", "env", "KRUNPOD_E2E=1"}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "KRUNPOD_E2E_") {
			args = append(args, e)
		}
	}
	args = append(args, "/opt/krunpod/e2e.test", "-test.v", "-test.run", "^"+name+"$", "-test.timeout", o.limit.String())
	cmd := n.command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	ended, fault := make(chan struct{}), make(chan string, 1)
	go func() {
		f := watch(ctx, n, ended)
		if f != "" {
			cancel()
		}
		fault <- f
	}()
	err := cmd.Run()
	close(ended)
	f := <-fault
	if f == "" && err != nil {
		// The connection may have gone with the node.
		if s := n.status(context.WithoutCancel(ctx)); s != "ok" {
			f = "the node is " + s
		}
	}
	r := result{name: name, seconds: time.Since(began).Seconds(), output: out.String(), outcome: judge(err, out.String())}
	return r, f
}

// judge reads go test's verbose output; a test that did not report its end has failed.
func judge(err error, out string) outcome {
	switch {
	case err != nil:
		return failed
	case strings.Contains(out, "\n--- SKIP: ") || strings.HasPrefix(out, "--- SKIP: "):
		return skipped
	case strings.Contains(out, "--- PASS: "):
		return passed
	}
	return failed
}

// saveLogs keeps what explains a failure.
func (n node) saveLogs(ctx context.Context, o options, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	dir := filepath.Join(o.out, "logs", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		log.Print(err)
		return
	}
	for file, args := range map[string][]string{
		"console.log":    {"console", "--dump"},
		"containerd.log": {"exec", "--", "tail", "-n", "2000", "/var/log/containerd.log"},
		"dmesg.log":      {"exec", "--", "dmesg"},
	} {
		out, err := n.command(ctx, args...).CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		if err := os.WriteFile(filepath.Join(dir, file), out, 0o644); err != nil {
			log.Print(err)
		}
	}
}

func lastPart(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
