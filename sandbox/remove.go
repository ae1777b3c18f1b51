package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"krun.dev/krunpod/netbridge"
)

// Remove undoes the sandbox in directory path from its state on disk alone: the runner and its cgroup, the taps,
// the directory. It goes on after an error, reports them all, and keeps the state until everything else is
// gone, so that it can be called again. A sandbox that does not exist is no error.
func Remove(ctx context.Context, path string) error {
	st, err := LoadState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	if st.Runner != nil && st.Runner.Alive() {
		errs = append(errs, killProcess(st.Runner.PID))
	}
	if st.Cgroup != "" {
		errs = append(errs, removeCgroup(ctx, st.Cgroup))
	}
	if st.NetNS != "" {
		// Without a Bridge the sandbox ended before it noted what it had made there, if anything.
		errs = append(errs, netbridge.Leave(ctx, st.NetNS, st.Bridge))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// The share's mounts are not the host's, so none should be here; one that is must not be emptied.
	below, err := HasMountsBelow(path)
	if err != nil {
		return err
	}
	if below {
		return fmt.Errorf("remove the sandbox's directory %s: something is mounted below it; unmount that first", path)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove the sandbox's directory: %w", err)
	}
	if !st.Booted.IsZero() && st.End == "" {
		count(filepath.Dir(filepath.Dir(path)), func(l *Ledger) { l.Ends[EndLost]++ })
	}
	return nil
}

func killProcess(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill runner %d: %w", pid, err)
	}
	return nil
}
