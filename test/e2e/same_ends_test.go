package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// ending is a container that comes to its end in one way.
type ending struct {
	name, script string
	change       func(*runtime.ContainerConfig)
	// stop is the grace period in seconds that the test gives it, once it says ready; 0 lets it end by itself.
	stop int64
}

var endings = []ending{
	{name: "exit-0", script: "exit 0"},
	{name: "exit-255", script: "exit 255"},
	{name: "signal-TERM", script: "kill -TERM $$"},
	{name: "signal-KILL", script: "kill -KILL $$"},
	{name: "signal-SEGV", script: "kill -SEGV $$"},
	{name: "missing", change: command("/no/such/command")},
	{name: "not-executable", change: command("/etc/passwd")},
	{name: "directory", change: command("/etc")},
	{name: "cwd-is-a-file", change: func(c *runtime.ContainerConfig) { c.WorkingDir = "/etc/passwd" }},
	{name: "unknown-user", change: func(c *runtime.ContainerConfig) { c.Linux.SecurityContext.RunAsUsername = "nobody-knows" }},
	{name: "oom", script: "exec dd if=/dev/zero of=/dev/null bs=200M count=1", change: memoryLimit},
	{name: "oom-of-a-child", script: "dd if=/dev/zero of=/dev/null bs=200M count=1; echo child ended with $?; sleep 1; exit 3", change: memoryLimit},
	{name: "stop-polite", script: "trap 'exit 5' TERM; sleep 1000 & echo ready; wait", stop: 60},
	{name: "stop-deaf", script: "trap '' TERM; echo ready; exec sleep 1000", stop: 1},
	{name: "stop-signal", script: "trap 'exit 6' USR1; sleep 1000 & echo ready; wait", stop: 60,
		change: func(c *runtime.ContainerConfig) { c.StopSignal = runtime.Signal_SIGNAL_SIGUSR1 }},
}

func command(args ...string) func(*runtime.ContainerConfig) {
	return func(c *runtime.ContainerConfig) { c.Command = args }
}

func memoryLimit(c *runtime.ContainerConfig) {
	c.Linux.Resources = &runtime.LinuxContainerResources{MemoryLimitInBytes: 32 << 20}
}

// How containers end, and how CRI tells it. They share a PID namespace, in which none is the first process: that one
// would be spared its own signals.
func TestSameEnds(t *testing.T) {
	compareWithRunc(t, "ends", 150, func(s *side) {
		p := s.startPod(sharedPIDs)
		for _, e := range endings {
			config := testpod.ContainerConfig(e.name, e.script)
			config.Linux.SecurityContext.NamespaceOptions.Pid = runtime.NamespaceMode_POD
			if e.change != nil {
				e.change(config)
			}
			s.lookAtEnd(p, e, config)
		}
	}, "krun")
}

func sharedPIDs(c *runtime.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = runtime.NamespaceMode_POD
}

func (s *side) lookAtEnd(p *testpod.Pod, e ending, config *runtime.ContainerConfig) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	k, err := p.Create(ctx, config)
	s.seeError(e.name+"/create", err)
	if err != nil {
		return
	}
	s.name(k.ID, "CONTAINER")
	s.seeError(e.name+"/start", k.Start(ctx))
	if e.stop > 0 {
		s.waitLog(k, "ready")
		began := time.Now()
		s.seeError(e.name+"/stop", k.Stop(ctx, e.stop))
		s.see(e.name+"/within-grace", fmt.Sprint(time.Since(began) < time.Duration(e.stop)*time.Second))
	}
	s.waitExit(k)
	time.Sleep(200 * time.Millisecond) // runc's shim tells of a lack of memory a moment later
	st, err := k.Status(ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.see(e.name+"/created-before-its-end", fmt.Sprint(st.CreatedAt < st.FinishedAt))
	if st.Message != "" {
		st.Message = st.Message[lastColon(st.Message):]
	}
	s.seeMessage(e.name+"/status", st)
	out, errs, err := k.Log()
	s.see(e.name+"/log", fmt.Sprint(out, errs, err))
	_, _, _, err = k.Exec(ctx, "true")
	s.seeError(e.name+"/exec-after", err)
	s.seeError(e.name+"/remove", k.Remove(ctx))
}
