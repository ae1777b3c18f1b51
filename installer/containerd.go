package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// runtimes is the plugin that holds them in what containerd 2 dumps, whatever version the file has.
const runtimes = "io.containerd.cri.v1.runtime"

// dropInName sorts before an administrator's own files, which can override it.
const dropInName = "10-krunpod.toml"

// importPattern is what a configuration imports for the drop-in at path. It is a pattern, since containerd does not start with an
// import of a file that is not there, and does with a pattern that matches none: whatever becomes of the drop-in.
func importPattern(path string) string { return strings.TrimSuffix(path, ".toml") + "*.toml" }

// emptyConfig is the configuration of a containerd 2 that has none.
const emptyConfig = "version = 3\n"

// dropIn is the runtime in a configuration of the given version. privileged_without_host_devices: the host's devices do
// not exist in a microVM.
func dropIn(version int, handler, shim string) ([]byte, error) {
	plugin := runtimes
	switch version {
	case 2:
		plugin = "io.containerd.grpc.v1.cri"
	case 3:
	case 4:
		version = 3 // containerd migrates it; the runtimes are at the same place
	default:
		return nil, fmt.Errorf("a configuration of version %d is not understood: 2, 3 and 4 are (containerd config migrate)", version)
	}
	return fmt.Appendf(nil, `# Written by krun-installer, which overwrites and removes it.
version = %d

[plugins.%q.containerd.runtimes.%q]
runtime_type = "io.containerd.krun.v2"
runtime_path = %q
sandboxer = "shim"
disable_pause_image_pull = true
pod_annotations = ["krun.dev/*"]
privileged_without_host_devices = true
`, version, plugin, handler, shim), nil
}

// change is what has to be done to containerd's configuration.
type change struct {
	// config is what stands in Layout.Config, and existed whether it does.
	config  []byte
	existed bool
	// edited is what shall stand there; nil leaves it as it is.
	edited   []byte
	inserted string
	// dropIn shall be the drop-in, which is had; nil if there is none.
	dropIn, had []byte
}

// done reports whether there is nothing to do.
func (c *change) done(l Layout) bool { return bytes.Equal(c.had, c.dropIn) && !c.edits(l) }

// edits reports whether the configuration itself changes, not only its trial.
func (c *change) edits(l Layout) bool { return c.edited != nil && !l.Merged }

// plan works out the change without making it.
func (i *Installer) plan() (*change, error) {
	c := &change{existed: true}
	var err error
	if c.config, err = i.Host.read(i.Layout.Config); errors.Is(err, fs.ErrNotExist) {
		c.config, c.existed = []byte(emptyConfig), false
	} else if err != nil {
		return nil, err
	}
	version, err := configVersion(c.config)
	if err != nil {
		return nil, fmt.Errorf("%s is not understood: %w", i.Layout.Config, err)
	}
	if c.dropIn, err = dropIn(version, i.Handler, i.shim()); err != nil {
		return nil, fmt.Errorf("%s: %w", i.Layout.Config, err)
	}
	if c.had, err = i.Host.read(i.dropInPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if imported, err := imports(c.config, i.Layout.Config, i.dropInPath()); imported || err != nil {
		return c, err
	}
	if i.Layout.Generated {
		return nil, fmt.Errorf("%s is written anew by %s at each start and does not import %s/*.toml: take a newer %s, or import it in its template",
			i.Layout.Config, i.Layout.Name, i.Layout.DropIn, i.Layout.Name)
	}
	if c.edited, c.inserted, err = addImport(c.config, importPattern(i.dropInPath())); err != nil {
		return nil, fmt.Errorf("%s: %w", i.Layout.Config, err)
	}
	return c, nil
}

// dump is the configuration that containerd makes of a file and its imports.
func (i *Installer) dump(ctx context.Context, config string) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := i.Host.Run(ctx, i.Layout.Containerd, "--config", config, "config", "dump")
	if err != nil {
		return nil, fmt.Errorf("what containerd is configured to do cannot be found out: %w", err)
	}
	var dump map[string]any
	if err := toml.Unmarshal(out, &dump); err != nil {
		return nil, fmt.Errorf("%s config dump: %w", i.Layout.Containerd, err)
	}
	return dump, nil
}

// onlyRuntime checks that after is before and the runtime, and nothing else: containerd before 2.0 replaces the CRI's whole
// section by that of a drop-in. A runtime that was there when no drop-in was is somebody else's.
func onlyRuntime(before, after map[string]any, handler string, hadDropIn bool) error {
	plugin, ok := after["plugins"].(map[string]any)[runtimes].(map[string]any)
	if !ok {
		return errors.New("this containerd has no " + runtimes + ": Krunpod needs containerd 2.0 or newer")
	}
	for _, dump := range []map[string]any{before, after} {
		delete(dump, "imports")
	}
	if p, ok := before["plugins"].(map[string]any)[runtimes].(map[string]any); ok {
		if _, had := take(p, handler); had && !hadDropIn {
			return fmt.Errorf("containerd has a runtime %s already, which is not the installer's: remove it, or take another handler", handler)
		}
	}
	is, ok := take(plugin, handler)
	if !ok || is["sandboxer"] != "shim" || is["runtime_type"] != "io.containerd.krun.v2" {
		return fmt.Errorf("containerd would not have the runtime %s as the drop-in says: another file overrides it, or the containerd is too old", handler)
	}
	if !reflect.DeepEqual(before, after) {
		return errors.New("the drop-in would change more of containerd's configuration than the runtime: nothing was changed")
	}
	return nil
}

// take removes a runtime from the plugin's part of a dump.
func take(plugin map[string]any, handler string) (map[string]any, bool) {
	containerd, _ := plugin["containerd"].(map[string]any)
	all, _ := containerd["runtimes"].(map[string]any)
	is, ok := all[handler].(map[string]any)
	delete(all, handler)
	return is, ok
}

// restart restarts containerd and waits until it takes connections.
func (i *Installer) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := i.Host.Run(ctx, i.Layout.Restart...); err != nil {
		return fmt.Errorf("restart containerd: %w", err)
	}
	at, err := i.Host.path(i.Layout.Socket)
	if err != nil {
		return err
	}
	for {
		conn, err := net.Dial("unix", at)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd was restarted and does not answer: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
