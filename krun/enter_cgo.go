//go:build linux && cgo && krun

package krun

// #include <stdlib.h>
// #include "libkrun.h"
import "C"

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
)

const (
	// rootTag is the virtio-fs tag the kernel mounts as its root (libkrun's kernel command line names no other).
	rootTag = "/dev/root"
	// netFeatures are checksum and segmentation offload in both directions (virtio-net's VIRTIO_NET_F_CSUM, GUEST_CSUM,
	// GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6). Without them a tap carries a tenth.
	netFeatures = 1<<0 | 1<<1 | 1<<7 | 1<<8 | 1<<11 | 1<<12
	// noFeatures: on a socket a frame has no header that could tell of an offload.
	noFeatures = 0
	// noTSI: no guest socket becomes a host socket.
	noTSI = 0
	// noDAX: no window of the guest's memory shows the files themselves.
	noDAX = 0
	// daxRange is what the guest's kernel maps at a time, in bytes (FUSE_DAX_SZ, fs/fuse/dax.c).
	daxRange = 2 << 20
	// linuxSemantics passes ownership and modes through (krun_add_virtiofs4).
	linuxSemantics = 0
)

// krun_init_log's style "never" and option "no environment".
const (
	logStyleNever = 2
	logNoEnv      = 1
)

// Enter runs the VM that Load prepared. It returns only when the VM could not be started; a VM that ends ends the
// process (_exit), with status 0 when the guest rebooted or its kernel panicked, and with a status of the guest's
// choice otherwise: an exit status says nothing that may be trusted. Paths in c are those of the jail. The guest's
// console goes to standard output, which must be a pipe that is read, a file, or /dev/null; libkrun's own messages go
// to standard error. The caller has locked the main thread (runtime.LockOSThread), which carries the VM's event loop.
func (vm *VM) Enter(c *Config) error {
	if err := readyKVM(); err != nil {
		return err
	}
	// krun_start_enter names the process after this variable, for ps(1) and top(1).
	if err := os.Setenv("HOSTNAME", c.ID[:min(len(c.ID), 12)]); err != nil {
		return fmt.Errorf("name the VM: %w", err)
	}
	if err := call("krun_init_log", C.krun_init_log(2, C.uint32_t(c.LogLevel), logStyleNever, logNoEnv)); err != nil {
		return err
	}
	id := C.krun_create_ctx()
	if id < 0 {
		return call("krun_create_ctx", id)
	}
	x := &context{id: C.uint32_t(id)}
	steps := []func(*context, *Config) error{
		machine, vm.setKernel, vm.addRoot, addShare, addVsock, addNICs, addConsole, setParameters,
	}
	for _, step := range steps {
		if err := step(x, c); err != nil {
			return err
		}
	}
	// The heap of the start is of no use to the VM, which lives long.
	debug.FreeOSMemory()
	err := call("krun_start_enter", C.krun_start_enter(x.id))
	runtime.KeepAlive(vm)
	return err
}

// context is a libkrun context under construction. Its strings live as long as the process: libkrun copies most, and
// there are few.
type context struct{ id C.uint32_t }

func machine(x *context, c *Config) error {
	return call("krun_set_vm_config", C.krun_set_vm_config(x.id, C.uint8_t(c.VCPUs), C.uint32_t(c.MemoryMiB)))
}

func (vm *VM) setKernel(x *context, c *Config) error {
	if !c.Kernel.external() {
		return nil
	}
	format := C.uint32_t(kernelFormats[c.Kernel.Format])
	return call("krun_set_kernel",
		C.krun_set_kernel(x.id, C.CString(vm.kernel), format, nil, C.CString(c.Kernel.commandLine())))
}

