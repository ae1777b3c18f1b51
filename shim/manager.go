package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	shimlib "github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
)

const (
	// Name is the runtime's in containerd.
	Name = "io.containerd.krun.v2"
	// configEnv hands the path of the configuration to the shim that serves, startEnv the time of the start action
	// in nanoseconds since the epoch.
	configEnv = "KRUNPOD_CONFIG"
	startEnv  = "KRUNPOD_STARTED"
	// configFile keeps the path of the configuration in the bundle, for the delete action.
	configFile = "krunpod-config-path"
	// protocolVersion is containerd's: 3 has the sandbox service and needs no shim for a pod's further containers.
	protocolVersion = 3
)

type manager struct{}

// NewManager returns the start, delete and info actions of the shim binary.
func NewManager() shimlib.Shim { return manager{} }

func (manager) Name() string { return Name }

// Start makes sure that a shim serves, in the working directory (the bundle), and returns its address: a new one, or
// that of the pod the container belongs to.
func (manager) Start(ctx context.Context, params *bootapi.BootstrapParams) (_ *bootapi.BootstrapResult, retErr error) {
	started := time.Now()
	configPath, err := configPathOf(params)
	if err != nil {
		return nil, err
	}
	// A configuration that cannot be used fails here, where containerd still shows the error to whoever asked.
	if _, err := config.Load(configPath); err != nil {
		return nil, err
	}
	if err := os.WriteFile(configFile, []byte(configPath), 0o600); err != nil {
		return nil, fmt.Errorf("note the configuration in the bundle: %w", err)
	}
	group, err := groupOf(params.GetInstanceID())
	if err != nil {
		return nil, err
	}
	result := &bootapi.BootstrapResult{Version: protocolVersion, Protocol: "ttrpc"}
	socket, err := newSocket(ctx, params, group)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		result.Address = socket.address
		return result, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		socket.file.Close()
		if retErr != nil {
			retErr = errors.Join(retErr, shimlib.RemoveSocket(socket.address))
		}
	}()
	cmd, err := serveCommand(ctx, params, socket.address, configPath, started)
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{socket.file}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the shim: %w", err)
	}
	if err := shimlib.AdjustOOMScore(cmd.Process.Pid); err != nil {
		return nil, errors.Join(fmt.Errorf("adjust the shim's OOM score: %w", err), cmd.Process.Kill())
	}
	result.Address = socket.address
	return result, cmd.Process.Release()
}

// configPathOf reads ConfigPath of the runtime options in containerd's configuration; empty when there are none.
func configPathOf(params *bootapi.BootstrapParams) (string, error) {
	var o runtimeoptions.Options
	found, err := params.FindExtension(&o)
	if err != nil {
		return "", fmt.Errorf("runtime options in containerd's configuration: %w", err)
	}
	if !found {
		return "", nil
	}
	return o.GetConfigPath(), nil
}

// groupOf is the sandbox that an instance belongs to: containers of a pod share its shim.
func groupOf(id string) (string, error) {
	spec, err := readSpec(".")
	if errors.Is(err, fs.ErrNotExist) {
		return id, nil // a sandbox of the Sandbox API has no spec
	}
	if err != nil {
		return "", err
	}
	if role, sandboxID := cri.RoleOf(spec.Annotations); role == cri.RoleContainer && sandboxID != "" {
		return sandboxID, nil
	}
	return id, nil
}

type socket struct {
	address string
	file    *os.File
}

// newSocket makes the shim's socket, or returns errdefs.ErrAlreadyExists and the address of a shim that serves it.
func newSocket(ctx context.Context, params *bootapi.BootstrapParams, group string) (socket, error) {
	dir := params.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	address, err := shimlib.CreateSocketAddress(ctx, dir, params.GetContainerdGrpcAddress(), group, false)
	if err != nil {
		return socket{}, fmt.Errorf("name the shim's socket: %w", err)
	}
	l, err := shimlib.NewSocket(address)
	if err != nil {
		if !shimlib.SocketEaddrinuse(err) {
			return socket{}, fmt.Errorf("make the shim's socket: %w", err)
		}
		if served(address) {
			return socket{address: address}, errdefs.ErrAlreadyExists
		}
		if err := shimlib.RemoveSocket(address); err != nil {
			return socket{}, fmt.Errorf("remove the socket of a dead shim: %w", err)
		}
		if l, err = shimlib.NewSocket(address); err != nil {
			return socket{}, fmt.Errorf("make the shim's socket: %w", err)
		}
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return socket{}, fmt.Errorf("pass on the shim's socket: %w", err)
	}
	return socket{address: address, file: f}, nil
}

