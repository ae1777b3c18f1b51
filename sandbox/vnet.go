package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/vnet"
	"krun.dev/krunpod/vnet/gateway"
)

// VNet is what frames pass on their way between the CNI's interfaces and the guest's.
type VNet struct {
	// Policy holds the pod's annotations that say what may pass (policy.Parse); without any, everything may that the guest
	// does not forge.
	Policy map[string]string `json:"policy,omitempty"`
	// Nameservers are asked for the names in Policy; none if there are none.
	Nameservers []netip.AddrPort `json:"nameservers,omitempty"`
	// Gateway is the network of a guest without CNI's; nil joins CNI's interfaces.
	Gateway *gateway.Config `json:"gateway,omitempty"`
}

const (
	// vnetPatience bounds the time to the first report, and that to the end after standard input is closed.
	vnetPatience = 30 * time.Second
	vnetGoodbye  = 3 * time.Second
)

// vnetProcess carries a pod's frames (cmd/krun-vnet). Its parser reads what the guest sends, so what it says is looked at like a
// guest's words.
type vnetProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer
	last  tail
	// carries is closed with the first report, done when the process has ended.
	carries, done chan struct{}
	// err is valid once done is closed.
	err   error
	close func()
}

// startVNet starts the process, if the pod has a vnet and interfaces for it, in the pod's network namespace and in cgroup. With a
// gateway it is the host's namespace, and nic, which is otherwise nil, leads to the guest.
func (s *Sandbox) startVNet(cgroup, nic *os.File) error {
	if s.spec.VNet == nil || (nic == nil && (s.state.Bridge == nil || len(s.state.Bridge.Interfaces) == 0)) {
		return nil
	}
	input, err := s.vnetConfig()
	if err != nil {
		return err
	}
	v := &vnetProcess{cmd: command(s.cfg.VNet, cgroup), carries: make(chan struct{}), done: make(chan struct{})}
	stdin, config, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the vnet: %w", err)
	}
	defer stdin.Close()
	v.cmd.Stdin, v.stdin = stdin, config
	v.cmd.Stdout = &lines{each: v.reports(s.dir.traffic()), failed: v.fail}
	v.cmd.Stderr = &lines{each: v.words(s.spec.ID), failed: v.fail}
	if nic != nil {
		v.cmd.ExtraFiles = []*os.File{nic} // the first is vnet.GuestFile
	}
	err = onThread(func() error {
		if nic == nil {
			if err := enterNetNS(s.spec.NetNS); err != nil {
				return err
			}
		}
		s.preferVNet()
		return v.cmd.Start()
	})
	if err != nil {
		config.Close()
		return fmt.Errorf("start the vnet %s: %w", s.cfg.VNet, err)
	}
	v.close = sync.OnceFunc(v.end)
	s.vnet = v
	go func() {
		defer close(v.done)
		v.err = v.cmd.Wait()
	}()
	if err := setOOMScore(v.cmd.Process.Pid); err != nil {
		return err
	}
	// A process that ends before it has read all of it says why, to waitCarries.
	if err := config.SetWriteDeadline(time.Now().Add(vnetPatience)); err != nil {
		return fmt.Errorf("configure the vnet: %w", err)
	}
	if _, err := config.Write(append(input, '\n')); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("configure the vnet: %w", err)
	}
	return nil
}

// vnetNice is its nice value (sched(7)): the VM's threads wait until it has sent what there was to read, instead of taking its processor at
// each frame.
const vnetNice = -10

// preferVNet gives this thread, and what it starts, vnetNice among the processes of the sandbox's cgroup. Without the controller cpu it would
// count among more than those (sched(7), "The nice value and group scheduling"). All that depends on it is speed, so a host where it
// cannot be is left as it is.
func (s *Sandbox) preferVNet() {
	err := enableController(s.state.Cgroup, "cpu")
	if err == nil {
		err = unix.Setpriority(unix.PRIO_PROCESS, 0, vnetNice)
	}
	if err != nil {
		log.L.WithError(err).Debug("the vnet has no priority")
	}
}

// vnetConfig is the configuration as the process reads it.
func (s *Sandbox) vnetConfig() ([]byte, error) {
	c := &vnet.Config{Policy: s.spec.VNet.Policy, Nameservers: s.spec.VNet.Nameservers, Gateway: s.spec.VNet.Gateway, Root: s.dir.vnetRoot()}
	if c.Gateway != nil {
		return json.Marshal(c)
	}
	for _, p := range s.state.Bridge.Interfaces {
		l := vnet.Link{Guest: p.Tap, Network: p.Interface.Name, MAC: net.HardwareAddr(p.Interface.Mac).String()}
		for _, text := range p.Interface.Addresses {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("address of interface %s: %w", l.Network, err)
			}
			l.Addresses = append(l.Addresses, prefix.Addr())
		}
		c.Links = append(c.Links, l)
	}
	return json.Marshal(c)
}

