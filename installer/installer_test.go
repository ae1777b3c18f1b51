package installer

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/pelletier/go-toml/v2"
)

// containerdEnv names a program containerd that is not too old.
const containerdEnv = "KRUNPOD_CONTAINERD"

// node is a tree of files with a containerd that is containerd's own parser, and a krunctl that says what the test wants.
type node struct {
	t        *testing.T
	root     string
	notReady bool
	// slow makes checks run out of time.
	slow bool
	// broken makes krunctl say nothing that is understood.
	broken   bool
	pods     string
	restarts int
	// active is systemd's unit that runs.
	active string
	// checked and cleaned are how krunctl was called.
	checked []string
	cleaned int
	// failRestart is how many restarts fail.
	failRestart int
	// checking is called when krunctl checks the node.
	checking func()
	// containerd is a real one, which judges instead of its parser.
	containerd string
	// tooOld makes containerd lose a setting of the CRI's section to a drop-in, as it did before 2.0.
	tooOld bool
}

func newNode(t *testing.T, files map[string]string) *node {
	// Not t.TempDir: the path of a socket below it would be too long.
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	n := &node{t: t, root: root, pods: "[]"}
	for path, data := range files {
		n.write(path, data)
	}
	return n
}

func (n *node) write(path, data string) {
	n.t.Helper()
	at := filepath.Join(n.root, path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(data), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) read(path string) string {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.root, path))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

// files are the node's files and links with their contents.
func (n *node) files() map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(n.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, n.root)
		switch {
		case e.IsDir():
			all[rel] = "directory"
		case e.Type()&fs.ModeSocket != 0:
		case e.Type()&fs.ModeSymlink != 0:
			all[rel], err = os.Readlink(path)
		default:
			var data []byte
			data, err = os.ReadFile(path)
			all[rel] = string(data)
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

func (n *node) run(_ context.Context, argv ...string) ([]byte, error) {
	switch filepath.Base(argv[0]) {
	case "krunctl":
		switch argv[1] {
		case "ps":
			return []byte(n.pods), nil
		case "clean":
			n.cleaned++
			return nil, nil
		}
		if n.checking != nil {
			n.checking()
		}
		n.checked = argv
		if n.broken {
			return nil, errors.New("exit status 1")
		}
		if n.slow {
			return []byte(`{"ready":false,"checks":[{"name":"boot","detail":"the guest did not answer within 1m0s","remedy":"wait","timedOut":true}]}`), errors.New("exit status 3")
		}
		if n.notReady {
			return []byte(`{"ready":false,"checks":[{"name":"kvm","ok":false,"detail":"no /dev/kvm","remedy":"load kvm"}]}`), errors.New("exit status 3")
		}
		return []byte(`{"ready":true,"checks":[]}`), nil
	case "containerd":
		return n.dump(argv[2])
	case "systemctl":
		if argv[1] == "is-active" {
			if n.active+".service" != argv[3] {
				return nil, errors.New("exit status 3")
			}
			return nil, nil
		}
		n.restarts++
		if n.failRestart > 0 {
			n.failRestart--
			return nil, errors.New("containerd.service failed")
		}
		return nil, nil
	}
	return nil, errors.New("not expected: " + strings.Join(argv, " "))
}

// dump is containerd config dump, on the node's files: by containerd's own code.
func (n *node) dump(path string) ([]byte, error) {
	if n.containerd != "" {
		return n.realDump(path)
	}
	// As in containerd's defaults, there are a runtime already, and an import that nothing follows.
	runc := map[string]any{"runtime_type": "io.containerd.runc.v2"}
	c := containerd.Config{Version: 3, Imports: []string{"/etc/containerd/conf.d/*.toml"}, Plugins: map[string]any{runtimes: map[string]any{
		"containerd": map[string]any{"runtimes": map[string]any{"runc": runc}}}}}
	// A path of the node is one of the test's tree in the file and in its imports.
	work := n.t.TempDir()
	for p := range n.files() {
		if strings.HasSuffix(p, ".toml") {
			data := strings.ReplaceAll(n.read(p), `["/`, `["`+work+`/`)
			data = strings.ReplaceAll(data, `, "/`, `, "`+work+`/`)
			// What migrates the CRI's section is its plugin, which is not linked here.
			data = strings.ReplaceAll(data, "version = 2", "version = 3")
			data = strings.ReplaceAll(data, "io.containerd.grpc.v1.cri", runtimes)
			if err := os.MkdirAll(filepath.Dir(filepath.Join(work, p)), 0o755); err != nil {
				return nil, err
			}
			if err := os.WriteFile(filepath.Join(work, p), []byte(data), 0o600); err != nil {
				return nil, err
			}
		}
	}
	if _, err := os.Stat(filepath.Join(work, path)); err == nil {
		if err := containerd.LoadConfig(context.Background(), filepath.Join(work, path), &c); err != nil {
			return nil, err
		}
	}
	if n.tooOld {
		if p, ok := c.Plugins[runtimes].(map[string]any); ok && len(c.Imports) > 1 {
			delete(p, "snapshotter")
		}
	}
	data, err := toml.Marshal(c)
	return []byte(strings.ReplaceAll(string(data), work, "")), err
}

// realDump is containerd's, with the node's files as its root.
func (n *node) realDump(path string) ([]byte, error) {
	const name = "/containerd"
	program, err := os.ReadFile(n.containerd)
	if err != nil {
		return nil, err
	}
	at := filepath.Join(n.root, name)
	if err := os.WriteFile(at, program, 0o755); err != nil {
		return nil, err
	}
	defer os.Remove(at)
	cmd := exec.Command(name, "--config", path, "config", "dump")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: n.root}
	cmd.Dir = "/"
	return cmd.Output()
}

