package nodes

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Node is the number of a node of hack/node.
type Node int

// Parse reads a list like "1,2".
func Parse(list string) ([]Node, error) {
	var all []Node
	for _, f := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil || n < 1 || n > 9 || slices.Contains(all, Node(n)) {
			return nil, fmt.Errorf("nodes %q: want different numbers from 1 to 9 with commas between", list)
		}
		all = append(all, Node(n))
	}
	return all, nil
}

// Command is hack/node with these arguments.
func (n Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "hack/node", append([]string{"-n", strconv.Itoa(int(n))}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Exec is a command on the node.
func (n Node) Exec(ctx context.Context, args ...string) *exec.Cmd {
	return n.Command(ctx, append([]string{"exec", "--"}, args...)...)
}

// Prepare makes the node ready, with the build on it; args are further ones of hack/prepare-node.
func (n Node) Prepare(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "hack/prepare-node", append(args, strconv.Itoa(int(n)))...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("prepare node %d: %w: %s", n, err, out)
	}
	return nil
}

// statusTime is what hack/node status may take.
const statusTime = 20 * time.Second

// status is what hack/node status says: ok, booting, frozen, panicked or down; something else when it says nothing in time.
func (n Node) status(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	out, err := n.Command(ctx, "status").Output()
	if text := strings.TrimSpace(string(out)); text != "" {
		return text
	}
	return fmt.Sprintf("unknown (%v)", err)
}

const containerdLog = "containerd.log"

// logTime is what a node may take for its logs; one that is broken does not answer at all.
const logTime = 20 * time.Second

// saveLogs keeps what explains a failure, and prints what containerd called an error: of a run in CI nothing else is left.
func (n Node) saveLogs(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logTime)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		log.Print(err)
		return
	}
	var all sync.WaitGroup
	for file, args := range map[string][]string{
		"console.log": {"console", "--dump"},
		containerdLog: {"exec", "--", "tail", "-n", "2000", "/var/log/containerd.log"},
		"dmesg.log":   {"exec", "--", "dmesg"},
	} {
		// At once, so that what the node does not say costs nothing of what this machine has.
		all.Go(func() {
			out, err := n.Command(ctx, args...).CombinedOutput()
			if err != nil {
				out = append(out, err.Error()...)
			}
			if err := os.WriteFile(filepath.Join(dir, file), out, 0o644); err != nil {
				log.Print(err)
			}
		})
	}
	all.Wait()
	if out, err := os.ReadFile(filepath.Join(dir, containerdLog)); err == nil {
		log.Printf("---- containerd's last errors on node %d\n%s\n----", n, indent(lastErrors(string(out))))
	}
}

// lastErrors are the last lines of containerd's log of the level error, each cut to what a screen holds.
func lastErrors(log string) string {
	const most, width = 12, 500
	var errors []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, " level=error ") {
			errors = append(errors, strings.TrimSpace(line[:min(len(line), width)]))
		}
	}
	return strings.Join(errors[max(0, len(errors)-most):], "\n")
}
