package main

import (
	"fmt"
	"io"
	"os"
	"strings"

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
			printTimeline(os.Stdout, tl.Stages)
			return nil
		},
	}
}

// barWidth is the width of a timeline's bars in characters.
const barWidth = 40

// printTimeline draws each stage as a bar from the end of the one before to its own.
func printTimeline(out io.Writer, stages []sandbox.Stage) {
	if len(stages) == 0 {
		return
	}
	total := max(1, stages[len(stages)-1].At)
	before := int64(0)
	for _, s := range stages {
		from := int(before * barWidth / total)
		to := min(barWidth, max(from+1, int(s.At*barWidth/total)))
		fmt.Fprintf(out, "%8.1f ms  %+8.1f  %-*s  %s\n", float64(s.At)/1000, float64(s.At-before)/1000,
			barWidth, strings.Repeat(" ", min(from, barWidth-1))+strings.Repeat("█", max(1, to-from)), s.Name)
		before = s.At
	}
}
