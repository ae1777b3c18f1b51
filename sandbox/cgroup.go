package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/krun"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// defaultParent is below it, for sandboxes that are told no parent.
	defaultParent = "/krunpod"
)

// cgroupPath is the sandbox's cgroup below cgroupRoot, a child of the pod's: so the kubelet's accounting of the pod
// covers the VM.
func cgroupPath(c Cgroup, id string) (string, error) {
	parent := c.Parent
	switch {
	case parent == "":
		parent = defaultParent
	case strings.HasSuffix(parent, ".slice") && !strings.Contains(parent, "/"):
		parent = expandSlice(parent)
	}
	path := filepath.Join("/", parent, "krun-"+id)
	if err := cgroup2.VerifyGroupPath(path); err != nil {
		return "", fmt.Errorf("cgroup parent %q: %w", c.Parent, err)
	}
	return path, nil
}

// expandSlice gives the path of a systemd slice: each dash in its name is a level (systemd.slice(5)).
func expandSlice(slice string) string {
	if slice == "-.slice" {
		return "/"
	}
	name := strings.TrimSuffix(slice, ".slice")
	path := "/"
	for i, r := range name {
		if r == '-' {
			path = filepath.Join(path, name[:i]+".slice")
		}
	}
	return filepath.Join(path, slice)
}

// makeCgroup makes the sandbox's cgroup with the list of devices the runner may open, and returns it opened for
// clone3(2)'s CLONE_INTO_CGROUP.
func makeCgroup(path string, jail krun.Jail) (*os.File, error) {
	if cgroups.Mode() != cgroups.Unified {
		return nil, errors.New("this host does not use cgroup v2 alone (no cgroup2 mount at " + cgroupRoot +
			"): boot it with systemd.unified_cgroup_hierarchy=1")
	}
	// Without limits of its own, but accounted for: memory.events tells a VM that was killed for want of memory.
	res := cgroup2.Resources{Memory: &cgroup2.Memory{}}
	if jail.Has(krun.LayerDevices) {
		res.Devices = allowedDevices()
	}
	if _, err := cgroup2.NewManager(cgroupRoot, path, &res); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", path, err)
	}
	f, err := os.Open(filepath.Join(cgroupRoot, path))
	if err != nil {
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	return f, nil
}

// enableController gives the sandbox's cgroup at path a controller that not every pod needs.
func enableController(path, controller string) error {
	m, err := cgroup2.Load(path)
	if err == nil {
		err = m.ToggleControllers([]string{controller}, cgroup2.Enable)
	}
	if err != nil {
		return fmt.Errorf("enable the %s controller for the microVM's cgroup %s: %w", controller, path, err)
	}
	return nil
}

// allowedDevices is what a runner may open: /dev/null, /dev/kvm and /dev/net/tun (Documentation/admin-guide/
// devices.txt). Making nodes is allowed, as in any container: every mount that the guest can reach is nodev.
func allowedDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", -1, -1, "m"),
		rule("b", -1, -1, "m"),
		rule("c", 1, 3, "rwm"),
		rule("c", 10, 232, "rwm"),
		rule("c", 10, 200, "rwm"),
	}
}

// oomKills is how many processes of a cgroup the kernel has killed for want of memory, whether the limit was that
// cgroup's or one's above (memory.events, Documentation/admin-guide/cgroup-v2.rst).
func oomKills(dir string) uint64 {
	data, err := os.ReadFile(filepath.Join(dir, "memory.events"))
	if err != nil {
		return 0 // the controller is off, or the cgroup gone
	}
	for line := range strings.Lines(string(data)) {
		var n uint64
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	return 0
}

// removeCgroup kills what is left in the cgroup and removes it; one that does not exist is no error.
func removeCgroup(ctx context.Context, path string) error {
	full := filepath.Join(cgroupRoot, path)
	if _, err := os.Stat(full); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	m, err := cgroup2.Load(path)
	if err != nil {
		return fmt.Errorf("load cgroup %s: %w", path, err)
	}
	if err := m.Kill(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("kill cgroup %s: %w", path, err)
	}
	// A killed process leaves its cgroup only when it has exited: rmdir(2) says EBUSY until then.
	return retry(ctx, 5*time.Second, func() error {
		if err := os.Remove(full); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		return nil
	})
}

// retry calls f until it succeeds, the context ends, or limit has passed, and returns f's last error.
func retry(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Usage is what a sandbox takes of the host.
type Usage struct {
	Memory uint64 // in bytes
	CPU    time.Duration
}

// Usage reads it from the sandbox's cgroup (memory.current and cpu.stat, Documentation/admin-guide/cgroup-v2.rst).
func (s *State) Usage() (Usage, error) {
	// Statistics of a cgroup that does not exist are zeros.
	if _, err := os.Stat(filepath.Join(cgroupRoot, s.Cgroup)); err != nil {
		return Usage{}, err
	}
	m, err := cgroup2.Load(s.Cgroup)
	if err != nil {
		return Usage{}, fmt.Errorf("load cgroup %s: %w", s.Cgroup, err)
	}
	stat, err := m.Stat()
	if err != nil {
		return Usage{}, fmt.Errorf("read cgroup %s: %w", s.Cgroup, err)
	}
	return Usage{Memory: stat.GetMemory().GetUsage(), CPU: time.Duration(stat.GetCPU().GetUsageUsec()) * time.Microsecond}, nil
}
