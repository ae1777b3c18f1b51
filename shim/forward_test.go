package shim

import (
	"context"
	"testing"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
)

func TestPidsAreTheShimsOwn(t *testing.T) {
	ids := newPIDs()
	p := newProcess("c", "", ids.add("c"), uris{}, &stdio{})
	c := &container{id: "c", init: p, execs: map[string]*process{}}
	for _, exec := range []string{"runs", "waits"} {
		c.addExec(newProcess("c", exec, ids.add("c/"+exec), uris{}, &stdio{}))
	}
	p.setStatus(task.Status_RUNNING)
	c.execs["runs"].setStatus(task.Status_RUNNING)
	s := &service{containers: map[string]*container{"c": c}}
	resp, err := s.Pids(context.Background(), &taskAPI.PidsRequest{ID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	list := resp.Processes
	if len(list) != 2 || list[0].Pid != p.pid || list[0].Info != nil || list[1].Pid != c.execs["runs"].pid {
		t.Fatalf("processes %v", list)
	}
	var details options.ProcessDetails
	if err := typeurl.UnmarshalTo(list[1].Info, &details); err != nil || details.ExecID != "runs" {
		t.Errorf("the exec is %v (%v)", list[1].Info, err)
	}
}
