package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/sandbox"
)

func (a *app) timeline() *cobra.Command {
	return &cobra.Command{
		Use:               "timeline SANDBOX",
		Short:             "Show where the time of a sandbox's start went",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.ids,
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.find(args[0])
			if err != nil {
				return err
			}
			tl, err := sandbox.LoadTimeline(dir)
			if err != nil {
				return fmt.Errorf("the sandbox has no timeline yet: %w", err)
			}
			if done, err := a.json(tl); done {
				return err
			}
			sandbox.PrintTimeline(os.Stdout, tl.Stages)
			return nil
		},
	}
}
