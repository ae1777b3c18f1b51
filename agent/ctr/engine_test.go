//go:build cgo && linux

package ctr

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

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
