//go:build cgo && linux

package ctr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/reap"
	"krun.dev/krunpod/agent/stdio"
)

// process is a child that libcontainer started and that we wait for.
type process struct {
	lib    *libcontainer.Process
	pid    int
	reaper *reap.Reaper
}

func (p *process) Pid() int { return p.pid }

func (p *process) Signal(sig unix.Signal) error { return p.lib.Signal(sig) }

func (p *process) Wait() uint32 {
	state, err := p.lib.Wait()
	p.reaper.Release(p.pid)
	if state == nil {
		logrus.Errorf("wait for process %d: %v", p.pid, err)
		return 255
	}
	return uint32(utils.ExitStatus(unix.WaitStatus(state.Sys().(syscall.WaitStatus))))
}

// start starts spec in c with io. It is the first process when init is set.
func (e *Engine) start(c *libcontainer.Container, spec *specs.Process, io *stdio.Set, init bool) (*process, error) {
	if !slices.ContainsFunc(spec.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == e.memlock.Type }) {
		spec.Rlimits = append(spec.Rlimits, e.memlock)
	}
	lib, err := libProcess(spec)
	if err != nil {
		return nil, err
	}
	lib.Init = init
	var console *os.File // our end of the socket that brings the terminal
	if io.Terminal() {
		var theirs *os.File
		if console, theirs, err = utils.NewSockPair("console"); err != nil {
			return nil, fmt.Errorf("console socket: %w", err)
		}
		defer console.Close()
		defer theirs.Close()
		lib.ConsoleSocket = theirs
	} else {
		stdin, stdout, stderr := io.Files()
		lib.Stdin, lib.Stdout, lib.Stderr = stdin, stdout, stderr
	}
	pid, err := e.reaper.Spawn(func() (int, error) {
		if err := c.Start(lib); err != nil {
			return 0, err
		}
		return lib.Pid()
	})
	if err != nil {
		return nil, err
	}
	p := &process{lib: lib, pid: pid, reaper: e.reaper}
	var master *os.File
	if console != nil {
		if master, err = receiveMaster(console); err != nil {
			_ = p.Signal(unix.SIGKILL)
			p.Wait()
			return nil, err
		}
	}
	io.Start(master)
	return p, nil
}

func libProcess(p *specs.Process) (*libcontainer.Process, error) {
	if len(p.Args) == 0 {
		return nil, errors.New("args must not be empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return nil, fmt.Errorf("working directory %q must be an absolute path", p.Cwd)
	}
	lp := &libcontainer.Process{
		Args: p.Args, Env: p.Env, Cwd: p.Cwd,
		UID: int(p.User.UID), GID: int(p.User.GID),
		NoNewPrivileges: &p.NoNewPrivileges, Scheduler: p.Scheduler, IOPriority: p.IOPriority,
		LogLevel: strconv.Itoa(int(logrus.GetLevel())),
	}
	for _, g := range p.User.AdditionalGids {
		lp.AdditionalGroups = append(lp.AdditionalGroups, int(g))
	}
	if s := p.ConsoleSize; s != nil {
		lp.ConsoleWidth, lp.ConsoleHeight = uint16(s.Width), uint16(s.Height)
	}
	if c := p.Capabilities; c != nil {
		lp.Capabilities = &configs.Capabilities{Bounding: c.Bounding, Effective: c.Effective,
			Inheritable: c.Inheritable, Permitted: c.Permitted, Ambient: c.Ambient}
	}
	for _, r := range p.Rlimits {
		kind, ok := rlimits[r.Type]
		if !ok {
			return nil, fmt.Errorf("unknown resource limit %q", r.Type)
		}
		lp.Rlimits = append(lp.Rlimits, configs.Rlimit{Type: kind, Hard: r.Hard, Soft: r.Soft})
	}
	return lp, nil
}

// rlimits are the names that the OCI runtime specification takes from getrlimit(2).
var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// receiveMaster takes the terminal's master end from the socket: libcontainer sent it before its Start returned.
func receiveMaster(socket *os.File) (*os.File, error) {
	name := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("receive console: %d control messages (%v)", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive console: %d descriptors (%v)", len(fds), err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // before NewFile: so it is read by way of the poller
		_ = unix.Close(fds[0])
		return nil, fmt.Errorf("receive console: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
