package shim

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestTheVMHasTheCPUsOfItsContainersTogether(t *testing.T) {
	on := func(cpus string) *specs.LinuxResources {
		return &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpus}}
	}
	for _, c := range []struct {
		all  []*specs.LinuxResources
		want string
	}{
		{nil, ""},
		{[]*specs.LinuxResources{on("2-3")}, "2-3"},
		{[]*specs.LinuxResources{on("2-3"), on("0,5")}, "2-3,0,5"},
		{[]*specs.LinuxResources{on("2-3"), on("")}, ""},
		{[]*specs.LinuxResources{on("2-3"), {}}, ""},
		{[]*specs.LinuxResources{on("2-3"), nil}, ""},
	} {
		if got := together(c.all, func(c *specs.LinuxCPU) string { return c.Cpus }); got != c.want {
			t.Errorf("%v together are %q, want %q", c.all, got, c.want)
		}
	}
}

func TestAnUpdateThatNamesNoCPUsLeavesThem(t *testing.T) {
	had := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "2-3", Mems: "0"}}
	var none specs.LinuxResources
	keepPin(had, &none)
	other := specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "1"}}
	keepPin(had, &other)
	if none.CPU.Cpus != "2-3" || none.CPU.Mems != "0" || other.CPU.Cpus != "1" || other.CPU.Mems != "0" {
		t.Errorf("they became %+v and %+v", none.CPU, other.CPU)
	}
}
