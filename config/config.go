package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/vnet/gateway"
)

const (
	// DefaultPath is read when the runtime options name no file; it need not exist.
	DefaultPath = "/etc/krunpod/config.toml"
	// Prefix is where an installation keeps its binaries (bin) and libraries (lib), unless this program is of one elsewhere.
	Prefix = "/opt/krunpod"
)

// Config is everything an administrator may set. docs/configuration.md and config/example.toml document each key.
type Config struct {
	// Runner is the krun-runner binary.
	Runner string `toml:"runner"`
	// Agent is the krun-agent binary that becomes PID 1 of each guest.
	Agent string `toml:"agent"`
	// VNet is the krun-vnet binary.
	VNet string `toml:"vnet"`
	// Firmware is the directory with libkrunfw.so.5; empty leaves it to the dynamic loader.
	Firmware string `toml:"firmware"`
	// State is the directory for the state of running sandboxes; it must be on a tmpfs or be emptied at boot.
	State string `toml:"state"`
	// BootTimeout bounds the time from the runner's start to the agent's first answer, and that of each start of a process in the guest.
	BootTimeout Duration `toml:"boot_timeout"`
	// StopTimeout bounds the guest's orderly power-off, after which the runner is killed.
	StopTimeout Duration `toml:"stop_timeout"`
	// LogLevel is libkrun's, 0 (off) to 5 (trace).
	LogLevel uint32  `toml:"log_level"`
	VM       VM      `toml:"vm"`
	Network  Network `toml:"network"`
	Kernel   *Kernel `toml:"kernel"`
	Jail     Jail    `toml:"jail"`
}

// VM is the size of a pod's microVM. Memory is in MiB.
type VM struct {
	// DefaultVCPUs is used for a pod without a CPU limit.
	DefaultVCPUs uint8 `toml:"default_vcpus"`
	// MaxVCPUs bounds what limits and annotations can ask for; 0 is the node's number of CPUs.
	MaxVCPUs uint8 `toml:"max_vcpus"`
	// DefaultMemoryMiB is used for a pod without a memory limit.
	DefaultMemoryMiB uint32 `toml:"default_memory_mib"`
	// MaxMemoryMiB bounds what limits and annotations can ask for; 0 is the node's memory.
	MaxMemoryMiB uint32 `toml:"max_memory_mib"`
	// OverheadMiB is added to a pod's memory limit for the guest's kernel and agent.
	OverheadMiB uint32 `toml:"overhead_mib"`
	// ConcurrentBoots is how many VMs of the node boot at the same time, while others wait; 0 is as Boots says.
	ConcurrentBoots uint16 `toml:"concurrent_boots"`
}

// Boots is ConcurrentBoots, or the node's number of CPUs, but two at least: a guest that hangs must not hold up all others.
func (v VM) Boots() int {
	if v.ConcurrentBoots > 0 {
		return int(v.ConcurrentBoots)
	}
	return max(2, runtime.NumCPU())
}

// Way is how frames come from the CNI's interfaces to the guest and back.
type Way string

// The ways: by a redirect in the node's kernel, or through a process of the pod's own that a policy is in.
const (
	WayTap  Way = "tap"
	WayVNet Way = "vnet"
)

// Network is what a pod may choose.
type Network struct {
	// Default is the way of a pod without an annotation.
	Default Way `toml:"default"`
	// Allow are the ways that an annotation may choose.
	Allow []Way `toml:"allow"`
	// Subnet is that of the network of a guest without CNI's; the zero value is gateway.DefaultSubnet.
	Subnet netip.Prefix `toml:"subnet"`
}

// Kernel replaces the kernel of libkrunfw (krun.Kernel).
type Kernel struct {
	Path    string `toml:"path"`
	Format  string `toml:"format"`
	Cmdline string `toml:"cmdline"`
}

// Jail switches layers of the runner's confinement off; each one is logged as a warning at every pod start.
type Jail struct {
	Off []krun.Layer `toml:"off"`
}

// Duration is a time.Duration written as in Go ("30s").
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if v <= 0 {
		return fmt.Errorf("duration %q must be positive", text)
	}
	*d = Duration(v)
	return nil
}

