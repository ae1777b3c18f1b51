package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/agent/guest"
	"krun.dev/krunpod/agent/netconf"
	"krun.dev/krunpod/agent/podfile"
	"krun.dev/krunpod/agent/podns"
	"krun.dev/krunpod/agent/sysctl"
)

// sandbox implements the Agent API.
type sandbox struct {
	stages *guest.Stages
	events *events
	names  *namespaces
	off    chan struct{} // closed when the host has asked for the end
	// ready prepares the guest for containers, once.
	ready func() error
	// ending is called before off is closed.
	ending func()

	mu         sync.Mutex
	configured bool
	offOnce    sync.Once

	// volumes is held while a volume changes.
	volumes sync.Mutex
}

func newSandbox(cfg Config, names *namespaces, ready func() error) *sandbox {
	return &sandbox{stages: cfg.Stages, names: names, ready: ready, events: newEvents(), off: make(chan struct{})}
}

// ConfigureSandbox implements the Agent API. Calling it a second time is refused.
func (s *sandbox) ConfigureSandbox(
	_ context.Context, r *api.ConfigureSandboxRequest,
) (*api.ConfigureSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.configured {
		return nil, errgrpc.ToGRPC(fmt.Errorf("sandbox is configured already: %w", errdefs.ErrFailedPrecondition))
	}
	s.stages.Mark("configure")
	if err := s.configure(r); err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("configure sandbox: %w", err))
	}
	s.configured = true
	s.stages.Mark("configured")
	go func() { _ = s.ready() }() // ends by itself; its error is the first container's
	return &api.ConfigureSandboxResponse{Boot: s.stages.List(), KernelRelease: kernelRelease()}, nil
}

func (s *sandbox) configure(r *api.ConfigureSandboxRequest) error {
	if ns := r.GetUnixNanoseconds(); ns > 0 {
		if err := guest.SetClock(time.Unix(0, ns)); err != nil {
			return err
		}
	}
	if r.GetUserNamespace() != nil {
		if err := s.enterUserNamespace(r); err != nil {
			return err
		}
	}
	if err := s.names.Inside(func() error { return configureNamespaces(r) }); err != nil {
		return err
	}
	if err := writePodFiles(r); err != nil {
		return err
	}
	return guest.MountShm()
}

// enterUserNamespace makes the pod's namespaces and moves its interfaces there.
func (s *sandbox) enterUserNamespace(r *api.ConfigureSandboxRequest) error {
	if err := s.names.makeUser(r.GetUserNamespace()); err != nil {
		return err
	}
	net, err := s.names.userHolder().Open(podns.Net)
	if err != nil {
		return err
	}
	defer net.Close()
	return netconf.Move(r.GetInterfaces(), net)
}

// configureNamespaces sets up what belongs to the network, IPC and UTS namespaces of this thread.
func configureNamespaces(r *api.ConfigureSandboxRequest) error {
	if err := setHostname(r.GetHostname()); err != nil {
		return err
	}
	if err := netconf.Loopback(); err != nil {
		return err
	}
	// Interfaces before parameters: net.ipv4.conf.eth0.… needs eth0 to be there.
	if err := netconf.Configure(r.GetInterfaces()); err != nil {
		return err
	}
	return sysctl.Apply(sysctl.Root, r.GetSysctls())
}

func setHostname(name string) error {
	if name == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname %q: %w", name, err)
	}
	return nil
}

// writePodFiles writes what PodFiles names, except for the directory /dev/shm.
func writePodFiles(r *api.ConfigureSandboxRequest) error {
	resolv, err := podfile.ResolvConf(r.GetDns())
	if err != nil {
		return err
	}
	hosts, err := podfile.Hosts(r.GetHostname(), addresses(r.GetInterfaces()))
	if err != nil {
		return err
	}
	hostname := ""
	if r.GetHostname() != "" {
		if hostname, err = podfile.Hostname(r.GetHostname()); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{"/etc/hostname": hostname, "/etc/hosts": hosts, "/etc/resolv.conf": resolv} {
		if err := os.WriteFile(api.PodFiles[path], []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// addresses are those of the first interface that has any, as the kubelet takes the pod's IPs from eth0.
func addresses(ifaces []*api.Interface) []netip.Addr {
	var ips []netip.Addr
	for _, i := range ifaces {
		for _, cidr := range i.GetAddresses() {
			if p, err := netip.ParsePrefix(cidr); err == nil && p.Addr().IsGlobalUnicast() {
				ips = append(ips, p.Addr())
			}
		}
		if len(ips) > 0 {
			break
		}
	}
	return ips
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// SandboxStats implements the Agent API: processor time and I/O of the whole guest, memory of all containers (the
// root cgroup has no memory.current; what the guest takes beyond them shows on the host).
func (s *sandbox) SandboxStats(context.Context, *api.SandboxStatsRequest) (*api.SandboxStatsResponse, error) {
	err := s.ready()
	var resp *api.SandboxStatsResponse
	if err == nil {
		resp, err = sandboxStats()
	}
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("sandbox stats: %w", err))
	}
	return resp, nil
}

func sandboxStats() (*api.SandboxStatsResponse, error) {
	pod, err := cgroup2.Load(guest.ContainersGroup)
	if err != nil {
		return nil, err
	}
	metrics, err := pod.Stat()
	if err != nil {
		return nil, err
	}
	root, err := cgroup2.Load("/")
	if err != nil {
		return nil, err
	}
	whole, err := root.StatFiltered(cgroup2.StatCPU | cgroup2.StatIO)
	if err != nil {
		return nil, err
	}
	metrics.CPU, metrics.Io = whole.CPU, whole.Io
	any, err := typeurl.MarshalAnyToProto(metrics)
	return &api.SandboxStatsResponse{Metrics: any}, err
}

// Events implements the Agent API.
func (s *sandbox) Events(ctx context.Context, _ *api.EventsRequest, to api.Agent_EventsServer) error {
	return s.events.send(ctx, to.Send)
}

// Shutdown implements the Agent API. When it answers, every process is gone and file systems are written back.
func (s *sandbox) Shutdown(context.Context, *api.ShutdownRequest) (*api.ShutdownResponse, error) {
	guest.KillAll()
	s.offOnce.Do(func() {
		s.ending()
		close(s.off)
	})
	return &api.ShutdownResponse{}, nil
}