// addRoot gives the guest a root of nothing but its PID 1 and the directories that it mounts on.
func (vm *VM) addRoot(x *context, c *Config) error {
	if err := call("krun_disable_implicit_init", C.krun_disable_implicit_init(x.id)); err != nil {
		return err
	}
	tag := C.CString(rootTag)
	var dir *C.char
	if c.Root != "" {
		dir = C.CString(c.Root)
	}
	if err := call("krun_add_virtiofs4 "+rootTag,
		C.krun_add_virtiofs4(x.id, tag, dir, C.uint64_t(vm.daxWindow(c)), true, linuxSemantics)); err != nil {
		return err
	}
	if c.Root == "" {
		if err := call("krun_fs_add_overlay_file", C.krun_fs_add_overlay_file(x.id, tag, C.CString(InitName),
			(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(vm.agent))), C.size_t(len(vm.agent)), 0o755, false)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp"} {
		if err := call("krun_fs_add_overlay_dir "+dir,
			C.krun_fs_add_overlay_dir(x.id, tag, C.CString(dir), 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// daxWindow is how much guest address space shows the root's file, in bytes: the guest executes the agent from the
// host's page cache, one copy for all VMs of a node, instead of reading it into memory of its own. A window costs the
// guest 16 KiB for each MiB; this one holds the whole agent.
func (vm *VM) daxWindow(c *Config) int64 {
	if !c.rootDAX() {
		return noDAX
	}
	return (vm.agentSize/daxRange + 2) * daxRange
}

func addShare(x *context, c *Config) error {
	return call("krun_add_virtiofs4 "+api.ShareTag,
		C.krun_add_virtiofs4(x.id, C.CString(api.ShareTag), C.CString(c.Share), noDAX, false, linuxSemantics))
}

func addVsock(x *context, c *Config) error {
	if err := call("krun_disable_implicit_vsock", C.krun_disable_implicit_vsock(x.id)); err != nil {
		return err
	}
	if err := call("krun_add_vsock", C.krun_add_vsock(x.id, noTSI)); err != nil {
		return err
	}
	for port, name := range map[C.uint32_t]string{
		api.ControlPort: api.ControlSocket,
		api.StreamPort:  api.StreamSocket,
	} {
		path := C.CString(filepath.Join(c.Sockets, name))
		if err := call("krun_add_vsock_port2 "+name, C.krun_add_vsock_port2(x.id, port, path, false)); err != nil {
			return err
		}
	}
	return nil
}

func addNICs(x *context, c *Config) error {
	for _, nic := range c.NICs {
		mac, err := net.ParseMAC(nic.MAC)
		if err != nil {
			return err
		}
		address := (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(mac)))
		if nic.Socket {
			if err := call("krun_add_net_unixstream", C.krun_add_net_unixstream(x.id, nil, SocketFile, address, noFeatures, 0)); err != nil {
				return err
			}
			continue
		}
		if err := call("krun_add_net_tap "+nic.Tap, C.krun_add_net_tap(x.id, C.CString(nic.Tap),
			address, netFeatures, 0)); err != nil {
			return err
		}
	}
	return nil
}

// addConsole directs the guest's console (hvc0) to standard output. Only the implicit console takes a path; the
// explicit ones turn a console that is no terminal into messages of libkrun's log.
func addConsole(x *context, _ *Config) error {
	return call("krun_set_console_output", C.krun_set_console_output(x.id, C.CString("/proc/self/fd/1")))
}

// setParameters puts our parameters on the kernel command line. krun_set_env is the way there: it appends its strings
// as they are. It is always called with a list: without one libkrun's krun_set_exec takes the process's environment.
func setParameters(x *context, c *Config) error {
	var list []*C.char
	for _, p := range guestParameters(c) {
		list = append(list, C.CString(p))
	}
	// The list must lie in C's memory (cgo's pointer rules), with a NULL at its end.
	size := C.size_t(unsafe.Sizeof((*C.char)(nil)))
	array := (**C.char)(C.calloc(C.size_t(len(list)+1), size))
	copy(unsafe.Slice(array, len(list)), list)
	return call("krun_set_env", C.krun_set_env(x.id, array))
}

// call turns the result of a libkrun function into an error that names it.
func call(function string, result C.int32_t) error {
	if result >= 0 {
		return nil
	}
	return &CallError{Function: function, Errno: unix.Errno(-result)}
}

// readyKVM opens /dev/kvm as libkrun will, which panics where it cannot.
func readyKVM() error {
	_, err := kvmAPIVersion()
	return err
}
