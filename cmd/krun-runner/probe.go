package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/krun"
)

const (
	defaultBin = "/opt/krunpod/bin"
	defaultLib = "/opt/krunpod/lib"
	// probeTimeout allows for a node that is itself emulated.
	probeTimeout = 60 * time.Second
	probeMemory  = 256
)

// probe boots a VM as the shim would, jail and all, and waits for its agent to call: /dev/kvm may open and then not run
// a guest, and only trying tells.
func probe(args []string, out io.Writer) error {
	bin, lib := defaultBin, defaultLib
	if len(args) > 0 {
		bin = args[0]
	}
	if len(args) > 1 {
		lib = args[1]
	}
	dir, err := os.MkdirTemp("/run", "krun-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := probeConfig(dir, filepath.Join(bin, "krun-agent"), lib)
	if err != nil {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(c.Sockets, api.ControlSocket), Net: "unix"})
	if err != nil {
		return err
	}
	defer listener.Close()
	took, err := bootOnce(c, listener)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "the guest's agent answered %d ms after the runner's start\n", took.Milliseconds())
	return nil
}

func probeConfig(dir, agent, lib string) (*krun.Config, error) {
	c := &krun.Config{
		ID: "probe", VCPUs: 1, MemoryMiB: probeMemory, Agent: agent, LogLevel: 2, Firmware: lib,
		Share: filepath.Join(dir, "share"), Sockets: filepath.Join(dir, "sock"),
		Jail: krun.Jail{Root: filepath.Join(dir, "jail")},
	}
	for _, d := range []string{c.Share, c.Sockets, c.Jail.Root} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// bootOnce starts the runner and returns how long the agent took to connect to listener. The VM is killed after that.
func bootOnce(c *krun.Config, listener *net.UnixListener) (time.Duration, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return 0, err
	}
	var output bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(config), &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL,
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the runner: %w", err)
	}
	if err := listener.SetDeadline(start.Add(probeTimeout)); err != nil {
		return 0, err
	}
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		listener.Close()
	}()
	conn, err := listener.AcceptUnix()
	took := time.Since(start)
	if err == nil {
		conn.Close()
	}
	killed := cmd.Process.Kill()
	ended := <-exited
	switch {
	case err == nil:
		return took, nil
	case errors.Is(killed, os.ErrProcessDone):
		return 0, fmt.Errorf("the runner ended before the guest answered (%v): %s", ended, output.Bytes())
	}
	return 0, fmt.Errorf("the guest did not answer within %s: %s", probeTimeout, output.Bytes())
}
