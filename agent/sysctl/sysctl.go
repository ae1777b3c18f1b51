package sysctl

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Root is where procfs shows the kernel's parameters.
const Root = "/proc/sys"

// Apply writes all of values under root, in the order of their names, and stops at the first that fails.
func Apply(root string, values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := Write(root, name, values[name]); err != nil {
			return err
		}
	}
	return nil
}

// Write sets one parameter.
func Write(root, name, value string) error {
	rel, err := Path(name)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, rel), []byte(value), 0); err != nil {
		return fmt.Errorf("sysctl %s=%q: %w (the guest's kernel may lack it)", name, value, err)
	}
	return nil
}

// Path turns a name into a path relative to /proc/sys. As sysctl(8) does, the first separator decides: with dots
// between the parts a slash stands for a dot within one (net.ipv4.conf.eth0/100.forwarding), and with slashes all
// stay as they are.
func Path(name string) (string, error) {
	rel := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		rel = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("sysctl %q: not a parameter's name", name)
		}
	}
	return rel, nil
}
