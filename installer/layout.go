package installer

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Layout is where a distribution of Kubernetes keeps its containerd. An administrator may override every field.
type Layout struct {
	// Name is the distribution's.
	Name string `json:"name"`
	// Config is the file that containerd is started with, or the one that it is made from.
	Config string `json:"config"`
	// DropIn is the directory for the drop-in.
	DropIn string `json:"dropIn"`
	// Containerd is the program that judges configurations.
	Containerd string `json:"containerd"`
	// Socket is containerd's.
	Socket string `json:"socket"`
	// Restart is the command that restarts containerd.
	Restart []string `json:"restart"`
	// Generated says that Config is written anew at each start and must not be edited: it has to import DropIn already.
	Generated bool `json:"generated,omitempty"`
	// Merged says that the distribution reads DropIn itself and merges it into what Config imports.
	Merged bool `json:"merged,omitempty"`
	// Template says that containerd may be started with another file, which is made from Config.
	Template bool `json:"template,omitempty"`
}

// distribution is a layout, the file by which it is known, and the units of systemd that can run its containerd.
type distribution struct {
	Layout
	mark  string
	units []string
}

// distributions in the order in which they are looked for. A layout is tried with `containerd config dump` before anything
// is changed, so a wrong one is refused.
func (h Host) distributions() []distribution {
	rancher := func(name string) distribution {
		dir := "/var/lib/rancher/" + name + "/agent/etc/containerd/"
		dropIn := "config.toml.d"
		// The name of the directory depends on the version of the configuration that k3s writes.
		if v, err := h.configVersion(dir + "config.toml"); err == nil && v >= 3 {
			dropIn = "config-v3.toml.d"
		}
		d := distribution{mark: dir + "config.toml", units: []string{name, name + "-agent", name + "-server"}, Layout: Layout{Name: name, Config: dir + "config.toml", DropIn: dir + dropIn,
			Containerd: "/var/lib/rancher/" + name + "/data/current/bin/containerd", Socket: "/run/k3s/containerd/containerd.sock",
			Generated: true}}
		if name == "rke2" {
			d.Containerd = "/var/lib/rancher/rke2/bin/containerd"
		}
		return d
	}
	return []distribution{
		rancher("rke2"),
		rancher("k3s"),
		{mark: "/etc/k0s/containerd.toml", units: []string{"k0sworker", "k0scontroller"}, Layout: Layout{Name: "k0s", Config: "/etc/k0s/containerd.toml", DropIn: "/etc/k0s/containerd.d",
			Containerd: "/var/lib/k0s/bin/containerd", Socket: "/run/k0s/containerd.sock", Merged: true}},
		{mark: "/var/snap/microk8s/current/args/containerd-template.toml", units: []string{"snap.microk8s.daemon-containerd"}, Layout: Layout{Name: "microk8s",
			Config: "/var/snap/microk8s/current/args/containerd-template.toml", DropIn: "/var/snap/microk8s/common/krunpod",
			Containerd: "/snap/microk8s/current/bin/containerd", Socket: "/var/snap/microk8s/common/run/containerd.sock", Template: true}},
		plain(h.plainName()),
	}
}

// plain is containerd as its own packages install it; kind and minikube have it so too.
func plain(name string) distribution {
	return distribution{units: []string{"containerd"}, Layout: Layout{Name: name, Config: defaultConfig,
		DropIn: "/etc/containerd/conf.d", Containerd: "containerd", Socket: "/run/containerd/containerd.sock"}}
}

func (h Host) plainName() string {
	switch {
	case h.exists("/kind"):
		return "kind"
	case h.exists("/var/lib/minikube"):
		return "minikube"
	}
	return "plain"
}

// unit is the one of systemd's units that runs. Files tell less: a package brings those of servers and of agents. They decide where
// none runs, and the first one where there are none.
func (h Host) unit(ctx context.Context, names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	for _, n := range names {
		if _, err := h.Run(ctx, "systemctl", "is-active", "--quiet", n+".service"); err == nil {
			return n
		}
	}
	for _, n := range names {
		for _, dir := range []string{"/etc/systemd/system/", "/usr/lib/systemd/system/", "/usr/local/lib/systemd/system/", "/lib/systemd/system/"} {
			if h.exists(dir + n + ".service") {
				return n
			}
		}
	}
	return names[0]
}

func (h Host) configVersion(path string) (int, error) {
	data, err := h.read(path)
	if err != nil {
		return 0, err
	}
	return configVersion(data)
}

// Detect finds out which distribution the host has, and takes over what is set in override.
func (h Host) Detect(ctx context.Context, override Layout) (Layout, error) {
	var l Layout
	var units []string
	for _, d := range h.distributions() {
		if override.Name != "" && override.Name != d.Name && !(d.mark == "" && override.Name == "plain") {
			continue
		}
		if override.Name == d.Name || d.mark == "" || h.exists(d.mark) {
			l, units = d.Layout, d.units
			break
		}
	}
	if l.Name == "" {
		return l, fmt.Errorf("distribution %q: not known, or not what the node has; known are rke2, k3s, k0s, microk8s, kind, minikube and plain", override.Name)
	}
	if override.Config != "" {
		// A file that was named is one that may be edited, and whoever names it knows what becomes of it.
		l.Config, l.Generated, l.Merged, l.Template = override.Config, false, false, true
	}
	for _, f := range []struct{ to, from *string }{{&l.DropIn, &override.DropIn}, {&l.Containerd, &override.Containerd}, {&l.Socket, &override.Socket}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	if l.Restart = override.Restart; len(l.Restart) == 0 {
		l.Restart = []string{"systemctl", "restart", h.unit(ctx, units)}
	}
	for _, p := range []string{l.Config, l.DropIn, l.Socket} {
		if !filepath.IsAbs(p) || strings.ContainsAny(p, "*?[\\\"'\n") {
			return l, fmt.Errorf("%q is no plain absolute path", p)
		}
	}
	return l, nil
}
