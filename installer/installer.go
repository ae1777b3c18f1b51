package installer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// Defaults of an installation. Prefix is the one that a shim without a configuration looks in.
const (
	DefaultPrefix  = "/opt/krunpod"
	DefaultHandler = "krun"
)

// prefixConfig is the drop-in of Krunpod's own configuration for another prefix.
const prefixConfig = "/etc/krunpod/config.d/00-installer.toml"

// Installer installs on one host.
type Installer struct {
	Host   Host
	Layout Layout
	// Payload is the directory with bin, lib and etc, as this process sees it.
	Payload string
	// Prefix is the directory of the host for them.
	Prefix string
	// Handler is the runtime's name in containerd, which a RuntimeClass names.
	Handler string
	// Proc is the proc file system of the host's PID namespace.
	Proc string
}

// Result says what an installation found and did.
type Result struct {
	// Ready says that the node can run krun pods now.
	Ready bool `json:"ready"`
	// Reason says why not, in a sentence for a person.
	Reason string `json:"reason,omitempty"`
	// Version is the digest of the files installed.
	Version string `json:"version,omitempty"`
	Layout  Layout `json:"layout"`
	// Changed are the files of the host that were written or removed, and Restarted whether containerd was.
	Changed   []string `json:"changed"`
	Restarted bool     `json:"restarted"`
}

// record is what was changed outside the prefix. It is written before the change: after a crash all that may have happened
// is known.
type record struct {
	Handler string `json:"handler"`
	Config  string `json:"config"`
	// Existed says whether Config was there; Inserted is what was put into it, empty if nothing was.
	Existed  bool   `json:"existed"`
	Inserted string `json:"inserted,omitempty"`
	DropIn   string `json:"dropIn"`
	// Dirs are the directories that were made for the drop-ins, the deepest first.
	Dirs []string `json:"dirs,omitempty"`
	// Restart is set while containerd may run with another configuration than is on disk.
	Restart bool `json:"restart,omitempty"`
}

func (i *Installer) version(id string) string { return filepath.Join(i.Prefix, versionsDir, id) }
func (i *Installer) shim() string             { return filepath.Join(i.Prefix, "bin/containerd-shim-krun-v2") }
func (i *Installer) dropInPath() string       { return filepath.Join(i.Layout.DropIn, dropInName) }
func (i *Installer) inPrefix(n string) string { return filepath.Join(i.Prefix, n) }

