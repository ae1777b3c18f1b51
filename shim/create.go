package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	eventsAPI "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/cri"
	"krun.dev/krunpod/sandbox"
)

// Create makes a task: a container of the pod, the pause container that stands for the VM, or a container alone,
// whose sandbox comes and goes with it.
func (s *service) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	resp, err := s.create(ctx, r)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return resp, nil
}

func (s *service) create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	if err := sandbox.ValidateID("container id", r.ID); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if r.Checkpoint != "" {
		return nil, fmt.Errorf("a container in a microVM cannot be restored from a checkpoint: %w", errdefs.ErrNotImplemented)
	}
	spec, err := readSpec(r.Bundle)
	if err != nil {
		return nil, err
	}
	u := uris{stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr, terminal: r.Terminal}
	role, _ := cri.RoleOf(spec.Annotations)
	var p *process
	switch role {
	case cri.RoleSandbox:
		p, err = s.createSandboxTask(ctx, r, spec, u)
	case cri.RoleAlone:
		p, err = s.createAlone(ctx, r, spec, u)
	default:
		p, err = s.createContainer(ctx, r, spec, role, u)
	}
	if err != nil {
		return nil, err
	}
	s.events.send(&eventsAPI.TaskCreate{
		ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, Checkpoint: r.Checkpoint, Pid: p.pid,
		IO: &eventsAPI.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
	})
	return &taskAPI.CreateTaskResponse{Pid: p.pid}, nil
}

// createSandboxTask starts the VM that the pause container stands for; nothing of the container itself runs.
func (s *service) createSandboxTask(ctx context.Context, r *taskAPI.CreateTaskRequest, spec *specs.Spec, u uris) (*process, error) {
	sspec, err := cri.FromOCI(s.namespace, r.ID, spec, s.cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	pod, err := s.startPod(sspec, false, nil)
	if err != nil {
		return nil, err
	}
	sb, err := pod.started(ctx)
	if err != nil {
		return nil, errors.Join(err, pod.delete(context.WithoutCancel(ctx)))
	}
	p := newProcess(r.ID, "", uint32(sb.PID()), u, nil)
	s.add(&container{id: r.ID, bundle: r.Bundle, init: p, execs: map[string]*process{}})
	return p, nil
}

// createAlone makes a sandbox of one.
func (s *service) createAlone(ctx context.Context, r *taskAPI.CreateTaskRequest, spec *specs.Spec, u uris) (_ *process, retErr error) {
	sspec, err := cri.FromOCI(s.namespace, r.ID, spec, s.cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	pod, err := s.startPod(sspec, false, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, pod.delete(context.WithoutCancel(ctx)))
		}
	}()
	return s.createContainer(ctx, r, spec, cri.RoleAlone, u)
}

// createContainer attaches the container's files to the share, then tells the agent.
func (s *service) createContainer(ctx context.Context, r *taskAPI.CreateTaskRequest, spec *specs.Spec, role cri.Role, u uris) (_ *process, retErr error) {
	sb, err := s.running(ctx)
	if err != nil {
		return nil, err
	}
	if _, _, err := s.get(r.ID, ""); err == nil {
		return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
	}
	defer func() {
		if retErr != nil {
			retErr = errors.Join(retErr, sb.Detach(r.ID))
		}
	}()
	t := translation{id: r.ID, role: role, spec: spec, container: s.pids.container, sandboxPID: uint32(sb.PID()),
		userNS: sb.UserNamespace(), volumeName: sb.VolumeName, ownNetwork: sb.OwnNetwork()}
	if t.guestVolumes, err = guestVolumes(ctx, sb, spec); err != nil {
		return nil, fmt.Errorf("container %s: %w", r.ID, err)
	}
	if err := t.apply(); err != nil {
		return nil, fmt.Errorf("container %s: %w: %w", r.ID, err, errdefs.ErrInvalidArgument)
	}
	if err := attachRootfs(sb, r); err != nil {
		return nil, err
	}
	if err := attachVolumes(sb, t.attachments); err != nil {
		return nil, err
	}
	io, err := openStdio(sb, s.namespace, r.ID, u)
	if err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			io.close()
		}
	}()
	sb.MarkContainer(r.ID, "attached")
	if err := s.pin(sb, spec.Linux.Resources); err != nil {
		return nil, fmt.Errorf("container %s: %w", r.ID, err)
	}
	defer func() {
		if retErr != nil {
			s.unpin(sb)
		}
	}()
	if err := s.createInGuest(ctx, sb, r, spec, io); err != nil {
		return nil, err
	}
	p := newProcess(r.ID, "", s.pids.add(r.ID), u, io)
	c := &container{id: r.ID, bundle: r.Bundle, init: p, execs: map[string]*process{}, resources: spec.Linux.Resources}
	if !s.add(c) {
		return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
	}
	io.run()
	go s.watch(sb, p)
	sb.MarkContainer(r.ID, "created")
	if s.named(cri.ContainerName(spec.Annotations)) {
		sb.CountRestart()
	}
	return p, nil
}

