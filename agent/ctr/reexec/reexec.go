//go:build cgo && linux

package reexec

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // runs before the Go runtime
	"golang.org/x/sys/unix"
)

// timerSlack is the kernel's for every process, in nanoseconds (prctl(2), PR_SET_TIMERSLACK).
const timerSlack = 50_000

// init runs on the first thread, the one that becomes the container's process. A container gets the slack that it has
// everywhere; only the Go runtime's monitor keeps a longer one (cmd/krun-agent/sysmon.c). The call fails for no value.
func init() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init() // does not return
	}
}
