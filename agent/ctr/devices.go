//go:build cgo && linux

package ctr

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // sets cgroups.DevicesSetV2
	"golang.org/x/sys/unix"
)

var deviceOnce sync.Once

// deviceRules makes the device list of a container a matter of "if the guest's kernel can" (CONFIG_CGROUP_BPF). The
// guest has no device but its own console, null and the like, and what keeps a container from making nodes is its
// capabilities and nodev mounts; on the host the list is what keeps it from the node's disks.
func deviceRules(log *slog.Logger) {
	deviceOnce.Do(func() {
		set := cgroups.DevicesSetV2
		var said sync.Once
		cgroups.DevicesSetV2 = func(path string, r *cgroups.Resources) error {
			err := set(path, r)
			if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
				return err
			}
			said.Do(func() { log.Warn("the guest's kernel cannot enforce device lists of containers", "error", err) })
			return nil
		}
	})
}
