package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/installer/krunctl"
	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/sandbox"
)

// checkNamespace is that of check's sandboxes; no namespace of containerd's is called so.
const checkNamespace = "krunctl"

func (a *app) check() *cobra.Command {
	var files string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can run krun pods, by running a microVM",
		Long: "Say whether this machine can run krun pods, by running a microVM.\n\n" +
			"Exit codes: 0 it can, 3 it cannot (the output says why and what to do), 1 the check itself failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if files != "" {
				a.cfg.Use(files)
			}
			// A signal ends the microVM, not only this program.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			r := a.runChecks(ctx)
			done, err := a.json(r)
			if err != nil {
				return err
			}
			if !done {
				printReport(r)
			}
			if !r.Ready {
				return errNotReady
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&files, "files", "", "directory whose bin and lib are tried, instead of those that the configuration names")
	return cmd
}

func (a *app) runChecks(ctx context.Context) krunctl.Report {
	r := krunctl.Report{Ready: true}
	for _, check := range []func(context.Context) krunctl.Check{a.checkRoot, a.checkFiles, a.checkCgroup, a.checkTun, a.checkRunner, a.checkBoot} {
		c := check(ctx)
		r.Checks = append(r.Checks, c)
		if !c.OK {
			r.Ready = false
			// What follows would only repeat the same cause in other words.
			break
		}
	}
	return r
}

func printReport(r krunctl.Report) {
	for _, c := range r.Checks {
		mark := "ok  "
		if !c.OK {
			mark = "FAIL"
		}
		fmt.Printf("%s  %-12s %s\n", mark, c.Name, c.Detail)
		if c.Remedy != "" {
			fmt.Printf("      what to do: %s\n", c.Remedy)
		}
	}
	if r.Ready {
		fmt.Println("This machine can run krun pods.")
	} else {
		fmt.Println("This machine cannot run krun pods.")
	}
}

func (a *app) checkRoot(context.Context) krunctl.Check {
	if os.Geteuid() != 0 {
		return krunctl.Check{Name: "privileges", Detail: "krunctl does not run as root", Remedy: "run it as root"}
	}
	return krunctl.Check{Name: "privileges", OK: true, Detail: "running as root"}
}

func (a *app) binaries() []string { return []string{a.cfg.Runner, a.cfg.Agent, a.cfg.VNet} }

func (a *app) checkFiles(context.Context) krunctl.Check {
	for _, p := range a.binaries() {
		if err := unix.Access(p, unix.X_OK); err != nil {
			return krunctl.Check{Name: "binaries", Detail: fmt.Sprintf("%s: %v", p, err),
				Remedy: "install krunpod, or set runner, agent and vnet in the configuration"}
		}
	}
	return krunctl.Check{Name: "binaries", OK: true, Detail: strings.Join(a.binaries(), ", ")}
}

func (a *app) checkCgroup(context.Context) krunctl.Check {
	if cgroups.Mode() != cgroups.Unified {
		return krunctl.Check{Name: "cgroup", Detail: "/sys/fs/cgroup is not cgroup v2 alone",
			Remedy: "boot with systemd.unified_cgroup_hierarchy=1, or a newer distribution"}
	}
	return krunctl.Check{Name: "cgroup", OK: true, Detail: "cgroup v2"}
}

func (a *app) checkTun(context.Context) krunctl.Check {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return krunctl.Check{Name: "tun", Detail: err.Error(), Remedy: "load the module: modprobe tun"}
	}
	f.Close()
	return krunctl.Check{Name: "tun", OK: true, Detail: "/dev/net/tun opens"}
}

func (a *app) checkRunner(ctx context.Context) krunctl.Check {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, a.cfg.Runner, "check", a.cfg.Firmware).Output()
	var info krun.Info
	if jerr := json.Unmarshal(out, &info); jerr != nil {
		return krunctl.Check{Name: "libkrun", Detail: fmt.Sprintf("%s does not run: %v", a.cfg.Runner, err),
			Remedy: "reinstall krunpod: the runner needs libc, libgcc_s and libkrunfw.so.5", TimedOut: ctx.Err() != nil}
	}
	if len(info.Problems) > 0 {
		return krunctl.Check{Name: "kvm", Detail: info.Problems[0],
			Remedy: "the machine needs VT-x, SVM or an ARM equivalent (in a cloud: nested virtualization) and its kvm module"}
	}
	return krunctl.Check{Name: "kvm", OK: true, Detail: fmt.Sprintf("libkrun %s, KVM API %d, up to %d vCPUs", info.Libkrun, info.KVM, info.MaxVCPUs)}
}

// checkBoot runs a microVM on the same road as a pod, without a network: a /dev/kvm that opens proves nothing.
func (a *app) checkBoot(ctx context.Context) krunctl.Check {
	if err := a.removeKilledChecks(ctx); err != nil {
		return krunctl.Check{Name: "boot", Detail: err.Error(), Remedy: "what an earlier check left could not be removed"}
	}
	start := time.Now()
	sb, err := sandbox.Start(ctx, a.cfg, sandbox.Spec{
		ID: fmt.Sprintf("check-%d", os.Getpid()), Namespace: checkNamespace,
		VCPUs: 1, MemoryMiB: a.cfg.VM.DefaultMemoryMiB, Guest: &api.ConfigureSandboxRequest{Hostname: "krunctl-check"},
	}, sandbox.NewTimeline(start))
	if err != nil {
		var slow sandbox.BootTimeout
		return krunctl.Check{Name: "boot", Detail: err.Error(), Remedy: "a microVM does not come up here: see docs/troubleshooting.md",
			TimedOut: errors.As(err, &slow) || ctx.Err() != nil}
	}
	took := time.Since(start)
	if err := sb.Delete(ctx); err != nil {
		return krunctl.Check{Name: "boot", Detail: err.Error(), Remedy: "the microVM ran, but what it left could not be removed"}
	}
	return krunctl.Check{Name: "boot", OK: true,
		Detail: fmt.Sprintf("a microVM with Linux %s answered after %d ms", sb.KernelRelease(), took.Milliseconds())}
}

// removeKilledChecks removes the microVMs of checks that were killed: nothing else ends them.
func (a *app) removeKilledChecks(ctx context.Context) error {
	dirs, err := sandbox.List(a.cfg.State)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		st, err := sandbox.LoadState(d)
		if err != nil || st.Namespace != checkNamespace || st.ShimAlive() {
			continue // one that cannot be read is no reason to say no
		}
		errs = append(errs, sandbox.Remove(ctx, d))
	}
	return errors.Join(errs...)
}