// The guest's own network, as the guest is told of it (rtnetlink(7)).
const (
	guestNIC   = "eth0"
	ipv4Family = 4
	scopeLink  = 253
)

// ownInterface is the guest's at a gateway.
func ownInterface(c *gateway.Config) *api.Interface {
	guest := c.Guest()
	return &api.Interface{
		Name: guestNIC, Mac: gateway.GuestMAC[:], Mtu: gateway.MTU, Addresses: []string{guest.String()},
		Routes: []*api.Route{
			{Destination: guest.Masked().String(), Source: guest.Addr().String(), Scope: scopeLink, Family: ipv4Family},
			{Gateway: c.Address().Addr().String(), Family: ipv4Family},
		},
	}
}

// nicSockets are the two ends of the guest's NIC at a gateway: the VM's and the vnet's.
func nicSockets() (vm, network *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the guest's NIC: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "nic"), os.NewFile(uintptr(fds[1]), "nic"), nil
}

// waitCarries returns when frames are carried.
func (v *vnetProcess) waitCarries(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, vnetPatience, fmt.Errorf("the vnet does not carry frames after %v", vnetPatience))
	defer cancel()
	select {
	case <-v.carries:
		return nil
	case <-v.done:
		return v.cause()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// follow ends the VM with the process, without which it has no network, and the process with the VM.
func (v *vnetProcess) follow(r *runner) {
	select {
	case <-v.done:
		_ = r.kill(EndNetwork)
	case <-r.done:
		v.close()
	}
}

// cause is why the process ended; valid once done is closed.
func (v *vnetProcess) cause() error {
	err := fmt.Errorf("the process that carries the pod's frames (krun-vnet) ended: %v", v.err)
	if said := lastLines(v.last.String()); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// end asks the process to end, and kills it if it does not.
func (v *vnetProcess) end() {
	v.stdin.Close()
	select {
	case <-v.done:
	case <-time.After(vnetGoodbye):
		_ = v.cmd.Process.Kill()
		<-v.done
	}
}

// reports keeps the last report in the file at path.
func (v *vnetProcess) reports(path string) func(line []byte) error {
	var before []byte
	first := sync.OnceFunc(func() { close(v.carries) })
	return func(line []byte) error {
		r, err := vnet.ReadReport(line)
		if err != nil {
			return err
		}
		first()
		if bytes.Equal(line, before) {
			return nil
		}
		before = bytes.Clone(line)
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		// A report that cannot be written is no reason to end a pod.
		if err := writeFile(path, data); err != nil {
			log.L.WithError(err).Warn("what the vnet has counted cannot be kept")
		}
		return nil
	}
}

// wordsBurst is more lines than the process has names to tell of at once (package dns), so that none of them is lost here.
const wordsBurst = 64

// words logs what the process says, which is what the guest makes it say.
func (v *vnetProcess) words(id string) func(line []byte) error {
	limit := rate.NewLimiter(1, wordsBurst)
	leftOut := 0
	return func(line []byte) error {
		_, _ = v.last.Write(append(line, '\n'))
		if !limit.Allow() {
			leftOut++
			return nil
		}
		entry := log.L.WithField("sandbox", id)
		if leftOut > 0 {
			entry = entry.WithField("linesLeftOut", leftOut)
			leftOut = 0
		}
		var said struct {
			Msg, Name string
			Untold    int
		}
		if err := json.Unmarshal(line, &said); err == nil && said.Msg != "" {
			if said.Untold > 0 {
				entry = entry.WithField("otherNames", said.Untold)
			}
			entry.WithField("name", clip(said.Name, maxStageName*4)).Info(clip(said.Msg, maxStageName*4))
		} else {
			entry.Warn("krun-vnet: " + clip(string(line), tailSize))
		}
		return nil
	}
}

// fail kills a process that says what cannot be.
func (v *vnetProcess) fail(err error) {
	_, _ = fmt.Fprintln(&v.last, "it said what it cannot:", err)
	_ = v.cmd.Process.Kill()
}

// lines calls each with every whole line that is written to it, and failed once, with its error or for a line that is too long.
type lines struct {
	each   func(line []byte) error
	failed func(error)
	rest   []byte
}

var errLongLine = errors.New("a line has no end")

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte{'\n'})
		if !ok {
			break
		}
		if err := l.each(line); err != nil {
			l.failed(err)
			return 0, err
		}
		l.rest = rest
	}
	if len(l.rest) > vnet.MaxReport {
		l.failed(errLongLine)
		return 0, errLongLine
	}
	return len(p), nil
}

// LoadTraffic reads what the vnet of the sandbox in directory path has counted; fs.ErrNotExist without one.
func LoadTraffic(path string) (*vnet.Report, error) {
	data, err := os.ReadFile(dir(path).traffic())
	if err != nil {
		return nil, err
	}
	return vnet.ReadReport(data)
}
