package nodes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// maxFaults is how many broken nodes a run may have before it fails as a whole.
const maxFaults = 2

// FaultsEnv names a file in which several suites keep the faults of their nodes, a line for each: they are one run together.
// hack/test begins it.
const FaultsEnv = "KRUNPOD_NODE_FAULTS"

// judgeFaults adds a suite's faults to those in file, if there is one, and returns an error that names them all when they are
// too many for one run.
func judgeFaults(file string, faults []string) error {
	if len(faults) == 0 {
		return nil // those of an earlier suite alone are no failure of this one
	}
	all := faults
	if file != "" {
		before, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("broken nodes of this run: %w", err)
		}
		text := string(before)
		for _, f := range faults {
			text += strings.ReplaceAll(f, "\n", " ") + "\n"
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("broken nodes of this run: %w", err)
		}
		all = strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	}
	if len(all) > maxFaults {
		return fmt.Errorf("%d nodes broke in one run, more than %d:\n%s", len(all), maxFaults, strings.Join(all, "\n"))
	}
	return nil
}
