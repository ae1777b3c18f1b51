package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"krun.dev/krunpod/test/nodes"
)

// options are the command line.
type options struct {
	nodes     string
	out       string
	skips     string
	docs      string
	recorded  string
	writeDocs bool
}

var errFailed = errors.New("the conformance suite failed")

func main() {
	log.SetFlags(log.Ltime)
	var o options
	flag.StringVar(&o.nodes, "nodes", "1,2", "numbers of the nodes to run on")
	flag.StringVar(&o.out, "out", "out", "directory for the reports")
	flag.StringVar(&o.skips, "skips", "hack/conformance.skip", "the specs that are left out, with reasons")
	flag.StringVar(&o.recorded, "recorded", "test/conformance/report.json", "the report that the documentation is made of: what passed there must run, and its seconds order the run")
	flag.StringVar(&o.docs, "docs", "docs/conformance.md", "the documentation")
	flag.BoolVar(&o.writeDocs, "write-docs", false, "run nothing: record the report, in which no column may have gaps, and write the documentation from it")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: conformance [FLAG...] HANDLER[=REGEXP]...\n\nRun critest against runtime handlers on the test nodes, and compare.")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return o.run(ctx, flag.Args()) }
	if o.writeDocs {
		run = o.document
	}
	if err := run(); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func (o options) reportPath() string { return filepath.Join(o.out, "conformance.json") }

// run runs the suite and writes the reports.
func (o options) run(ctx context.Context, args []string) error {
	on, err := nodes.Parse(o.nodes)
	if err != nil {
		return err
	}
	selections, err := parseSelections(args)
	if err != nil {
		return err
	}
	skips, err := readSkips(o.skips)
	if err != nil {
		return err
	}
	recorded, err := readReport(o.recorded)
	if err != nil {
		return err
	}
	last, err := readReport(o.reportPath())
	if err != nil {
		return err
	}
	where := nodes.Options{Nodes: on, Prepare: []string{"--suite"}, Out: o.out}
	if err := on[0].Prepare(ctx, where.Prepare...); err != nil {
		return err
	}
	versions, err := o.versions(ctx, on[0])
	if err != nil {
		return err
	}
	specs, err := listSpecs(ctx, on[0])
	if err != nil {
		return err
	}
	if err := unused(skips, specs); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.out, "conformance"), 0o755); err != nil {
		return err
	}
	tasks, results := o.plan(selections, specs, skips, recorded.seconds())
	began := time.Now()
	ran, err := nodes.Run(ctx, tasks, where)
	results = append(results, ran...)
	took := time.Since(began)
	this := run{Versions: versions, Nodes: len(on), Seconds: math.Round(took.Seconds())}
	rep := last.add(this, results, skips)
	err = errors.Join(err, recorded.lost(selections, results), rep.write(o.reportPath()), o.writeJUnit(selections, results, took))
	rep.show(os.Stdout)
	warnOfTime(selections, results, took)
	fmt.Println(nodes.Summary(results))
	if passed, failed, _ := nodes.Count(results); failed > 0 || passed == 0 {
		err = errors.Join(err, errFailed)
	}
	return err
}

func (o options) writeJUnit(selections []selection, results []nodes.Result, took time.Duration) error {
	var errs []error
	for _, s := range selections {
		own := slices.DeleteFunc(slices.Clone(results), func(r nodes.Result) bool { return r.Suite != s.handler })
		path := filepath.Join(o.out, "junit-conformance-"+s.handler+".xml")
		errs = append(errs, nodes.WriteJUnit(path, "conformance-"+s.handler, own, took))
	}
	return errors.Join(errs...)
}

func parseSelections(args []string) ([]selection, error) {
	var all []selection
	for _, arg := range args {
		handler, focus, _ := strings.Cut(arg, "=")
		known := slices.ContainsFunc(columns, func(c column) bool { return c.handler == handler })
		twice := slices.ContainsFunc(all, func(s selection) bool { return s.handler == handler })
		if !known || twice {
			return nil, fmt.Errorf("handler %q: want krun, krun-podsandbox or runc, each once", handler)
		}
		re, err := regexp.Compile(focus)
		if err != nil {
			return nil, fmt.Errorf("handler %s: %w", handler, err)
		}
		all = append(all, selection{handler, re})
	}
	if len(all) == 0 {
		return nil, errors.New("no handler is named: want krun, krun-podsandbox or runc")
	}
	return all, nil
}

// document makes the report the recorded one. Each column must be of a whole run.
func (o options) document() error {
	rep, err := readReport(o.reportPath())
	if err != nil {
		return err
	}
	if err := rep.whole(); err != nil {
		return fmt.Errorf("%s: %w: run hack/conformance, or hack/conformance HANDLER", o.reportPath(), err)
	}
	return errors.Join(rep.write(o.recorded), os.WriteFile(o.docs, []byte(rep.markdown()), 0o644))
}

// whole says which verdict is missing, if one is.
func (rep report) whole() error {
	if len(rep.Tests) == 0 {
		return errors.New("it has no test")
	}
	for _, t := range rep.Tests {
		for _, c := range columns {
			if _, ok := t.Verdicts[c.name]; !ok {
				return fmt.Errorf("%s was not run for %s", t.Name, c.name)
			}
		}
	}
	return nil
}
