package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Vacate removes what a node keeps of sandboxes that are gone: the ledger, the locks, the cgroup of those without a parent, and
// the state directory itself. It is for a node that will have no more of them. While one runs, all of it stays; one that has ended
// and is not deleted yet keeps its own directory.
func Vacate(state string) error {
	dirs, err := List(state)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if st, err := LoadState(d); err == nil && st.InUse() {
			return nil
		}
	}
	// By pattern: what somebody else put there keeps the directory.
	files := []string{ledgerPath(state)}
	for _, pattern := range []string{".ledger.lock", ".boot-*"} {
		found, err := filepath.Glob(filepath.Join(state, pattern))
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what the node keeps of sandboxes that are gone: %w", err)
		}
	}
	namespaces, err := filepath.Glob(filepath.Join(state, "*"))
	if err != nil {
		return err
	}
	for _, dir := range append(namespaces, state, filepath.Join(cgroupRoot, defaultParent)) {
		// One that is not empty is in use.
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("remove the directory %s: %w", dir, err)
		}
	}
	return nil
}
