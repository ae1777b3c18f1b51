package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// asPromised is a report without a fault.
func asPromised() report {
	r := newReport()
	r.HostKernel, r.PodKernel, r.PodIP = "6.1.0", "6.12.91", "10.89.1.2"
	r.LogOfWeb, r.LogOfClient, r.OverLocalhost, r.FromNode = webLogs, clientLogs, webSays, webSays
	r.OverNetwork = "PING 10.89.1.1 (10.89.1.1): 56 data bytes\n\n--- 10.89.1.1 ping statistics ---\n" +
		"1 packets transmitted, 1 packets received, 0% packet loss\nround-trip min/avg/max = 2.1/2.1/2.1 ms"
	r.Boot = []stage{{"shim ready", 1}}
	return r
}

func TestEachBrokenPromiseIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*report)
		want  string
	}{
		"none":              {func(*report) {}, ""},
		"the host's kernel": {func(r *report) { r.PodKernel = r.HostKernel }, "kernel"},
		"no kernel":         {func(r *report) { r.PodKernel = "" }, "kernel"},
		"no address":        {func(r *report) { r.PodIP = "" }, "IP"},
		"a log of another":  {func(r *report) { r.LogOfWeb = clientLogs }, "log of web"},
		"a log twice":       {func(r *report) { r.LogOfClient += clientLogs }, "log of client"},
		"another server":    {func(r *report) { r.OverLocalhost = "404" }, "localhost"},
		"not from the node": {func(r *report) { r.FromNode = "" }, "to the node"},
		"a lost ping": {func(r *report) {
			r.OverNetwork = strings.ReplaceAll(r.OverNetwork, "1 packets received", "0 packets received")
		}, "ping"},
		"no ping":     {func(r *report) { r.OverNetwork = "" }, "ping"},
		"no timeline": {func(r *report) { r.Boot = nil }, "timeline"},
		"a leftover":  {func(r *report) { r.Leftovers = []string{"mount /x tmpfs"} }, "mount /x tmpfs"},
	} {
		r := asPromised()
		tc.spoil(&r)
		got := strings.Join(r.judge(), "; ")
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: judged as %q, want %q in it", name, got, tc.want)
		}
	}
}

func TestNothingIsAnEmptyList(t *testing.T) {
	file := filepath.Join(t.TempDir(), "demo.json")
	r := newReport()
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []string{"stages", "bootTimeline", "leftovers", "problems"} {
		if !strings.Contains(string(data), `"`+list+`": []`) {
			t.Errorf("%s of an empty report is no empty list:\n%s", list, data)
		}
	}
}
