package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/netbridge"
)

// dir is the sandbox's directory in the state directory; its methods name what lies in it.
type dir string

// Dir is the directory of sandbox id of a containerd namespace.
func Dir(state, namespace, id string) string { return filepath.Join(state, namespace, id) }

func (d dir) state() string    { return filepath.Join(string(d), "state.json") }
func (d dir) timeline() string { return filepath.Join(string(d), "timeline.json") }
func (d dir) console() string  { return filepath.Join(string(d), "console.log") }
func (d dir) sockets() string  { return filepath.Join(string(d), "sock") }
func (d dir) jail() string     { return filepath.Join(string(d), "jail") }
func (d dir) vnetRoot() string { return filepath.Join(string(d), "vnet") }
func (d dir) traffic() string  { return filepath.Join(string(d), "traffic.json") }

// skeleton is the host's writable side of the share, and share the read-only one that the guest gets.
func (d dir) skeleton() string { return filepath.Join(string(d), "skeleton") }
func (d dir) share() string    { return filepath.Join(string(d), "share") }

// State is what Remove needs to undo a sandbox, and what krunctl shows. It is written before each step that leaves
// something on the host.
type State struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Pod       Pod    `json:"pod,omitzero"`
	VCPUs     uint8  `json:"vcpus"`
	MemoryMiB uint32 `json:"memoryMiB"`
	// NetNS is set before taps may exist in the pod's network namespace, and Bridge when all of them do.
	NetNS  string            `json:"netns,omitempty"`
	Bridge *netbridge.Bridge `json:"bridge,omitempty"`
	// VNet is what the frames pass, if not a redirect.
	VNet *VNet `json:"vnet,omitempty"`
	// Cgroup is the sandbox's cgroup below the root of the cgroup2 mount.
	Cgroup string `json:"cgroup,omitempty"`
	// Runner identifies the runner process.
	Runner *Process `json:"runner,omitempty"`
	// Shim is the process id of the shim that made it.
	Shim int `json:"shim"`
	// JailOff are the layers of the jail that the configuration had switched off.
	JailOff []krun.Layer `json:"jailOff,omitempty"`
	// Booted is when the guest answered, and End how the VM ended; each is in the Ledger.
	Booted time.Time `json:"booted,omitzero"`
	End    End       `json:"end,omitempty"`
}

// Process identifies a process across reuse of its id.
type Process struct {
	PID int `json:"pid"`
	// Start is the start time in clock ticks since boot (proc_pid_stat(5), field 22).
	Start uint64 `json:"start"`
}

// ShimAlive reports whether the process that made the sandbox may still look after it; another one may have its id by now.
func (s *State) ShimAlive() bool {
	_, err := startTime(s.Shim)
	return err == nil
}

// InUse reports whether the sandbox runs or starts.
func (s *State) InUse() bool {
	if s.Runner != nil {
		return s.Runner.Alive()
	}
	return s.End == "" && s.ShimAlive()
}

func (s *State) save(d dir) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state of sandbox %s: %w", s.ID, err)
	}
	return writeFile(d.state(), data)
}

// LoadState reads the state of the sandbox in directory path; fs.ErrNotExist when there is none.
func LoadState(path string) (*State, error) {
	data, err := os.ReadFile(dir(path).state())
	if err != nil {
		return nil, err
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("state of sandbox in %s: %w", path, err)
	}
	return &s, nil
}

// List returns the directories of all sandboxes below state, of all namespaces.
func List(state string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(state, "*", "*"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, d := range dirs {
		if _, err := os.Stat(dir(d).state()); err == nil {
			found = append(found, d)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return found, nil
}

// writeFile replaces a file atomically: a reader sees the old content or the new one.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
