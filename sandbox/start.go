package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/netbridge"
	"krun.dev/krunpod/vnet/gateway"
)

// Start makes a sandbox: when it returns, the guest runs, its network is configured and its agent answers. On an
// error, or when ctx ends first, nothing is left behind.
func Start(ctx context.Context, cfg *config.Config, spec Spec, tl *Timeline) (_ *Sandbox, retErr error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	path := Dir(cfg.State, spec.Namespace, spec.ID)
	s, err := newSandbox(cfg, spec, dir(path), tl)
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			count(cfg.State, func(l *Ledger) { l.Ends[EndNotStarted]++ })
			retErr = errors.Join(retErr, s.Delete(context.WithoutCancel(ctx)))
		}
	}()
	s.warnOfJail()
	if err := s.prepareShare(); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.joinNetwork(ctx); err != nil {
		return nil, err
	}
	if err := s.bootInTurn(ctx); err != nil {
		return nil, err
	}
	s.forwardLoopback()
	if err := s.countBoot(); err != nil {
		return nil, err
	}
	return s, nil
}

// bootInTurn boots the guest until its agent answers.
func (s *Sandbox) bootInTurn(ctx context.Context) error {
	turn, err := takeTurn(ctx, s.cfg.State, s.cfg.VM.Boots())
	if err != nil {
		return err
	}
	defer turn.Close()
	s.timeline.Mark("turn to boot")
	if err := s.boot(); err != nil {
		return err
	}
	s.listenLoopback(ctx)
	if err := s.meetAgent(ctx); err != nil {
		return s.explain(err)
	}
	if s.vnet != nil {
		return s.vnet.waitCarries(ctx)
	}
	return nil
}

