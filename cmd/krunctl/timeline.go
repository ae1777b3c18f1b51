package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/sandbox"
)

func (a *app) timeline() *cobra.Command {
	return a.ofSandbox("timeline", "Show where the time of a sandbox's start went", func(dir string) error {
		tl, err := sandbox.LoadTimeline(dir)
		if err != nil {
			return fmt.Errorf("the sandbox has no timeline yet: %w", err)
		}
		if done, err := a.json(tl); done {
			return err
		}
		tl.Print(os.Stdout)
		return nil
	})
}
