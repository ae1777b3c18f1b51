package jail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/krun"
)

// The test binary runs itself in new namespaces as a runner would be run; these variables say what it is to do there.
const (
	envConfig = "KRUNPOD_JAIL_CONFIG"
	envAction = "KRUNPOD_JAIL_ACTION"
)

func TestMain(m *testing.M) {
	switch config := os.Getenv(envConfig); config {
	case "":
		os.Exit(m.Run())
	case "descriptors":
		os.Exit(noneInherited())
	default:
		os.Exit(inside(config))
	}
}

// inside enters the jail and does one action in it.
func inside(config string) int {
	c := new(krun.Config)
	if err := json.Unmarshal([]byte(config), c); err != nil {
		fmt.Println(err)
		return 2
	}
	in, err := Enter(c, func(message string) { fmt.Println(message) })
	if err != nil {
		fmt.Println("enter:", err)
		return 2
	}
	if err := actions[os.Getenv(envAction)](in); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// actions run in the jail; each returns an error that says what was not as it should be.
var actions = map[string]func(*krun.Config) error{
	"namespace": seesOnlyItsOwn,
	"threads":   threadsAreConfined,
	"status":    printStatus,
	"share":     shareIsInert,
	"user":      makesFilesAsAUser,
	"filter":    filterRefuses,
	"calls":     fileCallsWork,
	"execve":    func(*krun.Config) error { return syscall.Exec("/proc/self/exe", nil, nil) },
	"unshare":   func(*krun.Config) error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"mount":     func(*krun.Config) error { return unix.Mount("x", "/share", "tmpfs", 0, "") },
	"handle": func(*krun.Config) error {
		_, err := unix.OpenByHandleAt(0, unix.NewFileHandle(1, make([]byte, 8)), 0)
		return err
	},
}

// confined runs action in a jail and returns its output and how it ended.
func confined(t *testing.T, action string, change func(*krun.Config)) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("makes namespaces and mounts: run as root")
	}
	c := testConfig(t)
	if change != nil {
		change(c)
	}
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envConfig + "=" + string(config), envAction + "=" + action}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	err = cmd.Run()
	return out.String(), err
}

// testConfig has a share with a file of the host in it, and all that a runner's jail takes.
func testConfig(t *testing.T) *krun.Config {
	dir := t.TempDir()
	c := &krun.Config{
		ID: "test", VCPUs: 1, MemoryMiB: 64, Agent: "/bin/true",
		Share: filepath.Join(dir, "share"), Sockets: filepath.Join(dir, "sock"),
		Jail: krun.Jail{Root: filepath.Join(dir, "jail")},
	}
	for _, d := range []string{c.Share, c.Sockets, c.Jail.Root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(c.Share, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("needs a /dev/kvm to bind (it is not used): " + err.Error())
	}
	return c
}

func expectSuccess(t *testing.T, action string, change func(*krun.Config)) string {
	t.Helper()
	out, err := confined(t, action, change)
	if err != nil {
		t.Fatalf("%s in the jail: %v\n%s", action, err, out)
	}
	return out
}

func TestJailHoldsOnlyWhatTheVMNeeds(t *testing.T) { expectSuccess(t, "namespace", nil) }

func seesOnlyItsOwn(c *krun.Config) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.Contains(" dev proc root share sock ", " "+e.Name()+" ") {
			return fmt.Errorf("the jail shows /%s", e.Name())
		}
	}
	for _, path := range []string{"/proc/sys", "/proc/kcore", "/proc/sysrq-trigger", "/dev/net/tun", "/dev/null"} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("the jail shows %s", path)
		}
	}
	if err := os.WriteFile("/new", nil, 0o600); err == nil {
		return fmt.Errorf("the jail's root is writable")
	}
	if err := os.WriteFile("/share/../new", nil, 0o600); err == nil {
		return fmt.Errorf(".. of the share is writable")
	}
	if data, err := os.ReadFile(c.Share + "/file"); err != nil || string(data) != "content" {
		return fmt.Errorf("the share's file reads %q, %v", data, err)
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return fmt.Errorf("/dev/kvm: %w", err)
	} else {
		return f.Close()
	}
}