func (n *node) installer(t *testing.T, override Layout) *Installer {
	t.Helper()
	h := Host{Root: n.root, Run: n.run}
	l, err := h.Detect(t.Context(), override)
	if err != nil {
		t.Fatal(err)
	}
	return &Installer{Host: h, Layout: l, Payload: payload(t, "1"), Prefix: DefaultPrefix, Handler: DefaultHandler, Proc: t.TempDir()}
}

func payload(t *testing.T, content string) string {
	dir := t.TempDir()
	for _, f := range []string{"bin/krunctl", "bin/containerd-shim-krun-v2", "lib/libkrunfw.so.5"} {
		at := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// listen makes containerd's socket.
func (n *node) listen(t *testing.T, i *Installer) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(n.root, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	i.Layout.Socket = "/s"
}

const (
	// What kind writes, shortened.
	kindConfig = `# explicitly use v2 config format
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  snapshotter = "overlayfs" # kept
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`
	v3Config = `version = 3
imports = [ "/etc/containerd/extra/*.toml" ] # an administrator's

[plugins.'io.containerd.cri.v1.runtime']
  snapshotter = "overlayfs"
`
	importing = `version = 3
imports = ["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/*.toml"]
`
)

// layouts are the distributions' trees, and what an installation may change there besides the prefix.
var layouts = []struct {
	name    string
	files   map[string]string
	config  string
	edited  bool
	dropIn  string
	version string
}{
	{"plain", map[string]string{"/etc/containerd/config.toml": v3Config}, "/etc/containerd/config.toml", true, "/etc/containerd/conf.d", "version = 3"},
	{"plain", map[string]string{"/etc/hosts": ""}, "/etc/containerd/config.toml", true, "/etc/containerd/conf.d", "version = 3"},
	{"kind", map[string]string{"/kind/version": "", "/etc/containerd/config.toml": kindConfig}, "/etc/containerd/config.toml", true, "/etc/containerd/conf.d", "version = 2"},
	{"minikube", map[string]string{"/var/lib/minikube/x": "", "/etc/containerd/config.toml": v3Config}, "/etc/containerd/config.toml", true, "/etc/containerd/conf.d", "version = 3"},
	{"k3s", map[string]string{"/var/lib/rancher/k3s/agent/etc/containerd/config.toml": importing, "/etc/systemd/system/k3s-agent.service": ""},
		"/var/lib/rancher/k3s/agent/etc/containerd/config.toml", false, "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d", "version = 3"},
	{"rke2", map[string]string{"/var/lib/rancher/rke2/agent/etc/containerd/config.toml": strings.ReplaceAll(importing, "k3s", "rke2")},
		"/var/lib/rancher/rke2/agent/etc/containerd/config.toml", false, "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.d", "version = 3"},
	{"k0s", map[string]string{"/etc/k0s/containerd.toml": "# k0s_managed=true\nversion = 3\nimports = [\"/run/k0s/containerd-cri.toml\"]\n", "/run/k0s/containerd-cri.toml": "version = 3\n"},
		"/etc/k0s/containerd.toml", false, "/etc/k0s/containerd.d", "version = 3"},
	{"microk8s", map[string]string{"/var/snap/microk8s/current/args/containerd-template.toml": kindConfig},
		"/var/snap/microk8s/current/args/containerd-template.toml", true, "/var/snap/microk8s/common/krunpod", "version = 2"},
}

func TestInstallAndUninstallOnEachDistribution(t *testing.T) { installOnEach(t, "") }

// The migration of older versions and the defaults are containerd's own.
func TestContainerdItselfTakesWhatIsWrittenOnEachDistribution(t *testing.T) {
	program := os.Getenv(containerdEnv)
	if program == "" || os.Geteuid() != 0 {
		t.Skip("it needs root, or " + containerdEnv + " names no containerd; hack/unit takes the one of the tests' node, if it is built")
	}
	installOnEach(t, program)
}

func installOnEach(t *testing.T, containerd string) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			n := newNode(t, l.files)
			n.containerd = containerd
			i := n.installer(t, Layout{})
			n.listen(t, i)
			if i.Layout.Name != l.name || i.Layout.Config != l.config || i.Layout.DropIn != l.dropIn {
				t.Fatalf("detected %+v", i.Layout)
			}
			before := n.files()

			res, err := i.Install(t.Context())
			if err != nil || !res.Ready || !res.Restarted || n.restarts != 1 {
				t.Fatalf("install: %+v, %v, %d restarts", res, err, n.restarts)
			}
			if got := n.read(l.dropIn + "/10-krunpod.toml"); !strings.Contains(got, l.version) {
				t.Errorf("drop-in: %s", got)
			}
			if edited := slices.Contains(res.Changed, l.config); edited != l.edited {
				t.Errorf("changed %v", res.Changed)
			}
			if l.edited {
				if had, has := strings.Count(before[l.config], "\n"), strings.Count(n.read(l.config), "\n"); before[l.config] != "" && has > had+1 {
					t.Errorf("%d lines became %d", had, has)
				}
			}
			installed := n.files()

			res, err = i.Install(t.Context())
			if err != nil || !res.Ready || res.Restarted || len(res.Changed) > 0 {
				t.Errorf("second install: %+v, %v", res, err)
			}
			same(t, installed, n.files())

			if _, err := i.Uninstall(t.Context(), false); err != nil || n.restarts != 2 {
				t.Errorf("uninstall: %v, %d restarts", err, n.restarts)
			}
			if n.cleaned == 0 {
				t.Error("what krunctl keeps was not removed")
			}
			same(t, before, n.files())
		})
	}
}

