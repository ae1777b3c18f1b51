package cri

import (
	"math"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func resources(memory, quota int64) *specs.LinuxResources {
	period := uint64(100000)
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
}

func TestContainerIsResizedWithinTheVM(t *testing.T) {
	for name, tc := range map[string]struct {
		had, want *specs.LinuxResources
		refused   string
	}{
		"as large as the VM":        {resources(64<<20, 50000), resources(512<<20, 200000), ""},
		"memory beyond":             {resources(64<<20, 50000), resources(512<<20+1, 50000), "krun.dev/memory-mib"},
		"CPUs beyond":               {resources(64<<20, 50000), resources(64<<20, 200001), "krun.dev/vcpus"},
		"no limit":                  {resources(64<<20, 50000), resources(-1, -1), ""},
		"what v1 calls no limit":    {resources(64<<20, 50000), resources(math.MaxInt64&^4095, -1), ""},
		"beyond, as it always was":  {resources(1<<30, 400000), resources(1<<30, 400000), ""},
		"beyond, and more than was": {resources(1<<30, 0), resources(2<<30, 0), "krun.dev/memory-mib"},
		"of none":                   {nil, resources(1<<30, 0), "krun.dev/memory-mib"},
		"nothing said":              {resources(64<<20, 50000), &specs.LinuxResources{}, ""},
	} {
		err := ResizeContainer(tc.had, tc.want, 2, 512)
		if (err == nil) != (tc.refused == "") || err != nil && !strings.Contains(err.Error(), tc.refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
