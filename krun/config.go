package krun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Config is all that one microVM needs to boot. The shim writes it as JSON to the runner's standard input; the
// runner trusts it no more than Validate says. Paths are absolute and the host's, as seen before the jail closes.
type Config struct {
	// ID names the sandbox in messages.
	ID string `json:"id"`
	// VCPUs is the number of virtual CPUs, 1 to 255 (krun_set_vm_config).
	VCPUs uint8 `json:"vcpus"`
	// MemoryMiB is the guest's RAM in MiB (krun_set_vm_config).
	MemoryMiB uint32 `json:"memoryMiB"`
	// Kernel replaces the kernel of libkrunfw or adds to its parameters; nil uses that one as it is.
	Kernel *Kernel `json:"kernel,omitempty"`
	// Agent is the static binary that becomes PID 1 of the guest.
	Agent string `json:"agent"`
	// Firmware is the directory that holds libkrunfw.so.5; empty leaves it to the dynamic loader.
	Firmware string `json:"firmware,omitempty"`
	// Share is the directory, a shared mount on the host, that the guest sees as virtio-fs.
	Share string `json:"share"`
	// Sockets is the directory with the UNIX sockets that the guest's vsock ports lead to.
	Sockets string `json:"sockets"`
	// NICs are the guest's network interfaces, in order.
	NICs []NIC `json:"nics,omitempty"`
	// LogLevel is libkrun's: 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace (krun_set_log_level).
	LogLevel uint32 `json:"logLevel"`
	// Jail says how the runner confines itself before the VM starts.
	Jail Jail `json:"jail"`
	// Root is a directory that holds the agent as InitName and nothing else. The jail makes it; it is empty where the
	// jail's mounts are switched off.
	Root string `json:"-"`
}

// InitName is the name of the guest's PID 1 in its root directory (init= on libkrun's kernel command line).
const InitName = "init.krun"

// Kernel is an external kernel (krun_set_kernel), or with an empty Path the one of libkrunfw with a Cmdline.
type Kernel struct {
	Path string `json:"path,omitempty"`
	// Format is one of elf, image-bz2, image-gz, image-zstd (x86) or raw, pe-gz (arm64). libkrun's raw on x86 loads at
	// 2 GiB from a read-only mapping and is refused.
	Format string `json:"format,omitempty"`
	// Cmdline is appended to what libkrun needs on the kernel command line.
	Cmdline string `json:"cmdline,omitempty"`
}

// NIC is one virtio-net device, on an existing tap or on a socket.
type NIC struct {
	// Tap is the tap's name in the network namespace the runner was started in (krun_add_net_tap).
	Tap string `json:"tap,omitempty"`
	// Socket is in place of Tap: the NIC is at the other end of the runner's descriptor SocketFile, a stream socket on which each frame
	// comes after its length, without offloads (krun_add_net_unixstream).
	Socket bool `json:"socket,omitempty"`
	// MAC is the guest's hardware address in colon notation.
	MAC string `json:"mac"`
}

// SocketFile is the number of the descriptor that leads to the NIC with a Socket, of which there is one at most.
const SocketFile = 3

// HasSocket reports whether a NIC has one, and HasTap whether one has a tap.
func (c *Config) HasSocket() bool {
	return slices.ContainsFunc(c.NICs, func(n NIC) bool { return n.Socket })
}

// HasTap: see HasSocket.
func (c *Config) HasTap() bool {
	return slices.ContainsFunc(c.NICs, func(n NIC) bool { return n.Tap != "" })
}

// Jail configures the runner's confinement. The zero value of Off is the whole jail.
type Jail struct {
	// Root is an empty directory of the host that becomes the jail's root (a tmpfs is mounted on it).
	Root string `json:"root"`
	// Off names the layers that are switched off, for debugging only; each is logged as a warning.
	Off []Layer `json:"off,omitempty"`
}

// Layer is one part of the jail.
type Layer string

// The layers, each answering an attack (docs/security.md).
const (
	LayerMounts       Layer = "mounts"       // pivoted mount namespace, proc with subset=pid
	LayerCapabilities Layer = "capabilities" // the allowed set only, bounding set included
	LayerNoNewPrivs   Layer = "nonewprivs"   // PR_SET_NO_NEW_PRIVS
	LayerSeccomp      Layer = "seccomp"      // system call allow-list
	LayerDevices      Layer = "devices"      // the cgroup's device list; applied by package sandbox
)

// Layers lists every Layer.
var Layers = []Layer{LayerMounts, LayerCapabilities, LayerNoNewPrivs, LayerSeccomp, LayerDevices}

// Insecure is the warning of a start without the layer.
func (l Layer) Insecure() string {
	return "INSECURE: jail layer " + string(l) + " is switched off: the guest is not confined as it should be"
}

// Has reports whether layer l is in force.
func (j Jail) Has(l Layer) bool {
	for _, off := range j.Off {
		if off == l {
			return false
		}
	}
	return true
}

