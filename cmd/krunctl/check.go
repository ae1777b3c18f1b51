package main

import (
	"cmp"
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
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/installer/krunctl"
	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/netbridge"
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
	for _, check := range []func(context.Context) krunctl.Check{a.checkRoot, a.checkFiles, a.checkCgroup, a.checkRunner, a.checkNetwork, a.checkBoot} {
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

func (a *app) checkRunner(ctx context.Context) krunctl.Check {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, a.cfg.Runner, "check", a.cfg.Firmware).Output()
	c := judgeRunner(a.cfg.Runner, out, err)
	c.TimedOut = !c.OK && ctx.Err() != nil
	return c
}

// judgeRunner reads what the runner says of the node, and how it ended.
func judgeRunner(runner string, out []byte, err error) krunctl.Check {
	var info krun.Info
	if jerr := json.Unmarshal(out, &info); jerr != nil {
		detail := fmt.Sprintf("%s does not say what it finds: %v", runner, cmp.Or(err, jerr))
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			detail += ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return krunctl.Check{Name: "libkrun", Detail: detail, Remedy: "reinstall krunpod: the runner needs libc and libgcc_s"}
	}
	if len(info.Problems) > 0 {
		p := info.Problems[0]
		return krunctl.Check{Name: string(p.Part), Detail: p.Detail, Remedy: remedies[p.Part]}
	}
	return krunctl.Check{Name: "kvm", OK: true, Detail: fmt.Sprintf("libkrun %s, KVM API %d, up to %d vCPUs, %s", info.Libkrun, info.KVM, info.MaxVCPUs, info.Firmware)}
}

var remedies = map[krun.Part]string{
	krun.PartKVM:      "the machine needs VT-x, SVM or an ARM equivalent (in a cloud: nested virtualization) and its kvm module",
	krun.PartLibkrun:  "reinstall krunpod: its own runner has all of libkrun that is needed",
	krun.PartFirmware: "reinstall krunpod, or set firmware in the configuration to the directory of libkrunfw.so.5",
}

// watch is what the frames of a pod without annotations pass on this node.
func (a *app) watch() *netbridge.Watch {
	if a.cfg.Network.Default == config.WayVNet {
		return &netbridge.Watch{}
	}
	return nil
}

// checkNetwork joins a network as a pod has it to a tap: what is missing in the kernel is named apart from the VM.
func (a *app) checkNetwork(ctx context.Context) krunctl.Check {
	if err := netbridge.Try(ctx, a.watch()); err != nil {
		return krunctl.Check{Name: "network", Detail: err.Error(),
			Remedy: "load what is missing, and at each boot: modprobe -a tun veth sch_ingress cls_matchall act_mirred"}
	}
	return krunctl.Check{Name: "network", OK: true, Detail: "a pod's interface can be joined to a tap"}
}

// checkBoot runs a microVM on the same road as a pod, with a network: a /dev/kvm that opens proves nothing.
func (a *app) checkBoot(ctx context.Context) krunctl.Check {
	if err := a.removeKilledChecks(ctx); err != nil {
		return krunctl.Check{Name: "boot", Detail: err.Error(), Remedy: "what an earlier check left could not be removed"}
	}
	spec := sandbox.Spec{
		ID: fmt.Sprintf("check-%d", os.Getpid()), Namespace: checkNamespace,
		VCPUs: 1, MemoryMiB: a.cfg.VM.DefaultMemoryMiB, Guest: &api.ConfigureSandboxRequest{Hostname: "krunctl-check"},
	}
	if a.watch() != nil {
		spec.VNet = &sandbox.VNet{}
	}
	var took time.Duration
	var release string
	err := netbridge.Trial(func(path string) error {
		spec.NetNS = path
		start := time.Now()
		sb, err := sandbox.Start(ctx, a.cfg, spec, sandbox.NewTimeline(start))
		if err != nil {
			return err
		}
		took, release = time.Since(start), sb.KernelRelease()
		if err := sb.Delete(ctx); err != nil {
			return fmt.Errorf("the microVM ran, but what it left could not be removed: %w", err)
		}
		return nil
	})
	if err != nil {
		var slow sandbox.BootTimeout
		return krunctl.Check{Name: "boot", Detail: err.Error(), Remedy: "a microVM does not come up here: see docs/troubleshooting.md",
			TimedOut: errors.As(err, &slow) || ctx.Err() != nil}
	}
	return krunctl.Check{Name: "boot", OK: true,
		Detail: fmt.Sprintf("a microVM with Linux %s and a network answered after %d ms", release, took.Milliseconds())}
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
