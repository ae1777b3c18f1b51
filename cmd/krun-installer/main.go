// Command krun-installer puts Krunpod on a node of a cluster and takes it off again: in the chart's DaemonSet, or by hand.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/installer"
	"krun.dev/krunpod/installer/kube"
)

// Exit codes, for scripts: as krunctl's.
const (
	exitError    = 1
	exitNotReady = 3 // install: this machine cannot run krun pods
)

var (
	// version is set when it is built.
	version = "dev"
	// errNotReady is install's answer when the machine cannot run krun pods; why has been printed.
	errNotReady = errors.New("this machine cannot run krun pods")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errNotReady):
		os.Exit(exitNotReady)
	default:
		fmt.Fprintln(os.Stderr, "krun-installer:", err)
		os.Exit(exitError)
	}
}

// app is what the commands share.
type app struct {
	output  string
	host    string
	payload string
	prefix  string
	handler string
	layout  installer.Layout
	restart string
}

func root() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use:           "krun-installer",
		Short:         "Install Krunpod on a node, or uninstall it",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return fmt.Errorf("--output %q: the formats are text and json", a.output)
			}
			return nil
		},
	}
	f := cmd.PersistentFlags()
	f.StringVarP(&a.output, "output", "o", "text", "output format: text or json")
	f.StringVar(&a.host, "host", "/host", "where the host's file tree is; / when this is the host")
	f.StringVar(&a.payload, "payload", "/krunpod", "directory with bin, lib and etc to install")
	f.StringVar(&a.prefix, "prefix", installer.DefaultPrefix, "directory of the host for them")
	f.StringVar(&a.handler, "handler", installer.DefaultHandler, "the runtime's name in containerd")
	f.StringVar(&a.layout.Name, "distribution", "", "rke2, k3s, k0s, microk8s, kind, minikube or plain; empty: found out")
	f.StringVar(&a.layout.Config, "containerd-config", "", "containerd's configuration file, which may get one line; empty: the distribution's")
	f.StringVar(&a.layout.DropIn, "containerd-drop-in", "", "directory for the drop-in; empty: the distribution's")
	f.StringVar(&a.layout.Containerd, "containerd", "", "containerd's program on the host; empty: the distribution's")
	f.StringVar(&a.layout.Socket, "containerd-socket", "", "containerd's socket; empty: the distribution's")
	f.StringVar(&a.restart, "restart-command", "", "restarts containerd, run by the host's sh; empty: the distribution's")
	cmd.AddCommand(a.install(), a.uninstall(), a.run(), a.retire(), ready())
	return cmd
}

func (a *app) installer(ctx context.Context) (*installer.Installer, error) {
	h := installer.Host{Root: a.host, Run: installer.EnterHost}
	if a.host == "/" {
		h.Run = installer.RunHere
	}
	if a.restart != "" {
		a.layout.Restart = []string{"sh", "-c", a.restart}
	}
	layout, err := h.Detect(ctx, a.layout)
	if err != nil {
		return nil, err
	}
	return &installer.Installer{Host: h, Layout: layout, Payload: a.payload, Prefix: a.prefix, Handler: a.handler, Proc: "/proc"}, nil
}

func (a *app) install() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Install on this node, once, without a cluster",
		Long: "Install on this node, once, without a cluster.\n\n" +
			"Exit codes: 0 the node can run krun pods, 3 it cannot (containerd was left alone), 1 the installation failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.installer(cmd.Context())
			if err != nil {
				return err
			}
			res, err := i.Install(cmd.Context())
			if err != nil {
				return err
			}
			if err := a.print(cmd.OutOrStdout(), res); err != nil {
				return err
			}
			if !res.Ready {
				return errNotReady
			}
			return nil
		},
	}
}

func (a *app) uninstall() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Leave this node as it was before install",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			i, err := a.installer(cmd.Context())
			if err != nil {
				return err
			}
			res, err := i.Uninstall(cmd.Context(), force)
			if err != nil {
				return err
			}
			return a.print(cmd.OutOrStdout(), res)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while krun pods run")
	return cmd
}

func (a *app) run() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Keep the node of this pod installed, and say on the node what came of it (the DaemonSet's command)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node := os.Getenv("NODE_NAME")
			if node == "" {
				return errors.New("NODE_NAME is not set: this command is for the chart's DaemonSet")
			}
			i, err := a.installer(cmd.Context())
			if err != nil {
				return err
			}
			client, err := kube.InCluster()
			if err != nil {
				return err
			}
			agent := installer.Agent{Installer: i, Kube: client, Node: node, Poll: 10 * time.Second, Retry: time.Minute,
				Settled: func() error { return os.WriteFile(readyFile, nil, 0o600) }}
			return agent.Run(cmd.Context())
		},
	}
}

func (a *app) retire() *cobra.Command {
	var r installer.Removal
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "Have all nodes of the cluster uninstalled by their DaemonSet, and wait (the chart's job before its removal)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if r.Kube, err = kube.InCluster(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return r.Run(ctx)
		},
	}
	cmd.Flags().StringVar(&r.RuntimeClass, "runtime-class", "krun", "the RuntimeClass whose pods must be gone first")
	cmd.Flags().StringVar(&r.Installers, "installers", "app.kubernetes.io/name=krunpod", "labels of the DaemonSet's pods in this namespace")
	cmd.Flags().BoolVar(&r.Force, "force", false, "also while such pods exist, and without the nodes that do not answer")
	cmd.Flags().DurationVar(&timeout, "timeout", 4*time.Minute, "how long to wait for the nodes")
	return cmd
}

// readyFile is there when run has decided about its node. /run of the image is a memory-backed volume.
const readyFile = "/run/krun-installer.settled"

func ready() *cobra.Command {
	return &cobra.Command{
		Use:    "ready",
		Short:  "Whether run has decided about its node (the DaemonSet's readiness probe)",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			_, err := os.Stat(readyFile)
			return err
		},
	}
}

func (a *app) print(out io.Writer, res *installer.Result) error {
	if a.output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(res)
	}
	if res.Reason != "" {
		fmt.Fprintln(out, "not possible: "+res.Reason)
		return nil
	}
	restarted := "containerd was not restarted"
	if res.Restarted {
		restarted = "containerd was restarted"
	}
	changed := "no file of the host changed"
	if len(res.Changed) > 0 {
		changed = "changed " + strings.Join(res.Changed, ", ")
	}
	_, err := fmt.Fprintf(out, "%s; %s; %s\n", res.Layout.Name, changed, restarted)
	return err
}
