package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"krun.dev/krunpod/test/netlab"
)

func TestTheRuntimesMonitorHasATimerSlack(t *testing.T) {
	c := start(t, nil)
	c.report()
	slack := map[string]bool{}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", c.cmd.Process.Pid))
	netlab.Must(t, err)
	for _, thread := range threads {
		text, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		netlab.Must(t, err)
		slack[strings.TrimSpace(string(text))] = true
	}
	if !slack[monitorSlack] || len(slack) != 2 {
		t.Errorf("the slack of its %d threads is %v: one has %s, the others the usual one", len(threads), slack, monitorSlack)
	}
}
