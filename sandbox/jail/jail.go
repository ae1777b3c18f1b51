package jail

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/krun"
)

// Places in the jail.
const (
	shareDir   = "/share"
	socketsDir = "/sock"
	rootDir    = "/root"
)

// Enter closes the jail around this process, all of its threads, and returns c with the paths that hold from now on.
// What the process still needs from the host it must have opened or mapped before. warn is told of each layer that
// c switches off. After an error the process is half confined and must end.
//
// The order matters: mounts need capabilities; the other threads are found by the jail's own /proc; capabilities can
// only be dropped while the system calls for it are still allowed.
func Enter(c *krun.Config, warn func(message string)) (*krun.Config, error) {
	for _, l := range c.Jail.Off {
		warn(l.Insecure())
	}
	if err := checkNamespaces(); err != nil {
		return nil, err
	}
	if err := limitResources(); err != nil {
		return nil, err
	}
	inside := *c
	if err := enterMounts(c, &inside); err != nil {
		return nil, err
	}
	if err := checkProc(); err != nil {
		return nil, err
	}
	if c.Jail.Has(krun.LayerCapabilities) {
		if err := dropCapabilities(kept); err != nil {
			return nil, err
		}
	}
	if c.Jail.Has(krun.LayerNoNewPrivs) || c.Jail.Has(krun.LayerSeccomp) {
		if err := setNoNewPrivs(); err != nil {
			return nil, err
		}
	}
	if c.Jail.Has(krun.LayerSeccomp) {
		if err := installFilter(allowed()); err != nil {
			return nil, err
		}
	}
	return &inside, nil
}

// CloseInherited closes every descriptor that came through execve(2) but the standard three. These are the ones without
// close-on-exec: the Go runtime's own, which it may already have opened, carry the flag.
func CloseInherited() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("jail: list descriptors: %w", err)
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // the directory that was just read, or ours
		}
		if err := unix.Close(fd); err != nil {
			return fmt.Errorf("jail: close inherited descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// checkNamespaces refuses to go on in the host's mount namespace: what follows would change it for all. The /proc
// mounted at this point is that of the PID namespace the runner was started from, so its process 1 is the host's.
func checkNamespaces() error {
	if pid := os.Getpid(); pid != 1 {
		return fmt.Errorf("jail: the runner is process %d of its PID namespace, not 1: start it with "+
			"CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWIPC|CLONE_NEWUTS", pid)
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("jail: own mount namespace: %w", err)
	}
	other, err := sharesMounts(own)
	if err != nil {
		return fmt.Errorf("jail: whose mount namespace is this: %w", err)
	}
	if other != "" {
		return fmt.Errorf("jail: the runner shares its mount namespace %s with process %s: start it with CLONE_NEWNS",
			own, other)
	}
	return nil
}

// sharesMounts names another process in mount namespace own, or none. The host's process 1 answers for all where it
// can be asked; a host that is itself a container may forbid that (ptrace(2), access mode checks).
func sharesMounts(own string) (string, error) {
	host, err := os.Readlink("/proc/1/ns/mnt")
	if err == nil {
		if own == host {
			return "1", nil
		}
		return "", nil
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/mnt"); err == nil && ns == own && e.Name() != self &&
			e.Name() != "self" && e.Name() != "thread-self" {
			return e.Name(), nil
		}
	}
	return "", nil
}

// checkProc makes sure that /proc is that of our own PID namespace: the steps that follow find this process's threads
// there, and under another /proc would take those of a stranger.
func checkProc() error {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fmt.Errorf("jail: /proc of the jail: %w", err)
	}
	if pid := strconv.Itoa(os.Getpid()); self != pid {
		return fmt.Errorf("jail: /proc says this is process %s, not %s", self, pid)
	}
	return nil
}