func (i *Installer) loadRecord() (*record, error) {
	data, err := i.Host.read(i.inPrefix(recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", i.inPrefix(recordFile), err)
	}
	return &r, nil
}

func (i *Installer) saveRecord(r *record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return i.Host.write(i.inPrefix(recordFile), append(data, '\n'))
}

// Install brings the host to the installed state; done twice it changes nothing. A node that cannot run krun pods is no
// error: the result says why, and containerd is left alone.
func (i *Installer) Install(ctx context.Context) (*Result, error) {
	res := &Result{Layout: i.Layout, Changed: []string{}}
	if err := i.ours(); err != nil {
		return nil, err
	}
	id, err := i.lay()
	if err != nil {
		return nil, err
	}
	res.Version = id
	if res.Reason, err = i.check(ctx, id); err != nil || res.Reason != "" {
		return res, err
	}
	if err := i.configurePrefix(res); err != nil {
		return res, err
	}
	if err := i.activate(id); err != nil {
		return res, err
	}
	if err := i.configure(ctx, res); err != nil {
		return res, err
	}
	res.Ready = true
	return res, i.prune(id)
}

// ours refuses to build on an installation that was made by hand, and on one for another configuration of containerd.
func (i *Installer) ours() error {
	for _, name := range []string{"bin", "lib"} {
		dir, err := i.Host.path(i.Prefix)
		if err != nil {
			return err
		}
		if isRealDir(filepath.Join(dir, name)) {
			return fmt.Errorf("%s is there and not the installer's: remove the installation that was made by hand, or take another directory", i.inPrefix(name))
		}
	}
	r, err := i.loadRecord()
	if err != nil || r == nil {
		return err
	}
	if r.Config != i.Layout.Config || r.DropIn != i.dropInPath() || r.Handler != i.Handler {
		return fmt.Errorf("the node has an installation for %s, drop-in %s, runtime %s: uninstall it before it is set up otherwise",
			r.Config, r.DropIn, r.Handler)
	}
	return nil
}

// check boots a microVM with the files of a version, before anything uses them.
func (i *Installer) check(ctx context.Context, id string) (reason string, err error) {
	v := i.version(id)
	trial := i.inPrefix("check.toml")
	if err := i.Host.write(trial, i.ownConfig(v)); err != nil {
		return "", err
	}
	defer i.Host.remove(trial) //nolint:errcheck // the next check writes it again
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	out, runErr := i.Host.Run(ctx, filepath.Join(v, "bin/krunctl"), "check", "--config", trial, "--output", "json")
	var report struct {
		Ready  bool `json:"ready"`
		Checks []struct {
			Name, Detail, Remedy string
			OK                   bool
		} `json:"checks"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return "", fmt.Errorf("check the node: %w", errors.Join(runErr, err))
	}
	if report.Ready {
		return "", nil
	}
	for _, c := range report.Checks {
		if !c.OK {
			return fmt.Sprintf("%s: %s; %s", c.Name, c.Detail, c.Remedy), nil
		}
	}
	return "krunctl check says no and not why", nil
}

// ownConfig is Krunpod's configuration for files below dir.
func (i *Installer) ownConfig(dir string) []byte {
	return fmt.Appendf(nil, "# Written by krun-installer, which overwrites and removes it.\nrunner = %q\nagent = %q\nvnet = %q\nfirmware = %q\n",
		filepath.Join(dir, "bin/krun-runner"), filepath.Join(dir, "bin/krun-agent"), filepath.Join(dir, "bin/krun-vnet"), filepath.Join(dir, "lib"))
}

// missing are dir and the directories above it that are not there, the deepest first.
func (i *Installer) missing(dir string) []string {
	var dirs []string
	for ; !i.Host.exists(dir); dir = filepath.Dir(dir) {
		dirs = append(dirs, dir)
	}
	return dirs
}

// removeDirs removes directories that are empty; one that somebody else uses by now stays.
func (i *Installer) removeDirs(dirs []string) {
	for _, d := range dirs {
		i.Host.remove(d) //nolint:errcheck // it is not empty
	}
}

// configurePrefix tells the shim where its files are, when that is not where it looks by itself.
func (i *Installer) configurePrefix(res *Result) error {
	if i.Prefix == DefaultPrefix {
		return nil
	}
	return i.put(res, prefixConfig, i.ownConfig(i.Prefix))
}

// put writes a file if it is not so already.
func (i *Installer) put(res *Result, path string, data []byte) error {
	if old, err := i.Host.read(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := i.Host.write(path, data); err != nil {
		return err
	}
	res.Changed = append(res.Changed, path)
	return nil
}

// configure adds the runtime to containerd, and restarts it if that changed anything. What fails is undone.
func (i *Installer) configure(ctx context.Context, res *Result) error {
	c, err := i.plan(ctx)
	if err != nil {
		return err
	}
	r, err := i.loadRecord()
	if err != nil {
		return err
	}
	old, err := i.Host.read(i.dropInPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	same := string(old) == string(c.dropIn) && (c.edited == nil || i.Layout.Merged)
	if same && r != nil && !r.Restart {
		return nil
	}
	if r == nil {
		r = &record{Handler: i.Handler, Config: i.Layout.Config, Existed: c.existed, DropIn: i.dropInPath(),
			Dirs: i.missing(i.Layout.DropIn)}
	}
	if c.edited != nil && !i.Layout.Merged {
		r.Existed, r.Inserted = c.existed, c.inserted
		if err := i.Host.write(i.inPrefix(backupFile), c.config); err != nil {
			return err
		}
	}
	r.Restart = true
	if err := i.saveRecord(r); err != nil {
		return err
	}
	if err := i.apply(ctx, c, res); err != nil {
		return errors.Join(err, i.undo(ctx, c, old, res, r))
	}
	r.Restart = false
	return i.saveRecord(r)
}

// apply writes the drop-in, lets containerd judge the whole, and only then edits its configuration and restarts it.
func (i *Installer) apply(ctx context.Context, c *change, res *Result) error {
	before, err := i.dump(ctx, i.Layout.Config)
	if err != nil {
		return err
	}
	if err := i.put(res, i.dropInPath(), c.dropIn); err != nil {
		return err
	}
	candidate := i.Layout.Config
	if c.edited != nil {
		candidate = filepath.Join(filepath.Dir(i.Layout.Config), ".krunpod-trial.toml")
		if err := i.Host.write(candidate, c.edited); err != nil {
			return err
		}
		defer i.Host.remove(candidate) //nolint:errcheck // the next trial writes it again
	}
	after, err := i.dump(ctx, candidate)
	if err != nil {
		return err
	}
	if err := onlyRuntime(before, after, i.Handler); err != nil {
		return err
	}
	if c.edited != nil && !i.Layout.Merged {
		if err := i.put(res, i.Layout.Config, c.edited); err != nil {
			return err
		}
	}
	res.Restarted = true
	return i.restart(ctx)
}

// undo takes apply back, and restarts containerd if it was restarted with the change.
func (i *Installer) undo(ctx context.Context, c *change, oldDropIn []byte, res *Result, r *record) error {
	var errs []error
	if c.edited != nil && !i.Layout.Merged {
		if c.existed {
			errs = append(errs, i.Host.write(i.Layout.Config, c.config))
		} else {
			errs = append(errs, i.Host.remove(i.Layout.Config))
		}
		r.Inserted = ""
	}
	if oldDropIn != nil {
		errs = append(errs, i.Host.write(i.dropInPath(), oldDropIn))
	} else {
		errs = append(errs, i.Host.remove(i.dropInPath()))
	}
	if res.Restarted {
		if err := i.restart(ctx); err != nil {
			errs = append(errs, fmt.Errorf("and with the configuration of before: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	res.Changed = []string{}
	if oldDropIn == nil {
		i.removeDirs(r.Dirs)
		return i.Host.remove(i.inPrefix(recordFile))
	}
	r.Restart = false
	return i.saveRecord(r)
}

// Running returns the sandboxes on the node, as krunctl knows them.
func (i *Installer) Running(ctx context.Context) ([]string, error) {
	krunctl := i.inPrefix("bin/krunctl")
	if !i.Host.exists(krunctl) {
		return nil, nil
	}
	out, err := i.Host.Run(ctx, krunctl, "ps", "--output", "json")
	if err != nil {
		return nil, fmt.Errorf("which krun pods run: %w", err)
	}
	var all []struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("which krun pods run: krunctl ps: %w", err)
	}
	var ids []string
	for _, s := range all {
		ids = append(ids, s.ID)
	}
	return ids, nil
}

// ErrPodsRun is an uninstallation's answer when krun pods run on the node.
var ErrPodsRun = errors.New("krun pods run on this node: delete them first, or force the uninstallation and lose them")

// Uninstall leaves the host as it was before Install. Without force it does nothing while krun pods run.
func (i *Installer) Uninstall(ctx context.Context, force bool) (*Result, error) {
	res := &Result{Layout: i.Layout, Changed: []string{}}
	if !force {
		ids, err := i.Running(ctx)
		if err != nil {
			return res, err
		}
		if len(ids) > 0 {
			return res, fmt.Errorf("%w: %s", ErrPodsRun, strings.Join(ids, ", "))
		}
	}
	r, err := i.loadRecord()
	if err != nil {
		return res, err
	}
	if r != nil {
		if err := i.deconfigure(ctx, r, res); err != nil {
			return res, err
		}
	}
	if i.Prefix != DefaultPrefix && i.Host.exists(prefixConfig) {
		if err := i.Host.remove(prefixConfig); err != nil {
			return res, err
		}
		res.Changed = append(res.Changed, prefixConfig)
	}
	if r != nil {
		i.removeDirs(r.Dirs)
	}
	return res, i.removeFiles()
}

// deconfigure takes the runtime out of containerd. The record goes last, with the files.
func (i *Installer) deconfigure(ctx context.Context, r *record, res *Result) error {
	had := i.Host.exists(r.DropIn)
	r.Restart = r.Restart || had
	if err := i.saveRecord(r); err != nil {
		return err
	}
	if err := i.restoreConfig(r, res); err != nil {
		return err
	}
	if had {
		if err := i.Host.remove(r.DropIn); err != nil {
			return err
		}
		res.Changed = append(res.Changed, r.DropIn)
	}
	if !r.Restart {
		return nil
	}
	res.Restarted = true
	if err := i.restart(ctx); err != nil {
		return err
	}
	r.Restart = false
	return i.saveRecord(r)
}

// restoreConfig takes the line out of containerd's configuration. It need not be there: a crash may have come before.
func (i *Installer) restoreConfig(r *record, res *Result) error {
	if r.Inserted == "" {
		return nil
	}
	now, err := i.Host.read(r.Config)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !strings.Contains(string(now), r.DropIn) {
		return nil
	}
	edited, err := removeImport(now, r.Inserted, r.DropIn)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Config, err)
	}
	res.Changed = append(res.Changed, r.Config)
	if !r.Existed && string(edited) == emptyConfig {
		return i.Host.remove(r.Config)
	}
	return i.Host.write(r.Config, edited)
}
