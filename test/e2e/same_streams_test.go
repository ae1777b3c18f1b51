package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"krun.dev/krunpod/test/testpod"
)

// sizes waits for the size of a terminal and then for another, and ends with what is typed. As long as there is no size,
// stty says so.
const sizes = `until [ "$(stty size 2>/dev/null)" = "33 101" ]; do sleep 0.2; done; echo first
until [ "$(stty size 2>/dev/null)" = "44 99" ]; do sleep 0.2; done; echo second
read code; exit "$code"`

// What a client sees of an exec and of an attach through CRI's streaming server, and what becomes of them when it vanishes.
func TestSameStreams(t *testing.T) {
	compareWithRunc(t, "streams", 20, func(s *side) {
		p := s.startPod()
		k := s.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
		s.name(k.ID, "CONTAINER")
		s.lookAtExecStreams(k)
		s.lookAtExecTerminal(k)
		s.lookAtVanishing(k)
		s.lookAtAttach(p)
		s.lookAtAttachTerminal(p)
	}, "krun", "krun-podsandbox")
}

// stream opens a stream, lets f use it, and records what it said and how it ended.
func (s *side) stream(key string, open func(context.Context) (*testpod.Stream, error), f func(context.Context, *testpod.Stream) error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	st, err := open(ctx)
	if err != nil {
		s.Fatalf("%s: %v", key, err)
	}
	defer st.Vanish()
	if err := f(ctx, st); err != nil {
		s.Errorf("under %s: %s: %v", s.handler, key, err)
		return
	}
	out, errs := st.Output()
	s.see(key+"/stdout", out)
	s.see(key+"/stderr", errs)
}

// end waits for the end of the command, which the status tells.
func (s *side) end(ctx context.Context, key string, st *testpod.Stream) error {
	status, err := st.End(ctx)
	s.see(key+"/status", status)
	return err
}

func (s *side) lookAtExecStreams(k *testpod.Container) {
	s.Helper()
	exec := func(args ...string) func(context.Context) (*testpod.Stream, error) {
		return func(ctx context.Context) (*testpod.Stream, error) { return k.ExecStream(ctx, false, args...) }
	}
	s.stream("exec", exec("sh", "-c", `read a; echo "got $a"; echo err >&2; exit 3`), func(ctx context.Context, st *testpod.Stream) error {
		if _, err := st.Write([]byte("typed\n")); err != nil {
			return err
		}
		return s.end(ctx, "exec", st)
	})
	s.stream("exec-success", exec("true"), func(ctx context.Context, st *testpod.Stream) error { return s.end(ctx, "exec-success", st) })
	s.stream("exec-missing", exec("/no/such/command"), func(ctx context.Context, st *testpod.Stream) error {
		status, err := st.End(ctx)
		s.see("exec-missing/status", status[lastColon(status):]) // before it are the callers
		return err
	})
	const size, part = 1 << 20, 1 << 15
	s.stream("exec-much", exec("sh", "-c", fmt.Sprintf("head -c %d | md5sum", size)), func(ctx context.Context, st *testpod.Stream) error {
		data := []byte(strings.Repeat("0123456789abcde\n", part/16))
		for range size / part {
			if _, err := st.Write(data); err != nil {
				return err
			}
		}
		return s.end(ctx, "exec-much", st)
	})
}

// resized has a client's terminal of one size and then of another.
func resized(ctx context.Context, st *testpod.Stream) error {
	if err := st.Resize(101, 33); err != nil {
		return err
	}
	if err := st.WaitFor(ctx, "first"); err != nil {
		return err
	}
	if err := st.Resize(99, 44); err != nil {
		return err
	}
	return st.WaitFor(ctx, "second")
}

func (s *side) lookAtExecTerminal(k *testpod.Container) {
	s.Helper()
	open := func(ctx context.Context) (*testpod.Stream, error) { return k.ExecStream(ctx, true, "sh", "-c", sizes) }
	s.stream("terminal", open, func(ctx context.Context, st *testpod.Stream) error {
		if err := resized(ctx, st); err != nil {
			return err
		}
		if _, err := st.Write([]byte("6\n")); err != nil {
			return err
		}
		return s.end(ctx, "terminal", st)
	})
}