// serveCommand is this binary again, as the process that serves the socket.
func serveCommand(ctx context.Context, params *bootapi.BootstrapParams, address, configPath string,
	started time.Time) (*exec.Cmd, error) {
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the shim's own binary: %w", err)
	}
	args := []string{"-namespace", ns, "-id", params.GetInstanceID(), "-address", params.GetContainerdGrpcAddress()}
	if params.GetLogLevel() <= bootapi.LogLevel_LOG_LEVEL_DEBUG {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), configEnv+"="+configPath, socketEnv+"="+address,
		fmt.Sprintf("%s=%d", startEnv, started.UnixNano()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// Stop is the delete action: containerd calls it when the shim is gone, in the directory above the bundle of id or in
// another bundle beside it. It removes what is left of the sandbox id, if id is one, and of the container's bundle.
func (manager) Stop(ctx context.Context, id string) (shimlib.StopStatus, error) {
	status := shimlib.StopStatus{ExitStatus: exitKilled, ExitedAt: time.Now()}
	if err := sandbox.ValidateID("id", id); err != nil {
		return status, err
	}
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return status, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return status, err
	}
	bundle := filepath.Join(filepath.Dir(cwd), id)
	cfg := config.Default()
	if path, err := os.ReadFile(filepath.Join(bundle, configFile)); err == nil {
		// With a configuration that has become unreadable the default state directory is the best guess left.
		if c, err := config.Load(string(path)); err == nil {
			cfg = *c
		}
	}
	return status, errors.Join(
		sandbox.Remove(ctx, sandbox.Dir(cfg.State, ns, id)),
		mount.UnmountRecursive(filepath.Join(bundle, "rootfs"), 0),
		removeDeadSocket(bundle),
	)
}

// served reports whether a shim listens on a socket. Only a refused connection says that none does (unix(7)):
// shimlib.CanConnect gives up after 100 ms, and on a busy node would have the socket of a pod that lives removed.
func served(address string) bool {
	conn, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// removeDeadSocket removes the socket of the shim that served a bundle, when nobody serves it any more: a shim that was
// killed could not. containerd keeps its address in the bundle.
func removeDeadSocket(bundle string) error {
	data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the shim's socket: %w", err)
	}
	var bootstrap struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(data, &bootstrap); err != nil {
		return fmt.Errorf("find the shim's socket: %w", err)
	}
	if bootstrap.Address == "" || served(bootstrap.Address) {
		return nil
	}
	if err := shimlib.RemoveSocket(bootstrap.Address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of a dead shim: %w", err)
	}
	return nil
}

// Info answers containerd's question for the runtime's features.
func (manager) Info(_ context.Context, options io.Reader) (*types.RuntimeInfo, error) {
	data, err := io.ReadAll(options)
	if err != nil {
		return nil, fmt.Errorf("read runtime options: %w", err)
	}
	var given anypb.Any
	if err := proto.Unmarshal(data, &given); err != nil {
		return nil, fmt.Errorf("read runtime options: %w", err)
	}
	supported := api.Features()
	if typeurl.Is(&given, &runtimeoptions.Options{}) {
		// containerd 2.4 takes the options of every runtime for runc's when a pod has a user namespace
		// (client/task.go, getRuncOptions), and fails.
		supported.Linux.Namespaces = slices.DeleteFunc(supported.Linux.Namespaces, func(n string) bool { return n == "user" })
	}
	features, err := typeurl.MarshalAnyToProto(supported)
	if err != nil {
		return nil, fmt.Errorf("encode the runtime's features: %w", err)
	}
	return &types.RuntimeInfo{
		Name:     Name,
		Version:  &types.RuntimeVersion{Version: Version},
		Features: features,
	}, nil
}

// Version is set by the linker.
var Version = "unknown"
