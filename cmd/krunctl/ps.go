package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"krun.dev/krunpod/installer/krunctl"
	"krun.dev/krunpod/sandbox"
)

// row is one sandbox as ps and inspect show it.
type row struct {
	*sandbox.State
	krunctl.Life
}

func (a *app) load(dir string) (row, error) {
	st, err := sandbox.LoadState(dir)
	if err != nil {
		return row{}, err
	}
	return row{st, lifeOf(st)}, nil
}

func lifeOf(st *sandbox.State) krunctl.Life {
	switch {
	case st.InUse() && st.Runner != nil:
		return krunctl.Life{Alive: true, Status: krunctl.Running}
	case st.InUse():
		return krunctl.Life{Status: krunctl.Starting}
	case st.End != "":
		return krunctl.Life{Status: string(st.End)}
	}
	return krunctl.Life{Status: krunctl.Dead}
}

func (a *app) ps() *cobra.Command {
	return &cobra.Command{
		Use:   "ps",
		Short: "List the sandboxes of this node",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dirs, err := sandbox.List(a.cfg.State)
			if err != nil {
				return err
			}
			rows := []row{}
			var unreadable []error
			for _, d := range dirs {
				r, err := a.load(d)
				switch {
				case err == nil:
					rows = append(rows, r)
				case !errors.Is(err, fs.ErrNotExist): // otherwise it ended while we looked
					unreadable = append(unreadable, err)
				}
			}
			done, err := a.json(rows)
			if !done {
				err = printRows(os.Stdout, rows)
			}
			// What cannot be read of one sandbox hides no other.
			return errors.Join(append(unreadable, err)...)
		},
	}
}

func printRows(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SANDBOX\tNAMESPACE\tPOD\tSTATE\tRUNNER\tVCPUS\tMEMORY\tNICS")
	for _, r := range rows {
		pid, nics, pod := "-", 0, "-"
		if r.Pod.Name != "" {
			pod = r.Pod.Namespace + "/" + r.Pod.Name
		}
		if r.Runner != nil {
			pid = fmt.Sprint(r.Runner.PID)
		}
		switch {
		case r.VNet != nil && r.VNet.Gateway != nil:
			nics = 1
		case r.Bridge != nil:
			nics = len(r.Bridge.Interfaces)
		}
		fmt.Fprintf(w, "%.13s\t%s\t%s\t%s\t%s\t%d\t%d MiB\t%d\n", r.ID, r.Namespace, pod, r.Status, pid, r.VCPUs, r.MemoryMiB, nics)
	}
	return w.Flush()
}

func (a *app) inspect() *cobra.Command {
	return a.ofSandbox("inspect", "Print everything that is known of a sandbox, as JSON", func(dir string) error {
		r, err := a.load(dir)
		if err != nil {
			return err
		}
		a.output = "json"
		_, err = a.json(r)
		return err
	})
}

func (a *app) console() *cobra.Command {
	return a.ofSandbox("console", "Print what a guest's kernel and agent wrote to their console", func(dir string) error {
		path := sandbox.ConsolePath(dir)
		for _, p := range []string{path + ".1", path} {
			if err := cat(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// cat prints a file of the guest's output without what would control a terminal.
func cat(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i, b := range data {
		if (b < ' ' && b != '\n' && b != '\t') || b == 0x7f {
			data[i] = '.'
		}
	}
	_, err = os.Stdout.Write(data)
	return err
}