func same(t *testing.T, want, got map[string]string) {
	t.Helper()
	for p, w := range want {
		if g, ok := got[p]; !ok || g != w {
			t.Errorf("%s: was %q, is %q (there: %v)", p, w, g, ok)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s: new", p)
		}
	}
}

func TestNodeThatCannotRunPodsKeepsItsContainerd(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.notReady = true
	i := n.installer(t, Layout{})
	res, err := i.Install(t.Context())
	if err != nil || res.Ready || res.Reason != "kvm: no /dev/kvm; load kvm" {
		t.Fatalf("%+v, %v", res, err)
	}
	if n.restarts != 0 || n.read("/etc/containerd/config.toml") != v3Config || i.Host.exists("/etc/containerd/conf.d") {
		t.Errorf("containerd was touched: %d restarts, %v", n.restarts, n.files())
	}
	if i.Host.exists("/opt/krunpod/current") {
		t.Error("the version became the current one")
	}
}

func TestWhatIsNotUnderstoodIsRefusedAndLeftAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		config, want string
		tooOld       bool
	}{
		"version 1":     {config: "[plugins.cri]\n", want: "version 1"},
		"version 9":     {config: "version = 9\n", want: "version 9"},
		"no TOML":       {config: "version = = 3\n", want: "not understood"},
		"not a list":    {config: "version = 3\nimports = 5\n", want: "Imports"},
		"before 2.0":    {config: kindConfig, want: "more of containerd's configuration", tooOld: true},
		"its own krun":  {config: "version = 3\nimports = [\"/etc/x.toml\"]\n", want: "a runtime krun already"},
		"dotted import": {config: "imports.x = 1\nversion = 3\n", want: "Imports"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, map[string]string{"/etc/containerd/config.toml": tc.config,
				"/etc/x.toml": "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.krun]\nsandboxer = \"podsandbox\"\n"})
			n.tooOld = tc.tooOld
			i := n.installer(t, Layout{})
			n.listen(t, i)
			res, err := i.Install(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%+v, %v", res, err)
			}
			if n.restarts != 0 || n.read("/etc/containerd/config.toml") != tc.config || i.Host.exists("/etc/containerd/conf.d") {
				t.Errorf("%d restarts, left: %v", n.restarts, sortedKeys(n.files()))
			}
		})
	}
}