// ReadConfig decodes and validates a Config; unknown fields are errors.
func ReadConfig(r io.Reader) (*Config, error) {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	var c Config
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("runner configuration: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("runner configuration: something follows the object")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &c, nil
}

// FieldError is a value of Config that cannot be used.
type FieldError struct {
	Field  string
	Reason string
}

func (e *FieldError) Error() string {
	return "runner configuration: " + e.Field + ": " + e.Reason
}

const (
	// MinMemoryMiB is the least RAM with which the kernel of libkrunfw and the agent come up.
	MinMemoryMiB = 64
	// MaxMemoryMiB bounds a typing error; libkrun's own limit is the host's address space.
	MaxMemoryMiB = 4 << 20
	// MaxNICs is what libkrun's interrupt lines leave on x86: 5 to 15, of which balloon, entropy, console, two file
	// systems and vsock take six (krun-arch, x86_64/layout.rs).
	MaxNICs = 5
	// maxLogLevel is libkrun's trace.
	maxLogLevel = 5
	// maxSocketsDir leaves room in sun_path (108 bytes, unix(7)) for "/", a name and the terminator, where the sockets
	// keep their long path because the jail's mounts are switched off.
	maxSocketsDir = 108 - 16
	// ifNameSize is IFNAMSIZ with its terminator, linux/if.h.
	ifNameSize = 16
)

// Validate reports the first field that cannot be used, as a *FieldError. It looks at values only, not at the disk.
func (c *Config) Validate() error {
	if err := c.validateMachine(); err != nil {
		return err
	}
	for _, p := range c.paths() {
		if err := p.validate(); err != nil {
			return err
		}
	}
	if !c.Jail.Has(LayerMounts) && len(c.Sockets) > maxSocketsDir {
		return bad("sockets", "%q is longer than the %d bytes that leave room for a socket", c.Sockets, maxSocketsDir)
	}
	if len(c.NICs) > MaxNICs {
		return bad("nics", "%d interfaces, the most is %d", len(c.NICs), MaxNICs)
	}
	sockets := 0
	for i, n := range c.NICs {
		field := fmt.Sprintf("nics[%d]", i)
		if err := n.validate(field); err != nil {
			return err
		}
		if n.Socket {
			sockets++
		}
		if sockets > 1 {
			return bad(field+".socket", "descriptor %d is another's", SocketFile)
		}
	}
	for i, l := range c.Jail.Off {
		if !IsLayer(l) {
			return bad(fmt.Sprintf("jail.off[%d]", i), "unknown layer %q, known: %v", l, Layers)
		}
	}
	return nil
}

func bad(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

func (c *Config) validateMachine() error {
	if c.ID == "" || !plain(c.ID) {
		return bad("id", "%q is not a name", c.ID)
	}
	if c.VCPUs == 0 {
		return bad("vcpus", "must be 1 or more")
	}
	if c.MemoryMiB < MinMemoryMiB || c.MemoryMiB > MaxMemoryMiB {
		return bad("memoryMiB", "%d is not between %d and %d", c.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	}
	if c.LogLevel > maxLogLevel {
		return bad("logLevel", "%d is not between 0 and %d", c.LogLevel, maxLogLevel)
	}
	return c.Kernel.validate()
}

func (k *Kernel) validate() error {
	if k == nil {
		return nil
	}
	if !plain(k.Cmdline) {
		return bad("kernel.cmdline", "%q holds something other than printable ASCII", k.Cmdline)
	}
	if !k.external() {
		if k.Format != "" {
			return bad("kernel.path", "missing, though there is a format")
		}
		return nil
	}
	if _, ok := kernelFormats[k.Format]; !ok {
		return bad("kernel.format", "libkrun has no format %q on %s", k.Format, runtime.GOARCH)
	}
	return nil
}

// external reports whether the kernel is not that of libkrunfw.
func (k *Kernel) external() bool { return k != nil && k.Path != "" }

// plain reports whether s is printable ASCII: what goes to C as a string and to the kernel as a parameter.
func plain(s string) bool {
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// namedPath is a path with the field it stands in.
type namedPath struct{ field, path string }

func (c *Config) paths() []namedPath {
	list := []namedPath{{"agent", c.Agent}, {"share", c.Share}, {"sockets", c.Sockets}, {"jail.root", c.Jail.Root}}
	if c.Firmware != "" {
		list = append(list, namedPath{"firmware", c.Firmware})
	}
	if k := c.Kernel; k.external() {
		list = append(list, namedPath{"kernel.path", k.Path})
	}
	return list
}

func (p namedPath) validate() error {
	if !filepath.IsAbs(p.path) || filepath.Clean(p.path) != p.path || p.path == "/" || strings.ContainsRune(p.path, 0) {
		return bad(p.field, "%q is not a clean absolute path below /", p.path)
	}
	return nil
}

func (n NIC) validate(field string) error {
	if n.Socket && n.Tap != "" {
		return bad(field+".socket", "the NIC is on tap %s", n.Tap)
	}
	if !n.Socket && (n.Tap == "" || len(n.Tap) >= ifNameSize || !plain(n.Tap)) {
		return bad(field+".tap", "%q is not an interface name", n.Tap)
	}
	if hw, err := net.ParseMAC(n.MAC); err != nil || len(hw) != 6 || hw[0]&1 != 0 {
		return bad(field+".mac", "%q is not the address of one Ethernet interface", n.MAC)
	}
	return nil
}

// IsLayer reports whether l is one of Layers.
func IsLayer(l Layer) bool {
	for _, known := range Layers {
		if l == known {
			return true
		}
	}
	return false
}

// kernelFormats maps Kernel.Format to libkrun's KRUN_KERNEL_FORMAT_ constants (libkrun.h).
var kernelFormats = map[string]map[string]uint32{
	"amd64": {"elf": 1, "image-bz2": 3, "image-gz": 4, "image-zstd": 5},
	"arm64": {"raw": 0, "pe-gz": 2},
}[runtime.GOARCH]
