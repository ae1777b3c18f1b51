package task

import (
	"github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/stdio"
)

// Runtime makes containers.
type Runtime interface {
	// Create makes a container and its first process, ready to execute the program but not doing it. On an error
	// nothing is left of it. It calls io.Start; io stays the caller's to close.
	Create(id string, spec *specs.Spec, io *stdio.Set) (Container, Process, error)
}

// Container is one that Create made.
type Container interface {
	// Start lets the first process execute the program.
	Start() error
	// Exec starts one more process. It calls io.Start; io stays the caller's to close.
	Exec(spec *specs.Process, io *stdio.Set) (Process, error)
	// Pids are those of all processes, in the guest's PID namespace.
	Pids() ([]int, error)
	// KillRest kills what a first process that has ended left behind; that can only be where it was not PID 1 of a
	// namespace of its own.
	KillRest() error
	Pause() error
	Resume() error
	Update(*specs.LinuxResources) error
	Stats() (*stats.Metrics, error)
	// OOMKills counts processes that the kernel killed for want of memory in this container.
	OOMKills() (uint64, error)
	// MemoryEvents calls changed after each change of the memory events, until the container has no processes left.
	MemoryEvents(changed func()) error
	// Destroy removes the container; processes that are left are killed.
	Destroy() error
}

// Process is one of a container.
type Process interface {
	Pid() int
	// Wait returns the exit status, 128 + the signal's number for a process that a signal ended. It is called once.
	Wait() uint32
	// Signal is os.ErrProcessDone for a process that has ended.
	Signal(unix.Signal) error
}
