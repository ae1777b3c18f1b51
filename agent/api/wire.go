package api

import (
	"fmt"
	"strconv"
	"strings"
)

// vsock ports on the host (CID 2, vsock(7)) that the agent dials. libkrun connects each to the UNIX socket of that
// name in the sandbox's socket directory (krun_add_vsock_port2 with listen=false).
const (
	// ControlPort carries one connection: ttrpc, the agent is the server.
	ControlPort = 1024
	// StreamPort carries one connection for each stdio stream, opened with the stream's id.
	StreamPort = 1025

	ControlSocket = "agent.sock"
	StreamSocket  = "stream.sock"
)

// Places in the guest.
const (
	// ShareTag is the virtio-fs tag of the pod's share.
	ShareTag = "pod"
	// ShareDir is where the agent mounts it. Container ID has its files under ShareDir/ID.
	ShareDir = "/run/krunpod/share"
	// PodDir holds what the agent makes for all containers of the pod, on a tmpfs: PodFiles and the directory shm.
	PodDir = "/run/krunpod/pod"
	// VolumeDir holds the volumes that are in the guest's memory, by their names in the pod.
	VolumeDir = PodDir + "/volumes"
	// SubPathDir holds parts of such volumes.
	SubPathDir = PodDir + "/subpaths"
)

// PodFiles are the files that ConfigureSandbox writes under PodDir, by their path in a container.
var PodFiles = map[string]string{
	"/etc/hostname":    PodDir + "/hostname",
	"/etc/hosts":       PodDir + "/hosts",
	"/etc/resolv.conf": PodDir + "/resolv.conf",
	"/dev/shm":         PodDir + "/shm",
}

// SharedPIDNamespace is the path in an OCI spec that stands for the PID namespace all containers of a pod share.
const SharedPIDNamespace = PodDir + "/pidns"

// ContainerPIDNamespace is the path in an OCI spec that stands for the PID namespace of another container of the pod.
func ContainerPIDNamespace(id string) string { return PodDir + "/pidns." + id }

const streamScheme = "stream://"

// StreamURI names a stdio stream in the Stdin, Stdout and Stderr of a Task request to the agent.
func StreamURI(id uint32) string { return streamScheme + strconv.FormatUint(uint64(id), 10) }

// ParseStreamURI is the inverse of StreamURI.
func ParseStreamURI(uri string) (uint32, error) {
	s, ok := strings.CutPrefix(uri, streamScheme)
	if !ok {
		return 0, fmt.Errorf("stdio %q: not a %sID", uri, streamScheme)
	}
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("stdio %q: %w", uri, err)
	}
	return uint32(id), nil
}