// Default is the configuration of a node without a file.
func Default() Config {
	c := Config{
		State:       "/run/krunpod",
		BootTimeout: Duration(60 * time.Second),
		StopTimeout: Duration(10 * time.Second),
		LogLevel:    2,
		VM:          VM{DefaultVCPUs: 1, DefaultMemoryMiB: 512, OverheadMiB: 64},
		Network:     Network{Default: WayTap, Allow: []Way{WayTap, WayVNet}},
	}
	exe, _ := os.Executable()
	c.Use(prefixOf(exe))
	return c
}

// Use takes the files of the installation in dir.
func (c *Config) Use(dir string) {
	c.Runner = filepath.Join(dir, "bin/krun-runner")
	c.Agent = filepath.Join(dir, "bin/krun-agent")
	c.VNet = filepath.Join(dir, "bin/krun-vnet")
	c.Firmware = filepath.Join(dir, "lib")
}

// prefixOf is the installation that a program belongs to, so that several can be beside each other, and a shim's runner is of the
// shim's version also while an upgrade switches it.
func prefixOf(exe string) string {
	bin := filepath.Dir(exe)
	if _, err := os.Stat(filepath.Join(bin, "krun-runner")); err == nil && filepath.Base(bin) == "bin" {
		return filepath.Dir(bin)
	}
	return Prefix
}

// Load reads path and then, in order of their names, the files config.d/*.toml beside it, each overriding the keys it
// names. A missing DefaultPath is no error; any other missing file is. Unknown keys are errors that name the key.
func Load(path string) (*Config, error) {
	c := Default()
	optional := path == "" || path == DefaultPath
	if path == "" {
		path = DefaultPath
	}
	if err := c.merge(path); err != nil && !(optional && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	dropIns, err := filepath.Glob(filepath.Join(filepath.Dir(path), "config.d", "*.toml"))
	if err != nil {
		return nil, fmt.Errorf("configuration drop-ins beside %s: %w", path, err)
	}
	sort.Strings(dropIns)
	for _, p := range dropIns {
		if err := c.merge(p); err != nil {
			return nil, err
		}
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return &c, nil
}

func (c *Config) merge(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	err = toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(c)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		row, _ := first.Position()
		return fmt.Errorf("configuration %s, line %d: unknown key %q: remove it or see docs/configuration.md",
			path, row, strings.Join(first.Key(), "."))
	}
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Validate reports the first value that cannot be used.
func (c *Config) Validate() error {
	for _, p := range []struct{ key, path string }{{"runner", c.Runner}, {"agent", c.Agent}, {"vnet", c.VNet}, {"state", c.State}} {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s: %q is not an absolute path", p.key, p.path)
		}
	}
	if c.VM.DefaultVCPUs == 0 {
		return errors.New("vm.default_vcpus: must be 1 or more")
	}
	if c.VM.DefaultMemoryMiB < krun.MinMemoryMiB {
		return fmt.Errorf("vm.default_memory_mib: %d is less than %d", c.VM.DefaultMemoryMiB, krun.MinMemoryMiB)
	}
	if c.VM.MaxMemoryMiB != 0 && c.VM.MaxMemoryMiB < c.VM.DefaultMemoryMiB {
		return fmt.Errorf("vm.max_memory_mib: %d is less than vm.default_memory_mib", c.VM.MaxMemoryMiB)
	}
	if !isWay(c.Network.Default) {
		return fmt.Errorf("network.default: %q is neither %q nor %q", c.Network.Default, WayTap, WayVNet)
	}
	for i, w := range c.Network.Allow {
		if !isWay(w) {
			return fmt.Errorf("network.allow[%d]: %q is neither %q nor %q", i, w, WayTap, WayVNet)
		}
	}
	if err := (&gateway.Config{Subnet: c.Network.Subnet}).Validate(); err != nil {
		return fmt.Errorf("network.%w", err)
	}
	for i, l := range c.Jail.Off {
		if !krun.IsLayer(l) {
			return fmt.Errorf("jail.off[%d]: unknown layer %q, known: %v", i, l, krun.Layers)
		}
	}
	return nil
}

func isWay(w Way) bool { return w == WayTap || w == WayVNet }
