package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api"
	"krun.dev/krunpod/config"
	"krun.dev/krunpod/krun"
	"krun.dev/krunpod/netbridge"
	"krun.dev/krunpod/sandbox"
)

// result is one thing that check looked at.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Remedy says what to do when it is not OK.
	Remedy string `json:"remedy,omitempty"`
}

// report is check's answer.
type report struct {
	Ready  bool     `json:"ready"`
	Checks []result `json:"checks"`
}

func (a *app) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can run krun pods, by running a microVM",
		Long: "Say whether this machine can run krun pods, by running a microVM.\n\n" +
			"Exit codes: 0 it can, 3 it cannot (the output says why and what to do), 1 the check itself failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := a.runChecks(cmd.Context())
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
}

func (a *app) runChecks(ctx context.Context) report {
	r := report{Ready: true}
	for _, check := range []func(context.Context) result{a.checkRoot, a.checkFiles, a.checkCgroup, a.checkRunner, a.checkNetwork, a.checkBoot} {
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

func printReport(r report) {
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

func (a *app) checkRoot(context.Context) result {
	if os.Geteuid() != 0 {
		return result{Name: "privileges", Detail: "krunctl does not run as root", Remedy: "run it as root"}
	}
	return result{Name: "privileges", OK: true, Detail: "running as root"}
}

func (a *app) binaries() []string { return []string{a.cfg.Runner, a.cfg.Agent, a.cfg.VNet} }

func (a *app) checkFiles(context.Context) result {
	for _, p := range a.binaries() {
		if err := unix.Access(p, unix.X_OK); err != nil {
			return result{Name: "binaries", Detail: fmt.Sprintf("%s: %v", p, err),
				Remedy: "install krunpod, or set runner, agent and vnet in the configuration"}
		}
	}
	return result{Name: "binaries", OK: true, Detail: strings.Join(a.binaries(), ", ")}
}

func (a *app) checkCgroup(context.Context) result {
	if cgroups.Mode() != cgroups.Unified {
		return result{Name: "cgroup", Detail: "/sys/fs/cgroup is not cgroup v2 alone",
			Remedy: "boot with systemd.unified_cgroup_hierarchy=1, or a newer distribution"}
	}
	return result{Name: "cgroup", OK: true, Detail: "cgroup v2"}
}

func (a *app) checkRunner(ctx context.Context) result {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, a.cfg.Runner, "check", a.cfg.Firmware).Output()
	return judgeRunner(a.cfg.Runner, out, err)
}

// judgeRunner reads what the runner says of the node, and how it ended.
func judgeRunner(runner string, out []byte, err error) result {
	var info krun.Info
	if jerr := json.Unmarshal(out, &info); jerr != nil {
		detail := fmt.Sprintf("%s does not say what it finds: %v", runner, cmp.Or(err, jerr))
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			detail += ": " + strings.TrimSpace(string(exit.Stderr))
		}
		return result{Name: "libkrun", Detail: detail, Remedy: "reinstall krunpod: the runner needs libc and libgcc_s"}
	}
	if len(info.Problems) > 0 {
		p := info.Problems[0]
		return result{Name: string(p.Part), Detail: p.Detail, Remedy: remedies[p.Part]}
	}
	return result{Name: "kvm", OK: true, Detail: fmt.Sprintf("libkrun %s, KVM API %d, up to %d vCPUs, %s", info.Libkrun, info.KVM, info.MaxVCPUs, info.Firmware)}
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
func (a *app) checkNetwork(ctx context.Context) result {
	if err := netbridge.Try(ctx, a.watch()); err != nil {
		return result{Name: "network", Detail: err.Error(),
			Remedy: "load what is missing, and at each boot: modprobe -a tun veth sch_ingress cls_matchall act_mirred"}
	}
	return result{Name: "network", OK: true, Detail: "a pod's interface can be joined to a tap"}
}

// checkBoot runs a microVM on the same road as a pod, with a network: a /dev/kvm that opens proves nothing.
func (a *app) checkBoot(ctx context.Context) result {
	spec := sandbox.Spec{
		ID: fmt.Sprintf("check-%d", os.Getpid()), Namespace: "krunctl",
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
		return result{Name: "boot", Detail: err.Error(), Remedy: "a microVM does not come up here: see docs/troubleshooting.md"}
	}
	return result{Name: "boot", OK: true,
		Detail: fmt.Sprintf("a microVM with Linux %s and a network answered after %d ms", release, took.Milliseconds())}
}