// newSandbox makes the sandbox's directory and its first state. An old sandbox of the same id that was never removed
// is removed first, unless its runner is alive.
func newSandbox(cfg *config.Config, spec Spec, d dir, tl *Timeline) (*Sandbox, error) {
	if old, err := LoadState(string(d)); err == nil {
		if old.Runner != nil && old.Runner.Alive() {
			return nil, fmt.Errorf("sandbox %s is already running as process %d", spec.ID, old.Runner.PID)
		}
		if err := Remove(context.Background(), string(d)); err != nil {
			return nil, fmt.Errorf("remove what an earlier sandbox %s left: %w", spec.ID, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, p := range []string{string(d), d.sockets(), d.jail(), d.vnetRoot()} {
		if err := os.MkdirAll(p, 0o700); err != nil {
			return nil, fmt.Errorf("make the sandbox's directory: %w", err)
		}
	}
	s := &Sandbox{cfg: cfg, spec: spec, dir: d, timeline: tl, state: State{
		ID: spec.ID, Namespace: spec.Namespace, VCPUs: spec.VCPUs, MemoryMiB: spec.MemoryMiB,
		NetNS: spec.NetNS, VNet: spec.VNet, Shim: os.Getpid(), Pod: spec.Pod, JailOff: cfg.Jail.Off,
	}}
	var err error
	if s.state.Cgroup, err = cgroupPath(spec.Cgroup, spec.ID); err != nil {
		return nil, err
	}
	if err := s.state.save(d); err != nil {
		return nil, errors.Join(err, os.RemoveAll(string(d)))
	}
	return s, nil
}

func (s *Sandbox) prepareShare() (err error) {
	s.share, err = newShare(s.dir)
	s.timeline.Mark("share")
	return err
}

// listen opens the sockets that the guest's vsock ports lead to. The path goes through a descriptor of the
// directory: sun_path holds 108 bytes (unix(7)), fewer than a namespace and an id may need.
func (s *Sandbox) listen() error {
	d, err := os.Open(s.dir.sockets())
	if err != nil {
		return fmt.Errorf("open the socket directory: %w", err)
	}
	defer d.Close()
	open := func(name string) (*net.UnixListener, error) {
		addr := &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), Net: "unix"}
		l, err := net.ListenUnix("unix", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s in %s: %w", name, s.dir.sockets(), err)
		}
		l.SetUnlinkOnClose(false) // the descriptor in the path is gone by then; Remove takes the directory
		return l, nil
	}
	if s.control, err = open(api.ControlSocket); err != nil {
		return err
	}
	l, err := open(api.StreamSocket)
	if err != nil {
		return err
	}
	s.streams = serveStreams(l)
	return nil
}

func (s *Sandbox) joinNetwork(ctx context.Context) error {
	if s.OwnNetwork() {
		s.spec.Guest.Interfaces = append(s.spec.Guest.Interfaces, ownInterface(s.spec.VNet.Gateway))
		return nil
	}
	if s.spec.NetNS == "" {
		return nil
	}
	var watch *netbridge.Watch
	if s.spec.VNet != nil {
		watch = &netbridge.Watch{Nameservers: s.spec.VNet.Nameservers}
	}
	bridge, err := netbridge.Join(ctx, s.spec.NetNS, watch)
	if err != nil {
		return err
	}
	s.state.Bridge = bridge
	for _, p := range bridge.Interfaces {
		s.spec.Guest.Interfaces = append(s.spec.Guest.Interfaces, p.Interface)
	}
	s.timeline.Mark("network joined")
	return s.state.save(s.dir)
}

// boot starts the runner in the sandbox's cgroup, and before it the process that carries its frames.
func (s *Sandbox) boot() error {
	cgroup, err := makeCgroup(s.state.Cgroup, s.jail())
	if err != nil {
		return err
	}
	defer cgroup.Close()
	if s.console, err = newConsole(s.dir.console()); err != nil {
		return err
	}
	b := birthplace{netNS: s.spec.NetNS, mounts: s.share, cgroup: cgroup}
	var network *os.File
	if s.OwnNetwork() {
		if b.nic, network, err = nicSockets(); err != nil {
			return err
		}
		defer b.nic.Close()
		defer network.Close()
	}
	if err := s.startVNet(cgroup, network); err != nil {
		return err
	}
	s.runner, err = startRunner(s.cfg.Runner, s.vmConfig(), b, s.console)
	if err != nil {
		return err
	}
	s.state.Runner = &s.runner.Process
	s.timeline.Mark("runner started")
	if s.vnet != nil {
		go s.vnet.follow(s.runner)
	}
	if err := s.share.seal(); err != nil {
		return err
	}
	return s.state.save(s.dir)
}

func (s *Sandbox) jail() krun.Jail {
	return krun.Jail{Root: s.dir.jail(), Off: s.cfg.Jail.Off}
}

// warnOfJail says in containerd's log, which the administrator reads, what the runner says to the end of its own output.
func (s *Sandbox) warnOfJail() {
	for _, l := range s.cfg.Jail.Off {
		log.L.WithField("sandbox", s.spec.ID).Warn(l.Insecure())
	}
}

func (s *Sandbox) vmConfig() *krun.Config {
	c := &krun.Config{
		ID:        s.spec.ID,
		VCPUs:     s.spec.VCPUs,
		MemoryMiB: s.spec.MemoryMiB,
		Agent:     s.cfg.Agent,
		Firmware:  s.cfg.Firmware,
		Share:     s.dir.share(),
		Sockets:   s.dir.sockets(),
		LogLevel:  s.cfg.LogLevel,
		Jail:      s.jail(),
	}
	if k := s.cfg.Kernel; k != nil {
		c.Kernel = &krun.Kernel{Path: k.Path, Format: k.Format, Cmdline: k.Cmdline}
	}
	if s.OwnNetwork() {
		c.NICs = []krun.NIC{{Socket: true, MAC: net.HardwareAddr(gateway.GuestMAC[:]).String()}}
	}
	if s.state.Bridge != nil {
		for _, p := range s.state.Bridge.Interfaces {
			c.NICs = append(c.NICs, krun.NIC{Tap: p.Tap, MAC: net.HardwareAddr(p.Interface.Mac).String()})
		}
	}
	return c
}

// meetAgent waits for the guest to dial, and configures it. The runner's end or the boot timeout ends the wait.
func (s *Sandbox) meetAgent(ctx context.Context) error {
	limit := time.Duration(s.cfg.BootTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, BootTimeout(limit))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.control.Close() })
	defer stop()
	go func() {
		select {
		case <-s.runner.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := s.control.Accept()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("wait for the agent: %w", err)
	}
	s.control.Close() // one connection, the first: the guest gets no second
	s.timeline.Mark("agent connected")
	s.client = newClient(conn, func(err error) {
		log.L.WithError(err).WithField("sandbox", s.spec.ID).Error("the microVM is killed")
		_ = s.runner.kill(EndKilled)
	})
	s.Task = taskAPI.NewTTRPCTaskClient(s.client)
	s.Agent = api.NewAgentClient(s.client)
	s.spec.Guest.UnixNanoseconds = time.Now().UnixNano()
	resp, err := s.Agent.ConfigureSandbox(ctx, s.spec.Guest)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("configure the guest: %w", err)
	}
	s.timeline.Mark("guest configured")
	s.recordBoot(resp)
	return s.timeline.save(s.dir)
}

