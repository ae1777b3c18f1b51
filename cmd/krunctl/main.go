// Command krunctl is the node administrator's tool: whether this machine can run krun pods, which ones run, what
// their consoles say, where the time of their start went, and Prometheus metrics of all of them.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/config"
	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/shim"
)

// Exit codes, for scripts.
const (
	exitError    = 1 // the command failed
	exitNotReady = 3 // check: this machine cannot run krun pods
)

// errNotReady is check's answer when the machine cannot run krun pods; what is wrong has been printed.
var errNotReady = errors.New("this machine cannot run krun pods")

func main() {
	err := root().Execute()
	switch {
	case err == nil:
	case errors.Is(err, errNotReady):
		os.Exit(exitNotReady)
	default:
		fmt.Fprintln(os.Stderr, "krunctl:", err)
		os.Exit(exitError)
	}
}

// app is what the commands share.
type app struct {
	configPath string
	output     string
	cfg        *config.Config
}

func root() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use:           "krunctl",
		Short:         "Look after the microVMs of krun pods on this node",
		Version:       shim.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return fmt.Errorf("--output %q: the formats are text and json", a.output)
			}
			var err error
			a.cfg, err = config.Load(a.configPath)
			return err
		},
	}
	cmd.PersistentFlags().StringVar(&a.configPath, "config", config.DefaultPath, "configuration file")
	cmd.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "output format: text or json")
	cmd.AddCommand(a.check(), a.ps(), a.inspect(), a.console(), a.timeline(), a.net(), a.metrics(), a.clean())
	return cmd
}

// json prints v when --output json was given, and reports whether it did.
func (a *app) json(v any) (bool, error) {
	if a.output != "json" {
		return false, nil
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return true, enc.Encode(v)
}

// ofSandbox makes a command about one sandbox, which find finds.
func (a *app) ofSandbox(name, short string, run func(dir string) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " SANDBOX",
		Short:             short,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.ids,
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.find(args[0])
			if err != nil {
				return err
			}
			return run(dir)
		},
	}
}

// find returns the directory of the one sandbox whose id begins with name, or whose pod has that name, alone or after its namespace
// and a slash.
func (a *app) find(name string) (string, error) {
	dirs, err := sandbox.List(a.cfg.State)
	if err != nil {
		return "", err
	}
	var found []string
	for _, d := range dirs {
		if strings.HasPrefix(filepath.Base(d), name) || isOfPod(d, name) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no sandbox or pod %s: see krunctl ps", name)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%d sandboxes are called %s, or begin with it: give more of an id, or NAMESPACE/POD", len(found), name)
}

func isOfPod(dir, name string) bool {
	st, err := sandbox.LoadState(dir)
	return err == nil && st.Pod.Name != "" && (name == st.Pod.Name || name == st.Pod.Namespace+"/"+st.Pod.Name)
}

// ids completes sandbox ids.
func (a *app) ids(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cfg, err := config.Load(a.configPath)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	dirs, err := sandbox.List(cfg.State)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, d := range dirs {
		ids = append(ids, filepath.Base(d))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
