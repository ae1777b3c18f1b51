//go:build cgo && linux

package ctr

import (
	"slices"
	"testing"

	"github.com/opencontainers/runc/libcontainer/capabilities"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
)

func TestFeaturesAreThoseOfLibcontainerThatAGuestCanHave(t *testing.T) {
	less := func(all []string, not ...string) []string {
		return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(not, s) })
	}
	// libcontainer handles idmap and does not list it.
	options := append(less(specconv.KnownMountOptions(), "shared", "rshared"), "idmap")
	slices.Sort(options)
	f := api.Features()
	for name, lists := range map[string][2][]string{
		"mount options":     {f.MountOptions, options},
		"namespaces":        {f.Linux.Namespaces, specconv.KnownNamespaces()},
		"capabilities":      {f.Linux.Capabilities, capabilities.KnownCapabilities()},
		"seccomp actions":   {f.Linux.Seccomp.Actions, less(seccomp.KnownActions(), "SCMP_ACT_NOTIFY")},
		"seccomp operators": {f.Linux.Seccomp.Operators, seccomp.KnownOperators()},
		"seccomp flags":     {f.Linux.Seccomp.KnownFlags, seccomp.KnownFlags()},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("%s are %v, of libcontainer %v", name, lists[0], lists[1])
		}
	}
	for _, arch := range f.Linux.Seccomp.Archs {
		if !slices.Contains(seccomp.KnownArchs(), arch) {
			t.Errorf("libcontainer knows no %s", arch)
		}
	}
}

func TestAUserNamespaceDoesNotChangeTheNextContainersDevices(t *testing.T) {
	own := podSpec("")
	own.Process = &specs.Process{Args: []string{"true"}, Cwd: "/"}
	own.Linux.Namespaces = append(own.Linux.Namespaces[:3], specs.LinuxNamespace{Type: specs.UserNamespace})
	own.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
	own.Linux.GIDMappings = own.Linux.UIDMappings
	own.Linux.Sysctl, own.Linux.Resources, own.Root.Path = nil, nil, t.TempDir()
	if c, err := convert("a", own); err != nil || c.Devices[0].Uid != 100000 {
		t.Fatalf("%v, %v", c, err)
	}
	next := podSpec("")
	next.Process = own.Process
	next.Linux.Namespaces = next.Linux.Namespaces[:3]
	next.Linux.Sysctl, next.Linux.Resources, next.Root.Path = nil, nil, own.Root.Path
	c, err := convert("b", next)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Devices {
		if d.Uid != 0 || d.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", d.Path, d.Uid, d.Gid)
		}
	}
}
