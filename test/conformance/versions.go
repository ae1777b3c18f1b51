package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"

	"krun.dev/krunpod/test/nodes"
)

// versions asks the node what it runs, and the build for its guest's kernel.
func (o options) versions(ctx context.Context, n nodes.Node) (map[string]string, error) {
	const script = `containerd --version | cut -d ' ' -f 3
runc --version | sed -n 's/^runc version //p'
krunctl --version | sed 's/^krunctl version //'
uname -r`
	out, err := n.Exec(ctx, "sh", "-c", script).Output()
	if err != nil {
		return nil, fmt.Errorf("ask node %d for its versions: %w", n, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 4 {
		return nil, fmt.Errorf("node %d says its versions as %q, want containerd's, runc's, krunctl's and the kernel's", n, out)
	}
	critest, err := pinned("CRI_TOOLS_VERSION")
	if err != nil {
		return nil, err
	}
	guest, err := guestKernel(o.out + "/dist/lib/libkrunfw.so.5")
	return map[string]string{"containerd": lines[0], "runc": lines[1], "Krunpod": lines[2], "the node's Linux": lines[3],
		"critest": critest, "the guest's Linux": guest}, err
}

// pinned is a line of versions.env; critest itself does not know its version.
func pinned(name string) (string, error) {
	data, err := os.ReadFile("versions.env")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("versions.env has no %s", name)
}

var linuxVersion = regexp.MustCompile(`Linux version ([0-9][^ ]*)`)

// guestKernel reads the banner of the kernel in the library.
func guestKernel(library string) (string, error) {
	data, err := os.ReadFile(library)
	if err != nil {
		return "", err
	}
	banner := linuxVersion.FindSubmatch(data)
	if banner == nil {
		return "", fmt.Errorf("%s holds no kernel that says its version", library)
	}
	return string(bytes.TrimSpace(banner[1])), nil
}