// vanishing are commands whose client goes away, each with the number that its processes have in their arguments.
var vanishing = []struct {
	number, script string
	tty            bool
}{
	{"4321", "echo up; exec sleep 4321", false},
	{"4322", "echo up; cat; exec sleep 4322", false}, // it reads what the client closes
	{"4323", "echo up; exec sleep 4323", true},
	{"4324", "sleep 4324 & echo up; wait", false}, // its child is not its own
}

// A command whose client vanishes is ended, for nobody would take what it says.
func (s *side) lookAtVanishing(k *testpod.Container) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	for _, v := range vanishing {
		st, err := k.ExecStream(ctx, v.tty, "sh", "-c", v.script)
		if err != nil {
			s.Fatalf("%s: %v", v.script, err)
		}
		err = st.WaitFor(ctx, "up")
		st.Vanish()
		if err != nil {
			s.Errorf("under %s: %s: %v", s.handler, v.script, err)
		}
	}
	const list = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep '[4]32[1-4]' | sort"
	var left string
	err := testpod.Poll(ctx, "commands whose clients vanished go on", func() (_ bool, err error) {
		left, _, _, err = k.Exec(ctx, list)
		return left == "sleep 4324 \n", err
	})
	if err != nil {
		s.Errorf("under %s: %v: %s", s.handler, err, left)
	}
	s.see("vanished/left", left)
}

func (s *side) lookAtAttach(p *testpod.Pod) {
	s.Helper()
	for _, once := range []bool{false, true} {
		name := fmt.Sprint("attach-once-", once)
		config := testpod.ContainerConfig(name, `while read a; do echo "got $a"; done; echo closed; exec sleep 1000`)
		config.Stdin, config.StdinOnce = true, once
		k := s.container(p, config)
		s.name(k.ID, "CONTAINER")
		open := func(ctx context.Context) (*testpod.Stream, error) { return k.AttachStream(ctx, false) }
		say := func(text string) func(context.Context, *testpod.Stream) error {
			return func(ctx context.Context, st *testpod.Stream) error {
				if _, err := st.Write([]byte(text + "\n")); err != nil {
					return err
				}
				return st.WaitFor(ctx, "got "+text)
			}
		}
		s.stream(name+"/first", open, say("one"))
		if once {
			s.waitLog(k, "closed\n")
		} else {
			s.stream(name+"/second", open, say("two"))
			s.waitLog(k, "got two\n") // the client may have had it first
		}
		out, errs, err := k.Log()
		s.see(name+"/log", fmt.Sprint(out, "/", errs, "/", err))
	}
}

func (s *side) lookAtAttachTerminal(p *testpod.Pod) {
	s.Helper()
	config := testpod.ContainerConfig("attach-terminal", sizes)
	config.Tty, config.Stdin = true, true
	k := s.container(p, config)
	s.name(k.ID, "CONTAINER")
	open := func(ctx context.Context) (*testpod.Stream, error) { return k.AttachStream(ctx, true) }
	s.stream("attach-terminal", open, func(ctx context.Context, st *testpod.Stream) error {
		if err := resized(ctx, st); err != nil {
			return err
		}
		if _, err := st.Write([]byte("6\n")); err != nil {
			return err
		}
		return s.end(ctx, "attach-terminal", st)
	})
	s.see("attach-terminal/exit", fmt.Sprint(s.waitExit(k).ExitCode))
	out, _, err := k.Log()
	s.see("attach-terminal/log", fmt.Sprint(out, "/", err))
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	_, err = s.cri.Runtime.Attach(ctx, &runtime.AttachRequest{ContainerId: k.ID, Stdin: true, Stdout: true, Tty: true})
	s.seeError("attach-to-the-ended/error", err)
}
