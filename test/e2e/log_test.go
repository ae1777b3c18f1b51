package e2e

import "os"

// logEnv is the file that containerd's log, and with it that of the shims, goes to; the default is that of the nodes of
// hack/node.
const (
	logEnv     = "KRUNPOD_E2E_LOG"
	logDefault = "/var/log/containerd.log"
)

// containerdLog returns what is logged from here on.
func (n *node) containerdLog() (since func() string) {
	n.Helper()
	path := os.Getenv(logEnv)
	if path == "" {
		path = logDefault
	}
	read := func() string {
		data, err := os.ReadFile(path)
		if err != nil {
			n.Fatalf("containerd's log (%s names it): %v", logEnv, err)
		}
		return string(data)
	}
	before := len(read())
	return func() string { return read()[before:] }
}