func (s *service) createInGuest(ctx context.Context, sb *sandbox.Sandbox, r *taskAPI.CreateTaskRequest, spec *specs.Spec, io *stdio) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("encode the container's spec: %w", err)
	}
	options, err := typeurl.MarshalAnyToProto(&api.Container{Spec: data})
	if err != nil {
		return fmt.Errorf("encode the container's spec: %w", err)
	}
	req := &taskAPI.CreateTaskRequest{
		ID: r.ID, Bundle: filepath.Join(api.ShareDir, r.ID), Terminal: r.Terminal, Options: options,
	}
	req.Stdin, req.Stdout, req.Stderr = io.guest()
	done, err := s.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, s.startLimit())
	defer cancel()
	_, err = sb.Task.Create(ctx, req)
	err = errgrpc.ToNative(guestError(err))
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, undoCreate(context.WithoutCancel(ctx), sb, r.ID))
	}
	return err
}

// undoCreate deletes in the guest what it may have made, or may yet make, after the host has given it up.
func undoCreate(ctx context.Context, sb *sandbox.Sandbox, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := sb.Task.Delete(ctx, &taskAPI.DeleteRequest{ID: id})
	if err = errgrpc.ToNative(guestError(err)); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("delete in the guest what its creation may have left: %w", err)
}

// attachVolumes shows paths of the host to the guest, some of them by the mappings of a user namespace.
func attachVolumes(sb *sandbox.Sandbox, list []attachment) error {
	type mappings struct{ uids, gids string }
	open := map[mappings]*os.File{}
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	for _, a := range list {
		if key := (mappings{a.uids, a.gids}); key != (mappings{}) {
			if open[key] == nil {
				f, err := mount.GetUsernsFD(a.uids, a.gids)
				if err != nil {
					return fmt.Errorf("make a user namespace to map the owners of %s: %w", a.Source, err)
				}
				open[key] = f
			}
			a.UserNS = open[key]
		}
		if err := sb.Attach(a.name, a.Attach); err != nil {
			return err
		}
	}
	return nil
}

// attachRootfs mounts the container's root file system at its bundle, where containerd's clean-up looks for it, and
// moves it into the share.
func attachRootfs(sb *sandbox.Sandbox, r *taskAPI.CreateTaskRequest) (retErr error) {
	rootfs := filepath.Join(r.Bundle, "rootfs")
	if len(r.Rootfs) > 0 {
		if err := mount.All(mount.FromProto(r.Rootfs), rootfs); err != nil {
			return fmt.Errorf("mount the root file system of container %s: %w", r.ID, err)
		}
		// The share holds a copy of the mount from here on; one place to unmount is enough.
		defer func() { retErr = errors.Join(retErr, mount.UnmountAll(rootfs, 0)) }()
	}
	return sb.Attach(filepath.Join(r.ID, "rootfs"), sandbox.Attach{Source: rootfs, Recursive: true})
}