func TestTunOnlyWithNICs(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("needs /dev/net/tun to bind: " + err.Error())
	}
	out, err := confined(t, "namespace", func(c *krun.Config) {
		c.NICs = []krun.NIC{{Tap: "tap0", MAC: "02:00:00:00:00:01"}}
	})
	if err == nil || !strings.Contains(out, "the jail shows /dev/net/tun") {
		t.Fatalf("a VM with a NIC has no /dev/net/tun: %v\n%s", err, out)
	}
}

func TestInheritedDescriptorsAreClosed(t *testing.T) {
	leak, err := os.Open("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envConfig + "=descriptors"}
	cmd.ExtraFiles = []*os.File{leak, leak, leak}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// noneInherited must find a leak, close it, and leave the runtime's poller alone.
func noneInherited() int {
	if n := inherited(); n < 3 {
		fmt.Println("the test gave", n, "descriptors")
		return 1
	}
	if err := CloseInherited(); err != nil {
		fmt.Println(err)
		return 1
	}
	r, w, err := os.Pipe() // uses the poller
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go w.Write([]byte("x"))
	if _, err := r.Read(make([]byte, 1)); err != nil {
		fmt.Println(err)
		return 1
	}
	return inherited()
}

// inherited counts the descriptors that would pass through execve(2).
func inherited() int {
	n := 0
	for fd := 3; fd < 64; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			n++
		}
	}
	return n
}

// wanted are lines of /proc/PID/status in force for every thread. The mask is that of the eight capabilities kept.
var wanted = map[string]string{
	"CapInh": "0000000000000000", "CapPrm": "00000000880000db", "CapEff": "00000000880000db",
	"CapBnd": "00000000880000db", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Groups": "",
}

func TestEveryThreadIsConfined(t *testing.T) { expectSuccess(t, "threads", nil) }

func threadsAreConfined(*krun.Config) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	if len(tasks) < 2 {
		return fmt.Errorf("only %d thread: the test shows nothing", len(tasks))
	}
	for _, task := range tasks {
		status, err := readStatus("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			return err
		}
		for name, value := range wanted {
			if status[name] != value {
				return fmt.Errorf("thread %s: %s is %q, want %q", task.Name(), name, status[name], value)
			}
		}
	}
	return nil
}

func readStatus(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status, nil
}

func TestLayerSwitchedOffIsNotInForceAndWarnedOf(t *testing.T) {
	for layer, field := range map[krun.Layer]string{krun.LayerCapabilities: "CapEff", krun.LayerSeccomp: "Seccomp"} {
		out := expectSuccess(t, "status", func(c *krun.Config) { c.Jail.Off = []krun.Layer{layer} })
		if !strings.Contains(out, "INSECURE: jail layer "+string(layer)) {
			t.Errorf("no warning that %s is off:\n%s", layer, out)
		}
		if strings.Contains(out, field+":\t"+wanted[field]+"\n") {
			t.Errorf("%s is in force though switched off", layer)
		}
	}
	out := expectSuccess(t, "status", func(c *krun.Config) {
		c.Jail.Off = []krun.Layer{krun.LayerNoNewPrivs, krun.LayerSeccomp}
	})
	if !strings.Contains(out, "NoNewPrivs:\t0\n") {
		t.Errorf("no_new_privs is in force though switched off:\n%s", out)
	}
	expectSuccess(t, "status", func(c *krun.Config) { c.Jail.Off = []krun.Layer{krun.LayerMounts} })
}

func printStatus(*krun.Config) error {
	data, err := os.ReadFile("/proc/self/status")
	fmt.Print(string(data))
	return err
}

func TestShareCarriesNoDevicesAndNoSetuid(t *testing.T) { expectSuccess(t, "share", nil) }

