package main

import (
	"github.com/spf13/cobra"

	"krun.dev/krunpod/sandbox"
)

func (a *app) clean() *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove what this node keeps of sandboxes that are gone, before Krunpod is uninstalled",
		Long: "Remove what this node keeps of sandboxes that are gone, before Krunpod is uninstalled: checks that were killed, the\n" +
			"counters of the metrics, and the state directory. It keeps all of it while a sandbox runs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.removeKilledChecks(cmd.Context()); err != nil {
				return err
			}
			return sandbox.Vacate(a.cfg.State)
		},
	}
}
