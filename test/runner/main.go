package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"krun.dev/krunpod/test/nodes"
)

// options are the command line.
type options struct {
	binary string
	nodes  string
	out    string
	run    string
	limit  time.Duration
}

var errFailed = errors.New("the end-to-end tests failed")

func main() {
	log.SetFlags(log.Ltime)
	var o options
	flag.StringVar(&o.binary, "binary", "out/e2e.test", "test binary, built with go test -c")
	flag.StringVar(&o.nodes, "nodes", "1,2", "numbers of the nodes to run on")
	flag.StringVar(&o.out, "out", "out", "directory for the reports")
	flag.StringVar(&o.run, "run", "", "run only the tests that match this regular expression")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "bound of one test")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runAll(ctx, o); err != nil {
		log.Print(err)
		os.Exit(1)
	}
}

func runAll(ctx context.Context, o options) error {
	on, err := nodes.Parse(o.nodes)
	if err != nil {
		return err
	}
	tests, err := listTests(ctx, o)
	if err != nil {
		return err
	}
	var tasks []nodes.Task
	for _, name := range tests {
		tasks = append(tasks, task(o, name))
	}
	began := time.Now()
	results, err := nodes.Run(ctx, tasks, nodes.Options{Nodes: on, Out: o.out})
	err = errors.Join(err, nodes.WriteJUnit(filepath.Join(o.out, "junit-e2e.xml"), suite, results, time.Since(began)))
	fmt.Println(nodes.Summary(results))
	if passed, failed, _ := nodes.Count(results); failed > 0 || passed == 0 {
		err = errors.Join(err, errFailed)
	}
	return err
}