// BootTimeout is the error of a guest that took longer.
type BootTimeout time.Duration

func (b BootTimeout) Error() string {
	return fmt.Sprintf("the guest did not answer within %v", time.Duration(b))
}

// What a guest can add to its timeline: the number of stages, the bytes of a name, and microseconds.
const (
	maxBootStages = 16
	maxStageName  = 64
	maxBootTime   = 3600 * 1000 * 1000
)

// recordBoot keeps the guest's own stages beside the host's: their clock starts with its kernel.
func (s *Sandbox) recordBoot(resp *api.ConfigureSandboxResponse) {
	s.timeline.setGuest(guestStages(resp.Boot))
	s.kernelRelease = clip(resp.KernelRelease, maxStageName)
}

// guestStages takes of the guest's stages what a timeline can be: a bounded number, in order, within maxBootTime.
func guestStages(boot []*api.BootStage) (stages []Stage) {
	last := uint64(0)
	for _, st := range boot[:min(len(boot), maxBootStages)] {
		if us := st.GetMicroseconds(); us >= last && us <= maxBootTime {
			stages = append(stages, Stage{Name: clip(st.GetName(), maxStageName), At: int64(us)})
			last = us
		}
	}
	return stages
}

// clip makes text of the guest safe to show: printable ASCII, at most n bytes.
func clip(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text[:min(len(text), n)])
	return text
}

// explain says why a start failed with what the runner and the guest said last, so that the pod's event names the cause.
func (s *Sandbox) explain(err error) error {
	select {
	case <-s.runner.done:
		err = fmt.Errorf("the microVM ended before its agent answered (%v)", s.runner.exitErr)
		if cause := s.Cause(); s.runner.end == EndNetwork || s.OOMKilled() {
			err = cause
		}
	default:
	}
	return fmt.Errorf("start sandbox %s: %w", s.spec.ID, s.withLastWords(err))
}

func (s *Sandbox) withLastWords(err error) error {
	said := lastLines(s.runner.stderr.String())
	if guest := lastLines(s.console.last.String()); guest != "" {
		said = strings.TrimSpace(said + "\nguest console: " + guest)
	}
	if said == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, said)
}

// lastLines is the end of an output for an error message: at most five lines, printable.
func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	lines = lines[max(0, len(lines)-5):]
	for i, l := range lines {
		lines[i] = clip(strings.TrimSpace(l), 300)
	}
	return strings.Join(lines, "\n")
}

// ConsolePath is where the console of the sandbox in directory path is kept; the older part is in the same with ".1".
func ConsolePath(path string) string { return filepath.Clean(dir(path).console()) }
