// Command containerd-shim-krun-v2 is containerd's runtime io.containerd.krun.v2: it runs a pod in one microVM.
// containerd starts it; a person needs only -v.
package main

import (
	"context"
	"runtime"

	shimlib "github.com/containerd/containerd/v2/pkg/shim"

	"krun.dev/krunpod/shim"
)

func init() {
	// Threads that enter a pod's namespaces end with their goroutine (package sandbox), all but the process's first, which the
	// runtime keeps where it is. So that one is the main goroutine's.
	runtime.LockOSThread()
}

func main() {
	if shim.Abandoned() {
		return
	}
	shim.Register()
	shimlib.RunShim(context.Background(), shim.NewManager(), func(c *shimlib.Config) {
		// The shim waits for its own children, the runner and log binaries, and adopts none: the containers are in
		// the guest.
		c.NoReaper = true
		c.NoSubreaper = true
	})
}
