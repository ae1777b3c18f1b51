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

	"krun.dev/krunpod/installer/krunctl"
)

// Defaults of an installation. Prefix is the one that a shim without a configuration looks in.
const (
	DefaultPrefix  = "/opt/krunpod"
	DefaultHandler = "krun"
)

// checkTime bounds a check, most of which can be a wait for other microVMs of the node that boot.
const checkTime = 10 * time.Minute

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
	// Other is the directory of another installation, which an uninstallation of this one left alone.
	Other string `json:"other,omitempty"`
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
	// Dirs are the directories that were made for the drop-in and for Config, the deepest first.
	Dirs []string `json:"dirs,omitempty"`
	// Restart is set while containerd may run with another configuration than is on disk.
	Restart bool `json:"restart,omitempty"`
}

func (i *Installer) version(id string) string { return filepath.Join(i.Prefix, versionsDir, id) }
func (i *Installer) shim() string             { return i.inPrefix(shimFile) }
func (i *Installer) dropInPath() string       { return filepath.Join(i.Layout.DropIn, dropInName) }
func (i *Installer) inPrefix(n string) string { return filepath.Join(i.Prefix, n) }

// trial is the edited configuration while containerd judges it. Beside the real one: relative imports are of its directory.
func trial(config string) string { return filepath.Join(filepath.Dir(config), ".krunpod-trial.toml") }

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
	if err != nil {
		return err
	}
	if r == nil {
		other, err := i.other()
		if err == nil && other != "" {
			err = fmt.Errorf("%s is of the installation under %s: uninstall that before the node is set up otherwise", i.dropInPath(), other)
		}
		return err
	}
	if r.Config != i.Layout.Config || r.DropIn != i.dropInPath() || r.Handler != i.Handler {
		return fmt.Errorf("the node has an installation for %s, drop-in %s, runtime %s: uninstall it before it is set up otherwise",
			r.Config, r.DropIn, r.Handler)
	}
	return nil
}

// other is the prefix of the installation that the drop-in is of, if that is another than this one.
func (i *Installer) other() (string, error) {
	data, err := i.Host.read(i.dropInPath())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	shim := runtimePath(data)
	if shim == i.shim() {
		return "", nil
	}
	prefix, ok := strings.CutSuffix(shim, "/"+shimFile)
	if !ok {
		return "", fmt.Errorf("%s is there and not the installer's: remove it, or take another directory for the drop-in", i.dropInPath())
	}
	return prefix, nil
}

// ErrUndecided is a check's answer when it took too long. A node with other things to do is no worse than before, so nothing was
// changed on it.
var ErrUndecided = errors.New("the check of this node took too long")

// check boots a microVM with the files of a version and the node's configuration, before anything uses them.
func (i *Installer) check(ctx context.Context, id string) (reason string, err error) {
	v := i.version(id)
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	out, runErr := i.Host.Run(ctx, filepath.Join(v, "bin/krunctl"), "check", "--files", v, "--output", "json")
	var report krunctl.Report
	if err := json.Unmarshal(out, &report); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%w: no answer within %v", ErrUndecided, checkTime)
		}
		return "", fmt.Errorf("check the node: %w", errors.Join(runErr, err))
	}
	if report.Ready {
		return "", nil
	}
	for _, c := range report.Checks {
		why := fmt.Sprintf("%s: %s; %s", c.Name, c.Detail, c.Remedy)
		switch {
		case c.TimedOut:
			return "", fmt.Errorf("%w: %s", ErrUndecided, why)
		case !c.OK:
			return why, nil
		}
	}
	return "krunctl check says no and not why", nil
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

// Standing reports whether containerd's configuration on disk has the runtime as an installation wrote it.
func (i *Installer) Standing() bool {
	c, err := i.plan()
	return err == nil && c.done(i.Layout)
}

// configure adds the runtime to containerd, and restarts it if that changed anything. What fails is undone.
func (i *Installer) configure(ctx context.Context, res *Result) error {
	c, err := i.plan()
	if err != nil {
		return err
	}
	r, err := i.loadRecord()
	if err != nil {
		return err
	}
	if c.done(i.Layout) && r != nil && !r.Restart {
		return nil
	}
	if r == nil || !r.Restart {
		if err := i.serves(); err != nil {
			return err
		}
	}
	if r == nil {
		r = &record{Handler: i.Handler, Config: i.Layout.Config, Existed: c.existed, DropIn: i.dropInPath(),
			Dirs: append(i.missing(i.Layout.DropIn), i.missing(filepath.Dir(i.Layout.Config))...)}
	}
	if c.edits(i.Layout) {
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
		return errors.Join(err, i.undo(ctx, c, res, r))
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
		candidate = trial(i.Layout.Config)
		if err := i.Host.write(candidate, c.edited); err != nil {
			return err
		}
		defer i.Host.remove(candidate) //nolint:errcheck // the next trial writes it again
	}
	after, err := i.dump(ctx, candidate)
	if err != nil {
		return err
	}
	if err := onlyRuntime(before, after, i.Handler, c.had != nil); err != nil {
		return err
	}
	if c.edits(i.Layout) {
		if err := i.put(res, i.Layout.Config, c.edited); err != nil {
			return err
		}
	}
	res.Restarted = true
	return i.restart(ctx)
}

