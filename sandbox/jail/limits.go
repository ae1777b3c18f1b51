package jail

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxFiles bounds the runner's descriptors. virtio-fs holds one for each inode that the guest remembers, so a pod that
// walks a large tree needs many; the memory behind them is charged to the pod's cgroup.
const maxFiles = 1 << 20

// limitResources sets what the guest may cost the host beside memory and CPU, which are the cgroup's.
func limitResources() error {
	// The guest's file modes are its own affair: nothing is to be masked.
	unix.Umask(0)
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		// A core dump would put guest memory on the host's disk.
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, min(maxFiles, systemMaxFiles())},
		{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0},
	}
	for _, l := range limits {
		if err := limit(l.resource, l.value); err != nil {
			return fmt.Errorf("jail: set %s to %d: %w", l.name, l.value, err)
		}
	}
	return nil
}

// limit sets a limit to value, or to the highest that is allowed where the process may not raise it so far.
func limit(resource int, value uint64) error {
	err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value})
	if err != unix.EPERM {
		return err
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return err
	}
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: now.Max, Max: now.Max})
}

// systemMaxFiles is the bound of RLIMIT_NOFILE, the sysctl fs.nr_open. The jail's /proc does not show it.
func systemMaxFiles() uint64 {
	data, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return nrOpenDefault
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return nrOpenDefault
	}
	return n
}

// nrOpenDefault is the kernel's (fs/file.c, sysctl_nr_open).
const nrOpenDefault = 1 << 20
