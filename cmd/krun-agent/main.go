//go:build cgo && linux

package main

import "C" // for init.c

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // runs before the Go runtime in "init"
	"github.com/sirupsen/logrus"

	"krun.dev/krunpod/agent"
	"krun.dev/krunpod/agent/ctr"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/task"
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // does not return
	}
}

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
	_ = os.Setenv("TMPDIR", guest.TempDir) // fails for no valid name and value

	err := agent.Run(agent.Config{Runtime: newRuntime, Log: log, Stages: &stages})
	if err != nil {
		log.Error("the agent cannot go on", "error", err)
	}
	guest.KillAll()
	guest.PowerOff()
}

func newRuntime(r *reap.Reaper, pidns func(string) (string, error), log *slog.Logger) task.Runtime {
	return ctr.New(r, pidns, log)
}
