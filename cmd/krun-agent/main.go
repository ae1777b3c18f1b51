//go:build cgo && linux

// The agent lives at the guest's root: its runtime need not look for a cgroup's CPU limit every second
// (runtime.GOMAXPROCS).
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import "C" // for init.c

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/sirupsen/logrus"

	"krun.dev/krunpod/agent"
	"krun.dev/krunpod/agent/ctr"
	_ "krun.dev/krunpod/agent/ctr/reexec" // the start of a container's process does not come as far as main
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/task"
)

const (
	// gcPercent: the agent's heap is small and seldom grows, and every MiB counts in each pod.
	gcPercent = 25
	// memoryLimit makes the collector work harder beyond it (runtime/debug.SetMemoryLimit); nothing fails.
	memoryLimit = 24 << 20
)

func main() {
	var stages guest.Stages
	stages.Mark("main")
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	log, out := guest.Logger()
	logrus.SetOutput(out)
	logrus.SetLevel(logrus.WarnLevel)
	// Setenv fails for no valid name and value. libcontainer hands GOMAXPROCS to the start of each process, which has
	// no use for more.
	_ = os.Setenv("TMPDIR", guest.TempDir)
	_ = os.Setenv("GOMAXPROCS", "1")

	err := agent.Run(agent.Config{Runtime: newRuntime, Log: log, Stages: &stages})
	if err != nil {
		log.Error("the agent cannot go on", "error", err)
	}
	guest.KillAll()
	guest.PowerOff()
}

func newRuntime(r *reap.Reaper, ns ctr.Namespaces, log *slog.Logger) task.Runtime {
	return ctr.New(r, ns, log)
}
