package guest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

// mount is one call of mount(2), with the directory made first where its parent can be written.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	// tolerate is an error that is no failure: EBUSY where the kernel may have done it (CONFIG_DEVTMPFS_MOUNT),
	// ENODEV where it may lack the file system.
	tolerate error
}

const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// TempDir is where the agent's libraries put temporary files: the root is read-only and has no /tmp.
const TempDir = "/run/krunpod/tmp"

// firstMounts are what the agent itself needs, restMounts what containers need.
var (
	firstMounts = []mount{
		{"proc", "/proc", "proc", plain, "", nil},
		{"sysfs", "/sys", "sysfs", plain, "", nil},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755", unix.EBUSY},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755", nil},
	}
	restMounts = []mount{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666", nil},
		{"shm", "/dev/shm", "tmpfs", plain, "mode=1777", nil},
		{"mqueue", "/dev/mqueue", "mqueue", plain, "", unix.ENODEV},
		// favordynmods: moving a process into a cgroup must not wait for an RCU grace period.
		{"cgroup2", CgroupRoot, "cgroup2", plain, "nsdelegate,favordynmods,memory_recursiveprot", nil},
		// Host mounts below the share carry nodev already; device nodes of containers are on their own tmpfs.
		{api.ShareTag, api.ShareDir, "virtiofs", unix.MS_NODEV, "", nil},
	}
)

// Mount makes the mounts that the agent needs, and makes all shared, as the first process of a host does: so
// bidirectional mount propagation between containers of the pod works.
func Mount() error {
	for _, m := range firstMounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	hurry()
	for _, dir := range []string{TempDir, api.PodDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make / shared: %w", err)
	}
	return nil
}

// MountRest makes the mounts that only containers need.
func MountRest() error {
	for _, m := range restMounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// hurry makes every wait for an RCU grace period expedited (Documentation/RCU/Design/Expedited-Grace-Periods): a guest
// of few CPUs pays little for it, and mounts, namespaces and cgroups come and go without waiting for the timer's tick.
// A kernel without it (CONFIG_TINY_RCU) needs none.
func hurry() { _ = os.WriteFile("/sys/kernel/rcu_expedited", []byte("1"), 0) }

func (m *mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data)
	if m.tolerate != nil && errors.Is(err, m.tolerate) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", m.source, m.fstype, m.target, err)
	}
	return nil
}

// shmSize is what container runtimes give to /dev/shm, in bytes.
const shmSize = 64 << 20

// MountShm makes the pod's /dev/shm.
func MountShm() error {
	m := mount{source: "shm", target: api.PodDir + "/shm", fstype: "tmpfs", flags: plain,
		data: fmt.Sprintf("mode=1777,size=%d", shmSize)}
	return m.do()
}
