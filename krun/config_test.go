package krun

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func valid() *Config {
	return &Config{
		ID: "c0ffee", VCPUs: 2, MemoryMiB: 512, Agent: "/opt/krunpod/bin/krun-agent", Firmware: "/opt/krunpod/lib",
		Share: "/run/krunpod/k8s.io/c0ffee/share", Sockets: "/run/krunpod/k8s.io/c0ffee/sock",
		NICs:     []NIC{{Tap: "tap0", MAC: "02:00:00:00:00:01"}},
		LogLevel: 2, Jail: Jail{Root: "/run/krunpod/k8s.io/c0ffee/jail"},
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, tc := range []struct {
		field  string
		change func(*Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.Firmware = "" }},
		{"", func(c *Config) { c.NICs = nil }},
		{"", func(c *Config) { c.Jail.Off = Layers }},
		{"id", func(c *Config) { c.ID = "" }},
		{"id", func(c *Config) { c.ID = "a\x00b" }},
		{"vcpus", func(c *Config) { c.VCPUs = 0 }},
		{"memoryMiB", func(c *Config) { c.MemoryMiB = 63 }},
		{"memoryMiB", func(c *Config) { c.MemoryMiB = 1 << 31 }},
		{"agent", func(c *Config) { c.Agent = "krun-agent" }},
		{"agent", func(c *Config) { c.Agent = "" }},
		{"firmware", func(c *Config) { c.Firmware = "lib" }},
		{"share", func(c *Config) { c.Share = "/run/../etc" }},
		{"share", func(c *Config) { c.Share = "/" }},
		{"share", func(c *Config) { c.Share = "/run/a\x00" }},
		{"sockets", func(c *Config) { c.Sockets = "/run/sock/" }},
		{"", func(c *Config) { c.Sockets = "/" + strings.Repeat("s", 120) }},
		{"sockets", func(c *Config) {
			c.Sockets, c.Jail.Off = "/"+strings.Repeat("s", 120), []Layer{LayerMounts}
		}},
		{"jail.root", func(c *Config) { c.Jail.Root = "" }},
		{"jail.root", func(c *Config) { c.Jail.Root = "/" }},
		{"jail.off[1]", func(c *Config) { c.Jail.Off = []Layer{LayerSeccomp, "secomp"} }},
		{"kernel.format", func(c *Config) { c.Kernel = &Kernel{Path: "/boot/vmlinux", Format: "bzimage"} }},
		{"kernel.path", func(c *Config) { c.Kernel = &Kernel{Format: someFormat()} }},
		{"", func(c *Config) { c.Kernel = &Kernel{Cmdline: "debug"} }},
		{"kernel.path", func(c *Config) { c.Kernel = &Kernel{Path: "vmlinux", Format: someFormat()} }},
		{"kernel.cmdline", func(c *Config) {
			c.Kernel = &Kernel{Path: "/boot/vmlinux", Format: someFormat(), Cmdline: "a\nb"}
		}},
		{"nics", func(c *Config) { c.NICs = make([]NIC, MaxNICs+1) }},
		{"nics[0].tap", func(c *Config) { c.NICs[0].Tap = "" }},
		{"nics[0].tap", func(c *Config) { c.NICs[0].Tap = "sixteen-letters-" }},
		{"nics[0].tap", func(c *Config) { c.NICs[0].Tap = "tap\x00" }},
		{"nics[0].mac", func(c *Config) { c.NICs[0].MAC = "02:00:00:00:00" }},
		{"nics[0].mac", func(c *Config) { c.NICs[0].MAC = "02:00:00:00:00:00:00:01" }},
		{"nics[0].mac", func(c *Config) { c.NICs[0].MAC = "03:00:00:00:00:01" }},
		{"nics[0].socket", func(c *Config) { c.NICs[0].Socket = true }},
		{"nics[1].socket", func(c *Config) {
			c.NICs = []NIC{{Socket: true, MAC: "02:00:00:00:00:01"}, {Socket: true, MAC: "02:00:00:00:00:02"}}
		}},
		{"nics[1].mac", func(c *Config) { c.NICs = append(c.NICs, NIC{Tap: "tap1", MAC: "02-00"}) }},
		{"logLevel", func(c *Config) { c.LogLevel = 6 }},
	} {
		c := valid()
		tc.change(c)
		err := c.Validate()
		var bad *FieldError
		switch {
		case tc.field == "" && err != nil:
			t.Errorf("%+v: %v", c, err)
		case tc.field != "" && (!errors.As(err, &bad) || bad.Field != tc.field):
			t.Errorf("want an error of %s, got %v", tc.field, err)
		}
	}
}

