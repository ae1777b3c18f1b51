//go:build linux && cgo && krun

package krun

/*
#cgo amd64 LDFLAGS: -Wl,--wrap=mmap -Wl,--wrap=dlsym
#cgo LDFLAGS: -lkrunlib -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include "libkrun.h"

// Runs before Go's runtime makes its first thread: a huge page for each stack would cost 2 MiB (memory_amd64.c asks for those
// that pay), and a malloc arena for each of libkrun's dozen threads costs more memory than their contention costs time.
__attribute__((constructor)) static void save_memory(void) {
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    mallopt(M_ARENA_MAX, 2);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// VM holds what Load took from the host's file system for Enter.
type VM struct {
	// agent is the guest's PID 1 in memory, where there is no directory to serve it from.
	agent     []byte
	agentSize int64
	// kernel is a path under /proc/self/fd: the file is opened while the host's are still in sight.
	kernel string
}

// Load checks the taps and the agent, loads libkrunfw and opens the kernel: all that needs the host beyond what the
// jail holds. Call it before the jail closes, once in a process.
func Load(c *Config) (*VM, error) {
	vm := &VM{}
	for i, n := range c.NICs {
		if n.Socket {
			if err := checkSocket(SocketFile); err != nil {
				return nil, fmt.Errorf("nics[%d]: descriptor %d: %w", i, SocketFile, err)
			}
			continue
		}
		// libkrun attaches to the tap when the guest's driver starts; a VM without its network would come up.
		if _, err := net.InterfaceByName(n.Tap); err != nil {
			return nil, fmt.Errorf("nics[%d]: tap %s in this network namespace: %w", i, n.Tap, err)
		}
	}
	if err := vm.loadAgent(c); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if !c.Kernel.external() {
		return vm, loadFirmware(c.Firmware)
	}
	err := checkKernel(c.Kernel.Path, c.Kernel.Format)
	if err == nil {
		vm.kernel, err = openForLater(c.Kernel.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return vm, nil
}

// checkSocket: libkrun would take any descriptor, and fail when the guest's driver starts.
func checkSocket(fd int) error {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if kind != unix.SOCK_STREAM {
		return errors.New("it is not a stream socket")
	}
	return nil
}

// loadAgent checks that the agent can be the guest's PID 1. With the jail's mounts switched off it is mapped as well:
// krun_fs_add_overlay_file keeps the pointer. Either way all VMs of a node share the pages of one file, which must be
// replaced by rename, never written.
func (vm *VM) loadAgent(c *Config) error {
	f, err := os.Open(c.Agent)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() == 0 || st.Mode().Perm()&0o111 == 0 {
		return fmt.Errorf("%s is not an executable file", c.Agent)
	}
	vm.agentSize = st.Size()
	if c.Jail.Has(LayerMounts) {
		return nil
	}
	vm.agent, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", c.Agent, err)
	}
	return nil
}

// openForLater opens path and returns a path to the descriptor, which stays open.
func openForLater(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

// firmwareName is what libkrun passes to dlopen(3); a library already loaded under this name is not searched again.
const firmwareName = "libkrunfw.so.5"

// loadFirmware loads libkrunfw from dir, or by the loader's search path where dir is empty.
func loadFirmware(dir string) error {
	_, err := openFirmware(dir)
	return err
}

func openFirmware(dir string) (unsafe.Pointer, error) {
	path := C.CString(filepath.Join(dir, firmwareName))
	defer C.free(unsafe.Pointer(path))
	handle := C.dlopen(path, C.RTLD_NOW|C.RTLD_GLOBAL)
	if handle == nil {
		return nil, errors.New("load libkrunfw: " + C.GoString(C.dlerror()))
	}
	return handle, nil
}