// undo takes apply back, and restarts containerd if it was restarted with the change.
func (i *Installer) undo(ctx context.Context, c *change, res *Result, r *record) error {
	var errs []error
	if c.edits(i.Layout) {
		if c.existed {
			errs = append(errs, i.Host.write(i.Layout.Config, c.config))
		} else {
			errs = append(errs, i.Host.remove(i.Layout.Config))
		}
		r.Inserted = ""
	}
	if c.had != nil {
		errs = append(errs, i.Host.write(i.dropInPath(), c.had))
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
	if c.had == nil {
		i.removeDirs(r.Dirs)
		return i.Host.remove(i.inPrefix(recordFile))
	}
	r.Restart = false
	return i.saveRecord(r)
}

// Running returns the sandboxes on the node that run or start, as krunctl knows them.
func (i *Installer) Running(ctx context.Context) ([]string, error) {
	program, err := i.krunctl()
	if program == "" {
		return nil, err
	}
	out, err := i.Host.Run(ctx, program, "ps", "--output", "json")
	if err != nil {
		return nil, fmt.Errorf("which krun pods run: %w", err)
	}
	var all []struct {
		ID string `json:"id"`
		krunctl.Life
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("which krun pods run: krunctl ps: %w", err)
	}
	var ids []string
	for _, s := range all {
		if s.InUse() {
			ids = append(ids, s.ID)
		}
	}
	return ids, nil
}

// ErrPodsRun is an uninstallation's answer when krun pods run on the node.
var ErrPodsRun = errors.New("krun pods run on this node: delete them first, or force the uninstallation and lose them")

// Uninstall leaves the host as it was before Install. Without force it does nothing while krun pods run.
func (i *Installer) Uninstall(ctx context.Context, force bool) (*Result, error) {
	res := &Result{Layout: i.Layout, Changed: []string{}}
	// A check that was killed has left a microVM that would count as a pod's.
	if err := i.clean(ctx); err != nil && !force {
		return res, err
	}
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
		err = i.deconfigure(ctx, r, res)
	} else {
		res.Other, err = i.other()
	}
	if err != nil {
		return res, err
	}
	// Once more: until here a pod could start.
	if err := i.clean(ctx); err != nil && !force {
		return res, err
	}
	if r != nil {
		i.removeDirs(r.Dirs)
	}
	return res, i.removeFiles()
}

// clean removes what the node keeps of sandboxes that are gone.
func (i *Installer) clean(ctx context.Context) error {
	program, err := i.krunctl()
	if program == "" {
		return err
	}
	_, err = i.Host.Run(ctx, program, "clean")
	return err
}

// krunctl is the one in use, or on a node that cannot run krun pods one that was tried; empty when there is none.
func (i *Installer) krunctl() (string, error) {
	if p := i.inPrefix("bin/krunctl"); i.Host.exists(p) {
		return p, nil
	}
	at, err := i.Host.path(i.inPrefix(versionsDir))
	if err != nil {
		return "", err
	}
	tried, err := filepath.Glob(filepath.Join(at, "*/bin/krunctl"))
	if len(tried) == 0 {
		return "", err
	}
	rel, err := filepath.Rel(at, tried[0])
	return i.inPrefix(filepath.Join(versionsDir, rel)), err
}

// deconfigure takes the runtime out of containerd. The record goes last, with the files.
func (i *Installer) deconfigure(ctx context.Context, r *record, res *Result) error {
	had := i.Host.exists(r.DropIn)
	r.Restart = r.Restart || had
	if err := i.saveRecord(r); err != nil {
		return err
	}
	// After a crash there may be a trial, and files on their way to another's place.
	if err := i.Host.remove(trial(r.Config)); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(r.Config), filepath.Dir(r.DropIn)} {
		if err := i.Host.sweep(dir); err != nil {
			return err
		}
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
	pattern := importPattern(r.DropIn)
	if !strings.Contains(string(now), pattern) {
		return nil
	}
	edited, err := removeImport(now, r.Inserted, pattern)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Config, err)
	}
	res.Changed = append(res.Changed, r.Config)
	if !r.Existed && string(edited) == emptyConfig {
		return i.Host.remove(r.Config)
	}
	return i.Host.write(r.Config, edited)
}
