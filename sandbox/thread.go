package sandbox

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// onThread runs f on a thread that ends with it: whatever namespaces f enters, no other goroutine comes to run there.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the runtime ends the thread with the goroutine
		result <- f()
	}()
	return <-result
}

// enterNetNS moves this thread to the network namespace at path; with an empty path, to a new one that has nothing.
func enterNetNS(path string) error {
	if path == "" {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return nil
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// makeMountNS moves this thread to a mount namespace of its own, which follows the host's and which the host does not
// see, and returns it.
func makeMountNS() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return nil, fmt.Errorf("part the sandbox's mounts from the host's: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("open the sandbox's mount namespace: %w", err)
	}
	return ns, nil
}

// enterMountNS moves this thread to ns; its root and working directory become that namespace's root.
func enterMountNS(ns *os.File) error {
	// A thread that shares its root directory with others cannot change it: setns(2).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("part from the root directory of other threads: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the sandbox's mount namespace: %w", err)
	}
	return nil
}
