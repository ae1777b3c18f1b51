package e2e

import (
	"context"
	"fmt"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// execs are scripts of which the exit code, the output and the errors are compared.
var execs = map[string][]string{
	"exit-0": {"true"}, "exit-2": {"sh", "-c", "exit 2"}, "exit-126": {"sh", "-c", "exit 126"}, "exit-255": {"sh", "-c", "exit 255"},
	"signal-KILL": {"sh", "-c", "kill -KILL $$"}, "signal-SEGV": {"sh", "-c", "kill -SEGV $$"},
	"missing": {"/no/such/command"}, "missing-in-path": {"no-such-command"}, "not-executable": {"/etc/passwd"},
	"background": {"sh", "-c", "sleep 3 >/dev/null 2>&1 & echo done"}, "no-newline": {"printf", `o\001\377`},
	"streams": {"sh", "-c", "echo out; echo err >&2"}, "no-stdin": {"cat"}, "long": {"sh", "-c", "seq 1 20000 | md5sum; seq 1 20000"},
}

// What comes of an exec.
func TestSameExecs(t *testing.T) {
	compareWithRunc(t, "exec", 50, func(s *side) {
		p := s.startPod()
		k := s.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
		s.name(k.ID, "CONTAINER")
		for name, args := range execs {
			s.lookAtExec(name, &runtime.ExecSyncRequest{ContainerId: k.ID, Cmd: args, Timeout: 60})
		}
		s.lookAtExec("timeout", &runtime.ExecSyncRequest{ContainerId: k.ID, Cmd: []string{"sleep", "1000"}, Timeout: 1})
		s.lookAtExec("nowhere", &runtime.ExecSyncRequest{ContainerId: "none", Cmd: []string{"true"}})
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		defer cancel()
		out, _, _, err := k.Exec(ctx, "for p in /proc/[0-9]*/comm; do cat $p; done | grep -c sleep")
		s.see("left-after-the-timeout", fmt.Sprint(out, err))
	}, "krun")
}

func (s *side) lookAtExec(name string, r *runtime.ExecSyncRequest) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	resp, err := s.cri.Runtime.ExecSync(ctx, r)
	s.seeError(name+"/error", err)
	s.see(name+"/exit", fmt.Sprint(resp.GetExitCode()))
	s.see(name+"/stdout", string(resp.GetStdout()))
	s.see(name+"/stderr", string(resp.GetStderr()))
}