func sortedKeys(m map[string]string) []string {
	var k []string
	for p := range m {
		k = append(k, p)
	}
	slices.Sort(k)
	return k
}

func TestContainerdThatDoesNotComeUpGetsItsConfigurationBack(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.failRestart = 1
	i := n.installer(t, Layout{})
	n.listen(t, i)
	if _, err := i.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "containerd.service failed") {
		t.Fatal(err)
	}
	if n.restarts != 2 || n.read("/etc/containerd/config.toml") != v3Config || i.Host.exists("/etc/containerd/conf.d") {
		t.Errorf("%d restarts, %s", n.restarts, n.read("/etc/containerd/config.toml"))
	}
	if res, err := i.Install(t.Context()); err != nil || !res.Ready {
		t.Errorf("next try: %+v, %v", res, err)
	}
}

func TestInstallAfterACrashAtAnyWriteEndsWellAndUninstalls(t *testing.T) {
	crash := errors.New("crash")
	for step := 1; ; step++ {
		n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
		i := n.installer(t, Layout{})
		n.listen(t, i)
		calls, crashed := 0, false
		i.Host.Run = func(ctx context.Context, argv ...string) ([]byte, error) {
			if calls++; calls == step {
				crashed = true
				panic(crash)
			}
			return n.run(ctx, argv...)
		}
		func() {
			defer func() {
				if r := recover(); r != nil && r != crash {
					panic(r)
				}
			}()
			if _, err := i.Install(t.Context()); err != nil {
				t.Fatal(err)
			}
		}()
		i.Host.Run = n.run
		if res, err := i.Install(t.Context()); err != nil || !res.Ready || n.restarts == 0 {
			t.Fatalf("after a crash at program %d: %+v, %v, %d restarts", step, res, err, n.restarts)
		}
		if _, err := i.Uninstall(t.Context(), false); err != nil || n.read("/etc/containerd/config.toml") != v3Config {
			t.Fatalf("uninstall after a crash at program %d: %v", step, err)
		}
		if !crashed {
			return
		}
	}
}

func TestUpgradeKeepsTheFilesThatRunningPodsUse(t *testing.T) {
	t.Run("plain", func(t *testing.T) { upgradeKeeps(t, "/opt") })
	// As on a system whose /opt leads elsewhere: the kernel names what runs without the link.
	t.Run("link", func(t *testing.T) { upgradeKeeps(t, "/var/opt") })
}

func upgradeKeeps(t *testing.T, opt string) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	if opt != "/opt" {
		if err := errors.Join(os.MkdirAll(n.root+opt, 0o755), os.Symlink(opt, n.root+"/opt")); err != nil {
			t.Fatal(err)
		}
	}
	i := n.installer(t, Layout{})
	n.listen(t, i)
	first, err := i.Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(i.Proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(i.Proc, "7/exe")
	if err := os.Symlink(opt+"/krunpod/versions/"+first.Version+"/bin/containerd-shim-krun-v2", exe); err != nil {
		t.Fatal(err)
	}
	i.Payload = payload(t, "2")
	second, err := i.Install(t.Context())
	if err != nil || second.Restarted || second.Version == first.Version {
		t.Fatalf("%+v, %v", second, err)
	}
	if got := n.read(opt + "/krunpod/bin/krunctl"); got != "2" {
		t.Errorf("current is %q", got)
	}
	if got := n.read(opt + "/krunpod/versions/" + first.Version + "/bin/krunctl"); got != "1" {
		t.Errorf("the running version has %q", got)
	}
	os.Remove(exe)
	if _, err := i.Install(t.Context()); err != nil || i.Host.exists("/opt/krunpod/versions/"+first.Version) {
		t.Errorf("the version that nobody uses stays: %v", err)
	}
}

func TestUninstallReportsRunningPodsFirst(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.pods = `[{"id":"abc","alive":true,"status":"running"},{"id":"new","alive":false,"status":"starting"},{"id":"done","status":"stopped"},{"id":"lost","status":"dead"}]`
	before := n.files()
	if _, err := i.Uninstall(t.Context(), false); !errors.Is(err, ErrPodsRun) || !strings.HasSuffix(err.Error(), ": abc, new") {
		t.Fatal(err)
	}
	same(t, before, n.files())
	if _, err := i.Uninstall(t.Context(), true); err != nil || i.Host.exists("/opt/krunpod") {
		t.Errorf("forced: %v", err)
	}
}

