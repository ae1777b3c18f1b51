package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// total is a column's sum.
type total struct {
	passed, failed, skipped int
	seconds                 float64
}

func (rep report) total(c column) (sum total, any bool) {
	for _, t := range rep.Tests {
		v, ok := t.Verdicts[c.name]
		if !ok {
			continue
		}
		any = true
		sum.seconds += v.Seconds
		switch v.Verdict {
		case "passed":
			sum.passed++
		case "skipped":
			sum.skipped++
		default:
			sum.failed++
		}
	}
	return sum, any
}

// used are the columns that have a verdict.
func (rep report) used() []column {
	var all []column
	for _, c := range columns {
		if _, any := rep.total(c); any {
			all = append(all, c)
		}
	}
	return all
}

// differences are the tests whose verdicts are not the same in all columns that have one.
func (rep report) differences() []test {
	var all []test
	for _, t := range rep.Tests {
		var kinds []string
		for _, v := range t.Verdicts {
			kinds = append(kinds, v.Verdict)
		}
		slices.Sort(kinds)
		if len(slices.Compact(kinds)) > 1 {
			all = append(all, t)
		}
	}
	return all
}

// reason is why a spec ended as it did in these columns.
type reason struct {
	spec    string
	columns []string
	by, why string
}

// reasons gathers the verdicts of one kind, columns of the same reason together.
func (rep report) reasons(kind string) []reason {
	var all []reason
	for _, t := range rep.Tests {
		first := len(all)
		for _, c := range columns {
			v, ok := t.Verdicts[c.name]
			if !ok || v.Verdict != kind {
				continue
			}
			i := slices.IndexFunc(all[first:], func(r reason) bool { return r.why == v.Reason })
			if i < 0 {
				all = append(all, reason{spec: t.Name, by: v.By, why: v.Reason})
				i = len(all) - 1 - first
			}
			all[first+i].columns = append(all[first+i].columns, c.name)
		}
	}
	return all
}

// cell is a verdict with its seconds, as a table shows it.
func (t test) cell(c column) string {
	v, ok := t.Verdicts[c.name]
	switch {
	case !ok:
		return "-"
	case v.Verdict == "skipped":
		return "skipped"
	}
	return fmt.Sprintf("%s %.1f s", v.Verdict, v.Seconds)
}

// show prints the differences and the sums for people.
func (rep report) show(w io.Writer) {
	used := rep.used()
	fmt.Fprintf(w, "\n%-80s", "differences")
	for _, c := range used {
		fmt.Fprintf(w, "  %-16s", c.name)
	}
	fmt.Fprintln(w)
	differ := rep.differences()
	for _, t := range differ {
		fmt.Fprintf(w, "%-80s", t.Name)
		for _, c := range used {
			fmt.Fprintf(w, "  %-16s", t.cell(c))
		}
		fmt.Fprintln(w)
	}
	if len(differ) == 0 {
		fmt.Fprintln(w, "none")
	}
	for _, kind := range []string{"failed", "skipped"} {
		for _, r := range rep.reasons(kind) {
			fmt.Fprintf(w, "%s (%s): %s: %s\n", kind, strings.Join(r.columns, ", "), r.spec, r.why)
		}
	}
	for _, c := range used {
		s, _ := rep.total(c)
		fmt.Fprintf(w, "%-16s %3d passed, %d failed, %d skipped; %.0f s of specs in a run of %.0f s on %d nodes\n",
			c.name, s.passed, s.failed, s.skipped, s.seconds, rep.Runs[c.name].Seconds, rep.Runs[c.name].Nodes)
	}
}