func shareIsInert(c *krun.Config) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	options := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 6 {
			options[f[4]] = f[5] + " " + f[6]
		}
	}
	for place, want := range map[string][]string{
		"/":        {"ro", "nosuid", "nodev", "noexec"},
		"/share":   {"rw", "nosuid", "nodev", "noexec"},
		"/sock":    {"ro", "nosuid", "nodev", "noexec"},
		"/proc":    {"ro", "nosuid", "nodev", "noexec"},
		c.Agent:    {"ro", "nosuid", "nodev", "noexec"},
		"/dev/kvm": {"nosuid", "noexec"},
	} {
		for _, o := range want {
			if !strings.Contains(","+strings.ReplaceAll(options[place], " ", ",")+",", ","+o+",") {
				return fmt.Errorf("%s is mounted %q, without %s", place, options[place], o)
			}
		}
	}
	// A guest may make a node for the host's disk, and must not be able to open it.
	node := c.Share + "/disk"
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))); err != nil {
		return fmt.Errorf("mknod as in a container: %w", err)
	}
	if fd, err := unix.Open(node, unix.O_RDONLY, 0); err != unix.EACCES {
		return fmt.Errorf("a device node in the share opens: %d, %v", fd, err)
	}
	return nil
}

func TestAContainersRootWhoIsNot0MakesFilesInOthersDirectories(t *testing.T) {
	expectSuccess(t, "user", nil)
}

// makesFilesAsAUser does what libkrun does for a request of a guest's user.
func makesFilesAsAUser(c *krun.Config) error {
	const user = 655360
	dir := c.Share + "/private"
	if err := errors.Join(unix.Mkdir(dir, 0o700), unix.Chown(dir, 1000, 1000)); err != nil {
		return err
	}
	runtime.LockOSThread() // for good: the user is this thread's alone
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), user, ^uintptr(0)); errno != 0 {
		return fmt.Errorf("setresuid: %w", errno)
	}
	fd, err := unix.Open(dir+"/file", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make a file as user %d: %w", user, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Uid != user {
		return fmt.Errorf("the file belongs to %d: %v", st.Uid, err)
	}
	return nil
}

func TestMountsMadeLaterArriveAndNothingLeaves(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes mounts: run as root")
	}
	c := testConfig(t)
	if err := unix.Mount(c.Share, c.Share, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(c.Share, unix.MNT_DETACH)
	if err := unix.Mount("", c.Share, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	config, _ := json.Marshal(c)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envConfig + "=" + string(config), envAction + "=status"}
	stop, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// The output goes to a pipe that nobody reads yet: the child waits there, in its jail.
	full(t, hold)
	cmd.Stdout = hold
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stop.Close(); cmd.Process.Kill(); cmd.Wait() }()
	jail := "/proc/" + strconv.Itoa(cmd.Process.Pid) + "/root"
	waitFor(t, func() bool { _, err := os.Stat(jail + "/share/file"); return err == nil })
	late := filepath.Join(c.Share, "late")
	if err := os.Mkdir(late, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("late", late, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(late, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(late, "there"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(jail + "/share/late/there"); err != nil {
		t.Errorf("a mount made after the jail closed does not arrive: %v", err)
	}
	if entries, err := os.ReadDir(c.Jail.Root); err != nil || len(entries) != 0 {
		t.Errorf("the host sees the jail's mounts: %v, %v", entries, err)
	}
}

// full fills a pipe, so that the next writer waits.
func full(t *testing.T, w *os.File) {
	t.Helper()
	fd := int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := unix.Write(fd, make([]byte, 4096)); err != nil {
			break
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

func TestRefusesTheHostsNamespaces(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes namespaces: run as root")
	}
	config, _ := json.Marshal(testConfig(t))
	for name, flags := range map[string]uintptr{"none": 0, "PID only": unix.CLONE_NEWPID} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{envConfig + "=" + string(config), envAction + "=status"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "CLONE_NEWNS") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
