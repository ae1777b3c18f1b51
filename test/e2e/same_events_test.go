package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	eventsAPI "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"krun.dev/krunpod/test/testpod"
)

// What containerd publishes of a pod's life, in which order and with which fields.
func TestSameEvents(t *testing.T) {
	compareWithRunc(t, "events", 20, func(s *side) {
		ended := s.listen()
		p := s.startPod()
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		k, err := p.Run(ctx, testpod.ContainerConfig("main", "exec sleep 1000"))
		if err != nil {
			s.Fatal(err)
		}
		s.name(k.ID, "CONTAINER")
		s.exec(k, "exit 0")
		for _, err := range []error{k.Stop(ctx, 0), k.Remove(ctx), p.Remove(ctx)} {
			if err != nil {
				s.Error(err)
			}
		}
		s.seeEvents(ended(), k.ID)
	}, "krun", "krun-podsandbox")
}

// What containerd publishes of a container that the kernel ends for want of memory. The end and its cause come by
// different ways, so their order is none.
func TestSameOOMEvents(t *testing.T) {
	compareWithRunc(t, "oom-events", 10, func(s *side) {
		p := s.startPod()
		ended := s.listen()
		config := testpod.ContainerConfig("greedy", "exec dd if=/dev/zero of=/dev/null bs=200M count=1")
		memoryLimit(config)
		k := s.container(p, config)
		s.name(k.ID, "CONTAINER")
		st := s.waitExit(k)
		s.see("end", fmt.Sprint(st.ExitCode, " ", st.Reason))
		all := ended()
		slices.SortStableFunc(all, func(a, b *events.Envelope) int { return strings.Compare(a.Topic, b.Topic) })
		s.seeEvents(all, k.ID)
	}, "krun", "krun-podsandbox")
}

// listen gathers containerd's events until the function it returns is called.
func (s *side) listen() func() []*events.Envelope {
	s.Helper()
	client, err := containerd.New(testpod.Address())
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(namespaces.WithNamespace(s.ctx, "k8s.io"))
	ch, _ := client.Subscribe(ctx, `topic~="/tasks/"`)
	done := make(chan []*events.Envelope)
	go func() {
		var all []*events.Envelope
		for {
			select {
			case e := <-ch:
				all = append(all, e)
			case <-ctx.Done():
				done <- all
				return
			}
		}
	}()
	return func() []*events.Envelope {
		time.Sleep(time.Second) // the last ones are on their way
		cancel()
		all := <-done
		client.Close()
		return all
	}
}

// seeEvents records each event of a container under its number, and all topics of the pod's own.
func (s *side) seeEvents(all []*events.Envelope, container string) {
	s.Helper()
	var order []string
	for _, e := range all {
		v, err := typeurl.UnmarshalAny(e.Event)
		if err != nil {
			s.Fatal(err)
		}
		m := v.(proto.Message)
		whose := "POD"
		if strings.Contains(fmt.Sprint(m), container) {
			whose = "CONTAINER"
		}
		order = append(order, whose+e.Topic)
		if whose == "CONTAINER" {
			s.seeMessage(e.Topic+processOf(m), withoutPIDs(m))
		}
	}
	s.see("order", strings.Join(only("CONTAINER", order), " "))
	s.see("order-of-the-pod", strings.Join(only("POD", order), " "))
}

func only(prefix string, list []string) (out []string) {
	for _, l := range list {
		if rest, ok := strings.CutPrefix(l, prefix); ok {
			out = append(out, rest)
		}
	}
	return out
}

// processOf tells an exec's exit from its container's.
func processOf(m proto.Message) string {
	if e, ok := m.(*eventsAPI.TaskExit); ok && e.ID != e.ContainerID {
		return "-of-exec"
	}
	return ""
}

// withoutPIDs sets what differs in each run to a constant, if it is there.
func withoutPIDs(m proto.Message) proto.Message {
	some := func(pid *uint32, exec *string) {
		if *pid != 0 {
			*pid = 1
		}
		if exec != nil && *exec != "" {
			*exec = "EXEC"
		}
	}
	switch e := m.(type) {
	case *eventsAPI.TaskCreate:
		some(&e.Pid, nil)
		for _, r := range e.Rootfs {
			r.Options = nil // the snapshots' directories
		}
		for _, path := range []*string{&e.IO.Stdin, &e.IO.Stdout, &e.IO.Stderr} {
			if *path != "" {
				*path = "a path"
			}
		}
	case *eventsAPI.TaskStart:
		some(&e.Pid, nil)
	case *eventsAPI.TaskExecAdded:
		e.ExecID = "EXEC"
	case *eventsAPI.TaskExecStarted:
		some(&e.Pid, &e.ExecID)
	case *eventsAPI.TaskExit:
		some(&e.Pid, nil)
		if e.ID != e.ContainerID {
			e.ID = "EXEC"
		}
	case *eventsAPI.TaskDelete:
		some(&e.Pid, nil)
		if e.ID != e.ContainerID && e.ID != "" {
			e.ID = "EXEC"
		}
	}
	return m
}