func someFormat() string {
	for f := range kernelFormats {
		return f
	}
	panic("no kernel format on " + runtime.GOARCH)
}

func TestReadConfigRefuses(t *testing.T) {
	for name, input := range map[string]string{
		"nothing":          "",
		"an unknown field": `{"id":"a","vcpu":2}`,
		"a wrong type":     `{"vcpus":"2"}`,
		"too many CPUs":    `{"vcpus":256}`,
		"a half object":    `{"id":"a"`,
		"a second object":  encode(t, valid()) + `{}`,
	} {
		if c, err := ReadConfig(strings.NewReader(input)); err == nil {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}

func TestReadConfigReadsWhatTheShimWrites(t *testing.T) {
	want := valid()
	want.Kernel = &Kernel{Path: "/boot/vmlinux", Format: someFormat(), Cmdline: "debug"}
	got, err := ReadConfig(strings.NewReader(encode(t, want) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add(encode(f, valid()))
	f.Add(`{"nics":[{"tap":"tap0","mac":"x"}]}`)
	f.Fuzz(func(t *testing.T, input string) {
		c, err := ReadConfig(strings.NewReader(input))
		if err != nil {
			return
		}
		// What has been accepted once is accepted again, and holds nothing that C would read differently.
		again, err := ReadConfig(strings.NewReader(encode(t, c)))
		if err != nil {
			t.Fatalf("%+v is refused the second time: %v", c, err)
		}
		if encode(t, c) != encode(t, again) {
			t.Errorf("%+v becomes %+v", c, again)
		}
		for _, s := range []string{c.ID, c.Share, c.Sockets, c.Agent} {
			if strings.ContainsRune(s, 0) {
				t.Errorf("%q holds a NUL", s)
			}
		}
	})
}

func TestExternalKernelKeepsWhatTheVMNeeds(t *testing.T) {
	got := (&Kernel{Cmdline: "debug"}).commandLine()
	for _, p := range []string{"reboot=k", "console=hvc0", "rootfstype=virtiofs", "init=/init.krun", "debug"} {
		if !strings.Contains(" "+got+" ", " "+p+" ") {
			t.Errorf("%q lacks %s", got, p)
		}
	}
}

func TestGuestParameters(t *testing.T) {
	always := []string{"dummy.numdummies=0", "initcall_blacklist=jent_mod_init", "noreplace-smp", "tsc=nowatchdog",
		"swiotlb=noforce", "page_reporting.page_reporting_order=3"}
	for _, tc := range []struct {
		name   string
		change func(*Config)
		more   []string
	}{
		{"in the jail", func(c *Config) { c.Root = "/root" }, []string{"rootflags=dax=always"}},
		{"without the jail's mounts", func(*Config) {}, nil},
		{"more parameters", func(c *Config) { c.Kernel = &Kernel{Cmdline: "debug  loglevel=7"} },
			[]string{"debug", "loglevel=7"}},
		{"an external kernel", func(c *Config) {
			c.Root, c.Kernel = "/root", &Kernel{Path: "/boot/vmlinux", Format: someFormat(), Cmdline: "debug"}
		}, nil},
	} {
		c := valid()
		tc.change(c)
		if got, want := guestParameters(c), slices.Concat(always, tc.more); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tc.name, got, want)
		}
	}
}

func TestVersionIsTheCrates(t *testing.T) {
	manifest, err := os.ReadFile("libkrun/Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	if want := `libkrun = { version = "=` + LibkrunVersion + `"`; !strings.Contains(string(manifest), want) {
		t.Errorf("libkrun/Cargo.toml does not say %s", want)
	}
}

func encode(t testing.TB, c *Config) string {
	t.Helper()
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