func TestPodsThatHaveEndedDoNotHoldUpTheUninstallation(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.pods = `[{"id":"done","status":"stopped"},{"id":"lost","status":"dead"}]`
	if _, err := i.Uninstall(t.Context(), false); err != nil || i.Host.exists("/opt/krunpod") {
		t.Errorf("they do: %v", err)
	}
}

func TestCheckThatRunsOutOfTimeChangesNothing(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	first, err := i.Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.slow = true
	i.Payload = payload(t, "2")
	if _, err := i.Install(t.Context()); !errors.Is(err, ErrUndecided) || !strings.Contains(err.Error(), "within 1m0s") {
		t.Fatal(err)
	}
	if got := n.read("/opt/krunpod/bin/krunctl"); got != "1" || n.restarts != 1 {
		t.Errorf("the current version is not %s any more, or containerd was restarted: %q, %d restarts", first.Version, got, n.restarts)
	}
}

func TestUninstallKeepsWhatAnAdministratorChangedSince(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write("/etc/containerd/config.toml", n.read("/etc/containerd/config.toml")+"# mine\n")
	if _, err := i.Uninstall(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if got := n.read("/etc/containerd/config.toml"); got != v3Config+"# mine\n" {
		t.Errorf("left: %s", got)
	}
}

func TestInstallationByHandIsRefused(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config, "/opt/krunpod/bin/krunctl": "by hand"})
	if _, err := n.installer(t, Layout{}).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Error(err)
	}
	if n.read("/opt/krunpod/bin/krunctl") != "by hand" {
		t.Error("it was overwritten")
	}
}

// The programs find the rest of their installation by themselves.
func TestAnotherPrefixIsOnlyInTheDropIn(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	i.Prefix = "/srv/some/where/krun"
	n.listen(t, i)
	before := n.files()
	res, err := i.Install(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := n.read("/etc/containerd/conf.d/10-krunpod.toml"); !strings.Contains(got, `runtime_path = "/srv/some/where/krun/bin/containerd-shim-krun-v2"`) || i.Host.exists("/etc/krunpod") {
		t.Error(got)
	}
	version := i.version(res.Version)
	if want := []string{version + "/bin/krunctl", "check", "--files", version, "--output", "json"}; !slices.Equal(n.checked, want) {
		t.Errorf("checked with %q, want %q", n.checked, want)
	}
	if _, err := i.Uninstall(t.Context(), false); err != nil {
		t.Error(err)
	}
	same(t, before, n.files())
}

// containerd has one drop-in of an installer's.
func TestAnInstallationUnderAnotherPrefixIsNotTakenOver(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	first := n.installer(t, Layout{})
	n.listen(t, first)
	before := n.files()
	if _, err := first.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	installed := n.files()
	second := *first
	second.Prefix = "/srv/krunpod"
	if _, err := second.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "is of the installation under /opt/krunpod: uninstall that before") {
		t.Fatal(err)
	}
	if res, err := second.Uninstall(t.Context(), false); err != nil || res.Other != "/opt/krunpod" || res.Restarted {
		t.Errorf("%+v, %v", res, err)
	}
	same(t, installed, n.files())
	if _, err := first.Uninstall(t.Context(), false); err != nil {
		t.Error(err)
	}
	same(t, before, n.files())
}

func TestADropInOfSomebodyElseIsLeftAlone(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config, "/etc/containerd/conf.d/10-krunpod.toml": "version = 3\n"})
	before := n.files()
	if _, err := n.installer(t, Layout{}).Install(t.Context()); err == nil || !strings.Contains(err.Error(), "not the installer's") {
		t.Error(err)
	}
	same(t, before, n.files())
}

// Whoever removes the drop-in, or puts an old configuration back, must not keep containerd from starting.
func TestImportOfADropInThatIsGoneIsNoError(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.root, i.dropInPath())); err != nil {
		t.Fatal(err)
	}
	if _, err := i.dump(t.Context(), i.Layout.Config); err != nil {
		t.Error(err)
	}
}

