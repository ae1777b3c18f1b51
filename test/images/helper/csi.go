package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// kubeletDir is where the kubelet of the node has its sockets and volumes; the driver sees it by the same name.
const kubeletDir = "/var/lib/kubelet"

// storage is a driver of the Container Storage Interface: a volume is a directory of the node, of the handle's name.
type storage struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	name, node, volumes string
}

// serveCSI offers the driver to the kubelet, until it is killed.
func serveCSI(args []string) error {
	if len(args) != 3 {
		return errors.New("csi DRIVER NODE VOLUMES")
	}
	d := &storage{name: args[0], node: args[1], volumes: args[2]}
	driver, err := listenAfresh(d.endpoint())
	if err != nil {
		return err
	}
	registrar, err := listenAfresh(filepath.Join(kubeletDir, "plugins_registry", d.name+"-reg.sock"))
	if err != nil {
		return err
	}
	s, r := grpc.NewServer(), grpc.NewServer()
	csi.RegisterIdentityServer(s, d)
	csi.RegisterNodeServer(s, d)
	registration.RegisterRegistrationServer(r, d)
	go func() { _ = r.Serve(registrar) }()
	return s.Serve(driver)
}

func listenAfresh(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

func (d *storage) endpoint() string { return filepath.Join(kubeletDir, "plugins", d.name, "csi.sock") }

// GetInfo and NotifyRegistrationStatus are the kubelet's registration of plugins.
func (d *storage) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: d.name, Endpoint: d.endpoint(), SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *storage) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		return nil, status.Error(codes.Internal, s.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *storage) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *storage) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

func (d *storage) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

func (d *storage) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *storage) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

// NodePublishVolume binds the volume's directory to where the pod is to have it.
func (d *storage) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if r.VolumeId == "" || strings.ContainsAny(r.VolumeId, "/.") {
		return nil, status.Errorf(codes.InvalidArgument, "volume %q", r.VolumeId)
	}
	source := filepath.Join(d.volumes, r.VolumeId)
	if err := errors.Join(os.MkdirAll(source, 0o755), os.MkdirAll(r.TargetPath, 0o750)); err != nil {
		return nil, err
	}
	if err := unix.Mount(source, r.TargetPath, "", unix.MS_BIND, ""); err != nil {
		return nil, err
	}
	if r.Readonly {
		if err := unix.Mount("", r.TargetPath, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return nil, err
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *storage) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unix.Unmount(r.TargetPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
