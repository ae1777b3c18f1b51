package testpod

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"

	"krun.dev/krunpod/netbridge"
)

// Inventory is everything on a node that a pod can leave behind: one line for each thing.
type Inventory map[string]bool

// TakeInventory lists shims, runners, mounts, network namespaces, interfaces, qdiscs, cgroups and the files of
// sandboxes below the state directories.
func TakeInventory() (Inventory, error) {
	inv := Inventory{}
	for _, f := range []func(Inventory) error{processes, mounts, netNamespaces, links, cgroupDirs, stateFiles} {
		if err := f(inv); err != nil {
			return nil, fmt.Errorf("take inventory of the node: %w", err)
		}
	}
	return inv, nil
}

// Since lists what inv has that before had not.
func (inv Inventory) Since(before Inventory) []string {
	var added []string
	for line := range inv {
		if !before[line] {
			added = append(added, line)
		}
	}
	sort.Strings(added)
	return added
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
				inv[fmt.Sprintf("process %s %s", filepath.Base(d), base)] = true
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
		inv["mount "+m.Mountpoint+" "+m.FSType] = true
	}
	return nil
}

func netNamespaces(inv Inventory) error {
	for _, dir := range []string{"/run/netns", "/var/run/netns"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		for _, e := range entries {
			inv["network namespace "+e.Name()] = true
		}
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
			inv["interface "+l.Attrs().Name] = true
		}
	}
	qdiscs, err := netbridge.Dump(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(nil) })
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" || q.Type() == "ingress" {
			inv[fmt.Sprintf("qdisc %s on interface %d", q.Type(), q.Attrs().LinkIndex)] = true
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
			inv["cgroup "+path] = true
		}
		return nil
	})
}

// stateDirs are the directories in which a runtime keeps one entry for each sandbox or container.
var stateDirs = []string{"/run/krunpod/*/*", "/run/containerd*/s/*", "/run/*/io.containerd.runtime.v2.task/*/*",
	"/run/*/state/io.containerd.runtime.v2.task/*/*", "/run/*/s/*"}

func stateFiles(inv Inventory) error {
	for _, pattern := range stateDirs {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, f := range found {
			inv["file "+f] = true
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
