package testpod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Environment of the programs that use this package.
const (
	// AddressEnv names containerd's socket.
	AddressEnv = "CONTAINERD_ADDRESS"
	// DefaultImage has busybox and its applets.
	DefaultImage = "localhost/krunpod/busybox:1"
)

// Address is containerd's socket as the environment gives it.
func Address() string {
	if a := os.Getenv(AddressEnv); a != "" {
		return a
	}
	return "/run/containerd/containerd.sock"
}

// Client is a connection to containerd's CRI.
type Client struct {
	Runtime runtime.RuntimeServiceClient
	Images  runtime.ImageServiceClient
	conn    *grpc.ClientConn
	// logs is where containers' logs go.
	logs string
}

var serial atomic.Int64

// Dial connects to containerd at a UNIX socket. Logs of containers are kept below dir.
func Dial(address, dir string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", address, err)
	}
	return &Client{
		Runtime: runtime.NewRuntimeServiceClient(conn), Images: runtime.NewImageServiceClient(conn), conn: conn, logs: dir,
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Pod is a sandbox made by Client.
type Pod struct {
	ID     string
	Config *runtime.PodSandboxConfig
	c      *Client
}

// PodConfig is the smallest configuration of a pod, with a name of its own and, as Kubernetes has it, a PID namespace
// for each container.
func (c *Client) PodConfig(name string) *runtime.PodSandboxConfig {
	id := fmt.Sprintf("%s-%d-%d", name, os.Getpid(), serial.Add(1))
	return &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: id, Uid: id, Namespace: "krunpod-test"},
		Hostname:     name,
		LogDirectory: filepath.Join(c.logs, id),
		DnsConfig:    &runtime.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.cluster.local"}},
		Linux: &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}
}

// Run starts a pod with a runtime handler.
func (c *Client) Run(ctx context.Context, handler string, config *runtime.PodSandboxConfig) (*Pod, error) {
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	r, err := c.Runtime.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	return &Pod{ID: r.PodSandboxId, Config: config, c: c}, nil
}

// IP is the address that the CNI plugin gave to the pod.
func (p *Pod) IP(ctx context.Context) (string, error) {
	r, err := p.c.Runtime.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		return "", err
	}
	return r.GetStatus().GetNetwork().GetIp(), nil
}

// Remove stops and removes the pod.
func (p *Pod) Remove(ctx context.Context) error {
	_, err := p.c.Runtime.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("stop pod %s: %w", p.ID, err)
	}
	if _, err := p.c.Runtime.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: p.ID}); err != nil {
		return fmt.Errorf("remove pod %s: %w", p.ID, err)
	}
	return os.RemoveAll(p.Config.LogDirectory)
}

// Container is a container of a Pod.
type Container struct {
	ID  string
	pod *Pod
	log string
}

// ContainerConfig runs a shell command in the default image.
func ContainerConfig(name, script string) *runtime.ContainerConfig {
	return &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: name},
		Image:    &runtime.ImageSpec{Image: DefaultImage},
		Command:  []string{"/bin/sh", "-c", script},
		LogPath:  name + ".log",
		Linux: &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		}},
	}
}

// Create makes a container without starting it.
func (p *Pod) Create(ctx context.Context, config *runtime.ContainerConfig) (*Container, error) {
	r, err := p.c.Runtime.CreateContainer(ctx, &runtime.CreateContainerRequest{
		PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config,
	})
	if err != nil {
		return nil, err
	}
	return &Container{ID: r.ContainerId, pod: p, log: filepath.Join(p.Config.LogDirectory, config.LogPath)}, nil
}

// Start runs a container.
func (k *Container) Start(ctx context.Context) error {
	_, err := k.pod.c.Runtime.StartContainer(ctx, &runtime.StartContainerRequest{ContainerId: k.ID})
	return err
}

// Run creates and starts a container.
func (p *Pod) Run(ctx context.Context, config *runtime.ContainerConfig) (*Container, error) {
	k, err := p.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	return k, k.Start(ctx)
}

// execTimeout bounds an exec in seconds; a context usually ends it sooner.
const execTimeout = 600

// Exec runs a shell command in the container and returns what it printed.
func (k *Container) Exec(ctx context.Context, script string) (stdout, stderr string, exit int32, err error) {
	r, err := k.pod.c.Runtime.ExecSync(ctx, &runtime.ExecSyncRequest{
		ContainerId: k.ID, Cmd: []string{"/bin/sh", "-c", script}, Timeout: execTimeout,
	})
	if err != nil {
		return "", "", 0, err
	}
	return string(r.Stdout), string(r.Stderr), r.ExitCode, nil
}

// Status is the container's in CRI.
func (k *Container) Status(ctx context.Context) (*runtime.ContainerStatus, error) {
	r, err := k.pod.c.Runtime.ContainerStatus(ctx, &runtime.ContainerStatusRequest{ContainerId: k.ID})
	if err != nil {
		return nil, err
	}
	return r.Status, nil
}

// Stop ends the container; timeout seconds lie between TERM and KILL.
func (k *Container) Stop(ctx context.Context, timeout int64) error {
	_, err := k.pod.c.Runtime.StopContainer(ctx, &runtime.StopContainerRequest{ContainerId: k.ID, Timeout: timeout})
	return err
}

// Remove removes the container.
func (k *Container) Remove(ctx context.Context) error {
	_, err := k.pod.c.Runtime.RemoveContainer(ctx, &runtime.RemoveContainerRequest{ContainerId: k.ID})
	return err
}

// pollInterval is how often Poll looks: CRI has no call that waits.
const pollInterval = 50 * time.Millisecond

// Poll calls f until it reports true or fails, or ctx ends.
func Poll(ctx context.Context, what string, f func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// WaitExit waits until the container has ended and returns its status.
func (k *Container) WaitExit(ctx context.Context) (*runtime.ContainerStatus, error) {
	var st *runtime.ContainerStatus
	err := Poll(ctx, "container "+k.ID+" did not end", func() (_ bool, err error) {
		st, err = k.Status(ctx)
		return st.GetState() == runtime.ContainerState_CONTAINER_EXITED, err
	})
	return st, err
}

// Log is the container's log so far, without CRI's stamps, each stream apart.
func (k *Container) Log() (stdout, stderr string, err error) {
	data, err := os.ReadFile(k.log)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	return ParseLog(data)
}

// LogPath is the file that containerd writes the log to.
func (k *Container) LogPath() string { return k.log }

// WaitLog waits until the container's standard output contains text, and returns it.
func (k *Container) WaitLog(ctx context.Context, text string) (string, error) {
	var out string
	err := Poll(ctx, fmt.Sprintf("the log of container %s does not say %q", k.ID, text), func() (_ bool, err error) {
		out, _, err = k.Log()
		return contains(out, text), err
	})
	return out, err
}
