package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// cpuset is what a sandbox may use of the host's CPUs and NUMA nodes (cpuset.cpus and cpuset.mems,
// Documentation/admin-guide/cgroup-v2.rst); empty is all that the cgroup above may.
type cpuset struct {
	mu         sync.Mutex
	cpus, mems string
}

// Pin keeps the VM to CPUs and NUMA nodes of the host, both in the kernel's list format; an empty one lifts the bound.
func (s *Sandbox) Pin(cpus, mems string) error {
	if cpus != "" || mems != "" {
		if err := enableController(s.state.Cgroup, "cpuset"); err != nil {
			return err
		}
	}
	return s.cpuset.set(filepath.Join(cgroupRoot, s.state.Cgroup), cpus, mems)
}

// set writes what has changed: most pods are never pinned, and need no cpuset controller.
func (c *cpuset) set(cgroup, cpus, mems string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range []struct {
		file string
		had  *string
		want string
	}{{"cpuset.cpus", &c.cpus, cpus}, {"cpuset.mems", &c.mems, mems}} {
		if *e.had == e.want {
			continue
		}
		list := e.want
		if list == "" {
			// A group in which something runs keeps a list that it has (ENOSPC, kernel/cgroup/cpuset.c, validate_change).
			all, err := os.ReadFile(filepath.Join(filepath.Dir(cgroup), e.file+".effective"))
			if err != nil {
				return fmt.Errorf("free the microVM of %s %q: %w", e.file, *e.had, err)
			}
			list = strings.TrimSpace(string(all))
		}
		if err := os.WriteFile(filepath.Join(cgroup, e.file), []byte(list+"\n"), 0); err != nil {
			return fmt.Errorf("keep the microVM to %s %q: %w", e.file, list, err)
		}
		*e.had = e.want
	}
	return nil
}
