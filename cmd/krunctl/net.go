package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/sandbox"
	"krun.dev/krunpod/vnet"
)

// traffic is what net shows of a sandbox.
type traffic struct {
	*sandbox.VNet
	*vnet.Report
}

func (a *app) net() *cobra.Command {
	return a.ofSandbox("net", "Show a pod's network policy, and what it let through and refused", func(dir string) error {
		st, err := sandbox.LoadState(dir)
		if err != nil {
			return err
		}
		if st.VNet == nil {
			return fmt.Errorf("sandbox %s has no vnet, so nothing counts its frames: see docs/networking.md", st.ID)
		}
		r, err := sandbox.LoadTraffic(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the vnet of sandbox %s has not reported yet", st.ID)
		}
		if err != nil {
			return err
		}
		t := traffic{st.VNet, r}
		if done, err := a.json(t); done {
			return err
		}
		return printTraffic(os.Stdout, t)
	})
}

func printTraffic(out io.Writer, t traffic) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, key := range slices.Sorted(maps.Keys(t.Policy)) {
		statements := strings.Split(strings.TrimSpace(t.Policy[key]), "\n")
		fmt.Fprintf(w, "%s:\t%s\n", key, strings.Join(statements, "; "))
	}
	if t.Resolver != nil {
		fmt.Fprintf(w, "nameservers:\t%v\nopen addresses:\t%d\n", t.Nameservers, t.OpenAddresses)
	}
	fmt.Fprintln(w, "\nINTERFACE\tFROM\tFRAMES\tPASSED\tLOST\tCONNECTIONS")
	for _, l := range t.Links {
		for _, s := range sides(l) {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", l.Interface, s.from, s.Frames, s.Passed, s.Unread+s.Unsent, l.Connections)
		}
	}
	fmt.Fprintln(w, "\nINTERFACE\tFROM\tDROPPED\tWHY")
	for _, l := range t.Links {
		for _, s := range sides(l) {
			for _, why := range slices.Sorted(maps.Keys(s.Dropped)) {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", l.Interface, s.from, s.Dropped[why], why)
			}
		}
	}
	if len(t.RefusedNames) > 0 {
		fmt.Fprintln(w, "\nREFUSED NAME\tASKED FOR")
	}
	for _, name := range slices.Sorted(maps.Keys(t.RefusedNames)) {
		fmt.Fprintf(w, "%s\t%d\n", name, t.RefusedNames[name])
	}
	return w.Flush()
}

// side is one of a link's.
type side struct {
	from string
	vnet.SideReport
}

func sides(l vnet.LinkReport) []side {
	return []side{{"guest", l.FromGuest}, {"network", l.FromNetwork}}
}
