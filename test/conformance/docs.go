package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const head = `# Conformance

This page is generated: ` + "`hack/conformance --write-docs`" + ` writes it from the run's report. Do not edit it.

The conformance suite of CRI, critest, ran against each runtime handler on the same nodes, with the same containerd and
images: krun with containerd's ` + "`shim`" + ` sandboxer (handler ` + "`krun`" + `, the default), krun with the ` +
	"`podsandbox`" + ` sandboxer
(handler ` + "`krun-podsandbox`" + `), and runc to compare with. The nodes are emulated, so that a microVM's specs take several
times what they take on hardware; see [testing.md](testing.md).

`

// markdown is docs/conformance.md.
func (rep report) markdown() string {
	var b strings.Builder
	b.WriteString(head)
	rep.writeTotals(&b)
	rep.writeFailed(&b)
	rep.writeSkipped(&b)
	rep.writeTests(&b, "Differences", rep.differences())
	rep.writeTests(&b, "Every spec", rep.Tests)
	b.WriteString("## How to run it again\n\n    make conformance                      all of it, on two nodes\n" +
		"    hack/conformance krun 'Streaming'     one handler, some specs\n\nThe report is `out/conformance.json`. " +
		"What is left out, and why, stands in `hack/conformance.skip`.\n")
	return b.String()
}

func (rep report) writeTotals(b *strings.Builder) {
	b.WriteString("| handler | passed | failed | skipped | seconds of specs | seconds of the run | nodes |\n|---|---:|---:|---:|---:|---:|---:|\n")
	names := map[string]bool{}
	for _, c := range rep.used() {
		s, _ := rep.total(c)
		r := rep.Runs[c.name]
		fmt.Fprintf(b, "| %s | %d | %d | %d | %.0f | %.0f | %d |\n", c.name, s.passed, s.failed, s.skipped, s.seconds, r.Seconds, r.Nodes)
		for name := range r.Versions {
			names[name] = true
		}
	}
	b.WriteString("\nHandlers of one run share its seconds. What ran:\n\n")
	rep.tableHead(b, "version of")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(b, "| %s |", name)
		for _, c := range rep.used() {
			fmt.Fprintf(b, " %s |", escape(rep.Runs[c.name].Versions[name]))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// tableHead begins a table with a column for each handler.
func (rep report) tableHead(b *strings.Builder, first string) {
	fmt.Fprintf(b, "| %s |", first)
	for _, c := range rep.used() {
		fmt.Fprintf(b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(rep.used())) + "\n")
}

func (rep report) writeFailed(b *strings.Builder) {
	b.WriteString("## Failed\n\n")
	all := rep.reasons("failed")
	if len(all) == 0 {
		b.WriteString("None.\n\n")
		return
	}
	b.WriteString("| spec | handlers | the suite says |\n|---|---|---|\n")
	for _, r := range all {
		fmt.Fprintf(b, "| %s | %s | %s |\n", escape(r.spec), strings.Join(r.columns, ", "), escape(r.why))
	}
	b.WriteString("\n")
}

func (rep report) writeSkipped(b *strings.Builder) {
	b.WriteString("## Skipped\n\n| spec | handlers | by | reason |\n|---|---|---|---|\n")
	for _, r := range rep.reasons("skipped") {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", escape(r.spec), strings.Join(r.columns, ", "), r.by, escape(r.why))
	}
	b.WriteString("\n")
}

func (rep report) writeTests(b *strings.Builder, title string, tests []test) {
	fmt.Fprintf(b, "## %s\n\n", title)
	if len(tests) == 0 {
		b.WriteString("None.\n\n")
		return
	}
	rep.tableHead(b, "spec")
	for _, t := range tests {
		fmt.Fprintf(b, "| %s |", escape(t.Name))
		for _, c := range rep.used() {
			fmt.Fprintf(b, " %s |", t.cell(c))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// escape keeps a text within one cell of a table.
func escape(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "[", `\[`).Replace(text)
}
