// Command containerd-shim-krun-v2 is containerd's runtime io.containerd.krun.v2: it runs a pod in one microVM.
// containerd starts it; a person needs only -v.
package main

import (
	"context"

	shimlib "github.com/containerd/containerd/v2/pkg/shim"

	"krun.dev/krunpod/shim"
)

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
