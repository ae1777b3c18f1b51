package testpod

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"krun.dev/krunpod/netbridge"
)

// Inventory is everything on a node that a pod can leave behind, and how many there are of each: mounts can lie upon
// each other.
type Inventory map[string]int

// TakeInventory counts shims, runners, mounts, network namespaces, interfaces, qdiscs, cgroups, leases of addresses and the
// files of sandboxes below the state directories.
func TakeInventory() (Inventory, error) {
	inv := Inventory{}
	for _, f := range []func(Inventory) error{processes, mounts, netNamespaces, links, cgroupDirs, leases, stateFiles} {
		if err := f(inv); err != nil {
			return nil, fmt.Errorf("take inventory of the node: %w", err)
		}
	}
	return inv, nil
}

// Since lists what inv has more of than before.
func (inv Inventory) Since(before Inventory) []string {
	added := []string{}
	for line, n := range inv {
		switch more := n - before[line]; {
		case more == 1:
			added = append(added, line)
		case more > 1:
			added = append(added, fmt.Sprintf("%s (%d of them)", line, more))
		}
	}
	sort.Strings(added)
	return added
}

// settling is what ends by itself may take to do so: a shim exits a moment after its answer.
const settling = 20 * time.Second

// Leftovers waits until a node has nothing that it had not before, and lists what it has all the same.
func Leftovers(ctx context.Context, before Inventory) (left []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	err = Poll(ctx, "something was left behind on the node", func() (bool, error) {
		now, err := TakeInventory()
		if err != nil {
			return false, err
		}
		left = now.Since(before)
		return len(left) == 0, nil
	})
	return left, err
}

// runtimeProcesses begin the names of the programs that a runtime starts.
var runtimeProcesses = []string{"containerd-shim", "krun-runner", "krun-vnet"}

// processes goes by the command line: libkrun gives a runner's threads other names (proc_pid_comm(5)).
func processes(inv Inventory) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		line, err := os.ReadFile(d + "/cmdline")
		if err != nil {
			continue // it has ended
		}
		program, _, _ := bytes.Cut(line, []byte{0})
		for _, name := range runtimeProcesses {
			if base := filepath.Base(string(program)); strings.HasPrefix(base, name) {
				inv[fmt.Sprintf("process %s %s", filepath.Base(d), base)]++
			}
		}
	}
	return nil
}

func mounts(inv Inventory) error {
	list, err := mountinfo.GetMounts(nil)
	if err != nil {
		return err
	}
	for _, m := range list {
		inv["mount "+m.Mountpoint+" "+m.FSType]++
	}
	return nil
}

// netNamespaceDir is where CNI's users keep network namespaces, and ip-netns(8).
const netNamespaceDir = "/var/run/netns"

func netNamespaces(inv Inventory) error {
	entries, err := os.ReadDir(netNamespaceDir)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		inv["network namespace "+e.Name()]++
	}
	return nil
}

func links(inv Inventory) error {
	list, err := netbridge.Dump(netlink.LinkList)
	if err != nil {
		return err
	}
	for _, l := range list {
		// The bridge plugin makes its bridge with the first pod, of any runtime, and never removes it.
		if l.Type() != "bridge" {
			inv["interface "+l.Attrs().Name]++
		}
	}
	qdiscs, err := netbridge.Dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(nil) })
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" || q.Type() == "ingress" {
			inv[fmt.Sprintf("qdisc %s on interface %d", q.Type(), q.Attrs().LinkIndex)]++
		}
	}
	return nil
}

func cgroupDirs(inv Inventory) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		// Parents that runtimes keep: runc's default and ours.
		if name := d.Name(); d.IsDir() && name != "krunpod" && name != "k8s.io" && name != "default" {
			inv["cgroup "+path]++
		}
		return nil
	})
}

// leaseDirs are those of the CNI plugin host-local, one directory for each network: its own default, and a dataDir below /run.
var leaseDirs = []string{"/var/lib/cni/networks/*/*", "/run/cni/*/*", "/run/*/cni/*/*"}

// leases: the plugin keeps a file for each address, named by it, and others beside them.
func leases(inv Inventory) error {
	return eachFile(leaseDirs, func(path string) {
		if net.ParseIP(filepath.Base(path)) != nil {
			inv["lease "+path]++
		}
	})
}

// stateDirs are the directories in which a runtime keeps one entry for each sandbox or container, and CNI's cache. containerd's
// state is /run/containerd, or elsewhere one directory deeper; each of its plugins has a directory there.
var stateDirs = []string{"/run/krunpod/*/*", "/run/containerd*/s/*", "/run/*/s/*", "/run/*/io.containerd.*/*/*",
	"/run/*/*/io.containerd.*/*/*", "/var/lib/cni/results/*"}

func stateFiles(inv Inventory) error {
	return eachFile(stateDirs, func(path string) { inv["file "+path] = 1 }) // the patterns overlap
}

func eachFile(patterns []string, f func(path string)) error {
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range found {
			f(path)
		}
	}
	return nil
}

// ReadCommand is the command line of a process.
func ReadCommand(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimSpace(string(bytes.ReplaceAll(data, []byte{0}, []byte{' '}))), err
}

// StatusField reads a field of /proc/PID/status (proc_pid_status(5)).
func StatusField(pid int, field string) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), field+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("/proc/%d/status has no %s", pid, field)
}
