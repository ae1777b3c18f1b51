//go:build cgo && linux

package ctr

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/stdio"
	"krun.dev/krunpod/agent/sysctl"
	"krun.dev/krunpod/agent/task"
)

// stateRoot is where libcontainer keeps its state, on a tmpfs.
const stateRoot = "/run/krunpod/state"

// Engine is the task.Runtime of a guest.
//
// About the agent's binary, which libcontainer protects from containers (CVE-2019-5736): for each process it
// starts, it mounts an overlay of the binary's directory and of the container's state directory, read-only and
// detached, and executes from there. Nothing is copied and the page cache is shared, so the protection costs a
// millisecond and no memory; it needs CONFIG_OVERLAY_FS in the guest's kernel, which libkrunfw has. Without it
// libcontainer copies the binary into a memfd for each start: correct, but slow and large.
type Engine struct {
	reaper *reap.Reaper
	ns     Namespaces
	shares *shares
	// memlock is what a process may lock that says nothing else. The agent's own limit changes: libcontainer lifts it
	// for device lists, in what would be a process for each container with runc.
	memlock specs.POSIXRlimit
}

// New makes an Engine that starts its processes through reaper.
func New(reaper *reap.Reaper, ns Namespaces, log *slog.Logger) *Engine {
	deviceRules(log)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &own); err != nil {
		log.Warn("cannot read the limit of locked memory: containers may lock none", "error", err)
	}
	return &Engine{
		reaper: reaper, ns: ns, shares: newShares(api.ShareDir),
		memlock: specs.POSIXRlimit{Type: "RLIMIT_MEMLOCK", Soft: own.Cur, Hard: own.Max},
	}
}

// Create implements task.Runtime.
func (e *Engine) Create(id string, spec *specs.Spec, io *stdio.Set) (_ task.Container, _ task.Process, err error) {
	sysctls, err := adapt(id, spec, e.ns)
	if err != nil {
		return nil, nil, err
	}
	if err := e.ns.Inside(func() error { return sysctl.Apply(sysctl.Root, sysctls) }); err != nil {
		return nil, nil, err
	}
	release, err := e.shares.hold(spec)
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()
	if err != nil {
		return nil, nil, err
	}
	config, err := convert(id, spec)
	if err != nil {
		return nil, nil, err
	}
	lib, err := libcontainer.Create(stateRoot, id, config)
	if err != nil {
		return nil, nil, err
	}
	p, err := e.start(lib, spec.Process, io, true)
	if err != nil {
		return nil, nil, errors.Join(err, lib.Destroy())
	}
	c := &container{engine: e, lib: lib, id: id, group: guest.ContainersGroup + "/" + id, release: release}
	return c, p, nil
}

var (
	convertMu sync.Mutex
	// defaultDevices are specconv's as they were at the start.
	defaultDevices = cloneDevices(specconv.AllowedDevices)
)

// convert makes libcontainer's configuration of spec. specconv gives its list of default devices to every container by
// reference and lets a user namespace change their owners, for runc is one process for each container; here the next
// container would inherit that.
func convert(id string, spec *specs.Spec) (*configs.Config, error) {
	convertMu.Lock()
	defer convertMu.Unlock()
	specconv.AllowedDevices = cloneDevices(defaultDevices)
	return specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: id, Spec: spec})
}

func cloneDevices(list []*devices.Device) []*devices.Device {
	clone := make([]*devices.Device, len(list))
	for i, d := range list {
		own := *d
		clone[i] = &own
	}
	return clone
}

// container implements task.Container.
type container struct {
	engine *Engine
	lib    *libcontainer.Container
	id     string
	group  string
	// release lets go of its directories of the share.
	release func() error
}

// Start lets the init go on. One that has died meanwhile is a stopped one, whether its end has been collected or not.
func (c *container) Start() error {
	err := c.lib.Exec()
	if err == nil {
		return nil
	}
	if status, serr := c.lib.Status(); serr == nil && status == libcontainer.Stopped {
		// One error alone behind it: of two, gRPC's errors of containerd make lines of text.
		return fmt.Errorf("cannot start a stopped process: %w", errdefs.ErrFailedPrecondition)
	}
	return err
}

func (c *container) Exec(spec *specs.Process, io *stdio.Set) (task.Process, error) {
	adaptProcess(spec)
	p, err := c.engine.start(c.lib, spec, io, false)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (c *container) Pids() ([]int, error) { return c.lib.Processes() }

func (c *container) KillRest() error {
	config := c.lib.Config()
	if config.Namespaces.IsPrivate(configs.NEWPID) {
		return nil // the kernel has killed them
	}
	err := c.lib.Signal(unix.SIGKILL)
	if errors.Is(err, libcontainer.ErrNotRunning) {
		return nil
	}
	return err
}

func (c *container) Pause() error  { return c.lib.Pause() }
func (c *container) Resume() error { return c.lib.Resume() }

func (c *container) manager() (*cgroup2.Manager, error) { return cgroup2.Load(c.group) }

func (c *container) Update(r *specs.LinuxResources) error {
	adaptResources(r)
	r.Devices = nil // set at creation; a second program would only narrow them
	m, err := c.manager()
	if err != nil {
		return err
	}
	if err := m.Update(cgroup2.ToResources(r)); err != nil {
		return fmt.Errorf("update resources of container %s: %w", c.id, err)
	}
	return nil
}

func (c *container) Stats() (*stats.Metrics, error) {
	m, err := c.manager()
	if err != nil {
		return nil, err
	}
	return m.Stat()
}

func (c *container) OOMKills() (uint64, error) {
	m, err := c.manager()
	if err != nil {
		return 0, err
	}
	s, err := m.StatFiltered(cgroup2.StatMemoryEvents)
	if err != nil {
		return 0, err
	}
	return s.GetMemoryEvents().GetOomKill(), nil
}

func (c *container) MemoryEvents(changed func()) error {
	m, err := c.manager()
	if err != nil {
		return err
	}
	events, errs := m.EventChan()
	go func() { // ends with the cgroup: EventChan sees it empty, or its file gone
		for {
			select {
			case <-events:
				changed()
			case <-errs: // an error or, closed, the end
				return
			}
		}
	}()
	return nil
}

func (c *container) Destroy() error {
	if err := c.lib.Destroy(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return c.release()
}
