package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
)

// report is demo.json: what was seen. Times are in milliseconds.
type report struct {
	HostKernel    string   `json:"hostKernel"`
	PodKernel     string   `json:"podKernel"`
	PodIP         string   `json:"podIP"`
	LogOfWeb      string   `json:"logOfWeb"`
	LogOfClient   string   `json:"logOfClient"`
	OverLocalhost string   `json:"overLocalhost"`
	OverNetwork   string   `json:"overNetwork"`
	FromNode      string   `json:"fromNode"`
	Stages        []stage  `json:"stages"`
	Boot          []stage  `json:"bootTimeline"`
	Leftovers     []string `json:"leftovers"`
	Problems      []string `json:"problems"`
}

type stage struct {
	Name         string  `json:"name"`
	Milliseconds float64 `json:"ms"`
}

// newReport has lists that are written as such when nothing comes into them.
func newReport() report {
	return report{Stages: []stage{}, Boot: []stage{}, Leftovers: []string{}, Problems: []string{}}
}

const (
	webSays    = "hello-from-web"
	webLogs    = "web: serving\n"
	clientLogs = "client: ready\n"
)

// pings is the line with which busybox's ping ends.
var pings = regexp.MustCompile(`(\d+) packets transmitted, (\d+) packets received`)

func received(ping string) string { return pings.FindString(ping) }

// judge says what was not as the demo promises, of what was seen.
func (r *report) judge() (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if r.PodKernel == "" || r.PodKernel == r.HostKernel {
		wrong("the pod's kernel is %q, the host's %q", r.PodKernel, r.HostKernel)
	}
	if net.ParseIP(r.PodIP) == nil {
		wrong("the pod's IP is %q", r.PodIP)
	}
	for _, text := range []struct{ what, got, want string }{
		{"the log of web", r.LogOfWeb, webLogs},
		{"the log of client", r.LogOfClient, clientLogs},
		{"the answer over localhost", r.OverLocalhost, webSays},
		{"the answer to the node", r.FromNode, webSays},
	} {
		if text.got != text.want {
			wrong("%s is %q, not %q", text.what, text.got, text.want)
		}
	}
	if n := pings.FindStringSubmatch(r.OverNetwork); n == nil || n[1] != "1" || n[2] != "1" {
		wrong("the client's one ping of the node came to %q", r.OverNetwork)
	}
	if len(r.Boot) == 0 {
		wrong("there is no boot timeline")
	}
	if len(r.Leftovers) > 0 {
		wrong("the pod left %q", r.Leftovers)
	}
	return problems
}

func (r *report) write(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