// startedAs gives what listens, which is the test itself, a command line.
func startedAs(t *testing.T, i *Installer, cmdline string) {
	t.Helper()
	self := filepath.Join(i.Proc, strconv.Itoa(os.Getpid()))
	if err := errors.Join(os.MkdirAll(self, 0o755), os.WriteFile(filepath.Join(self, "cmdline"), []byte(cmdline), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestContainerdThatReadsAnotherFileIsLeftAlone(t *testing.T) {
	for _, tc := range []struct{ cmdline, want string }{
		{"/usr/bin/containerd", ""},
		{"/usr/bin/containerd\x00-c\x00/etc/containerd/config.toml", ""},
		{"/usr/bin/containerd\x00--log-level\x00info\x00--config\x00/etc/containerd/config-kops.toml", "reads /etc/containerd/config-kops.toml, not /etc/containerd/config.toml"},
		{"containerd\x00--config=/etc/other.toml\x00", "reads /etc/other.toml"},
		{"containerd\x00--config", ""},
		{"python3\x00--config=/etc/other.toml", ""},
	} {
		n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
		i := n.installer(t, Layout{})
		n.listen(t, i)
		startedAs(t, i, tc.cmdline)
		_, err := i.Install(t.Context())
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || n.restarts != 0 || i.Host.exists("/etc/containerd/conf.d")) {
			t.Errorf("%q: %v, %d restarts", tc.cmdline, err, n.restarts)
		}
	}
}

func TestConfigurationThatWasNamedMayBeATemplate(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/template.toml": v3Config})
	i := n.installer(t, Layout{Config: "/etc/template.toml"})
	n.listen(t, i)
	startedAs(t, i, "containerd\x00-c\x00/run/made.toml")
	if res, err := i.Install(t.Context()); err != nil || !res.Ready {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestContainerdThatDoesNotAnswerIsLeftAlone(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	if _, err := i.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "set containerd.socket") || n.restarts != 0 || i.Host.exists("/etc/containerd/conf.d") {
		t.Errorf("%v, %d restarts", err, n.restarts)
	}
}

func TestUninstallTakesWhatACrashLeft(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	i := n.installer(t, Layout{})
	n.listen(t, i)
	before := n.files()
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{trial(i.Layout.Config), "/etc/containerd/.config.toml.krunpod-17", "/etc/containerd/conf.d/.10-krunpod.toml.krunpod-4",
		"/opt/krunpod/.install.json.krunpod-9", "/opt/krunpod/.current.krunpod-new", "/opt/krunpod/versions/x.new/bin/krunctl"} {
		n.write(f, "half")
	}
	if _, err := i.Uninstall(t.Context(), false); err != nil {
		t.Error(err)
	}
	same(t, before, n.files())
}

func TestNodeThatCannotRunPodsIsLeftWithNothing(t *testing.T) {
	n := newNode(t, map[string]string{"/etc/containerd/config.toml": v3Config})
	n.notReady = true
	i := n.installer(t, Layout{})
	before := n.files()
	if _, err := i.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Uninstall(t.Context(), false); err != nil || n.cleaned == 0 || n.restarts > 0 {
		t.Errorf("%v, krunctl cleaned %d times, %d restarts", err, n.cleaned, n.restarts)
	}
	same(t, before, n.files())
}

func TestUnitThatRunsIsRestartedNotTheFirstOneThatIsThere(t *testing.T) {
	files := map[string]string{"/var/lib/rancher/rke2/agent/etc/containerd/config.toml": "version = 3\n"}
	for _, f := range []string{"/usr/local/lib/systemd/system/rke2-agent.service", "/usr/local/lib/systemd/system/rke2-server.service"} {
		files[f] = ""
	}
	for _, active := range []string{"rke2-server", "rke2-agent"} {
		n := newNode(t, files)
		n.active = active
		if got := n.installer(t, Layout{}).Layout.Restart; !slices.Equal(got, []string{"systemctl", "restart", active}) {
			t.Errorf("%s runs: %q", active, got)
		}
	}
}

func TestLinksOfTheHostStayInItsTree(t *testing.T) {
	n := newNode(t, map[string]string{"/disk/containerd/config.toml": v3Config})
	if err := os.MkdirAll(filepath.Join(n.root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/disk/containerd", filepath.Join(n.root, "etc/containerd")); err != nil {
		t.Fatal(err)
	}
	h := Host{Root: n.root}
	if err := h.write("/etc/containerd/conf.d/x", []byte("x")); err != nil || n.read("/disk/containerd/conf.d/x") != "x" {
		t.Error(err)
	}
}
