package sandbox

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"

	"krun.dev/krunpod/vnet"
)

func TestLinesAreWholeAndBounded(t *testing.T) {
	var got []string
	var failure error
	l := &lines{each: func(line []byte) error {
		got = append(got, string(line))
		if string(line) == "bad" {
			return errors.New("bad line")
		}
		return nil
	}, failed: func(err error) { failure = err }}
	for _, p := range []string{"a", "b\nc\n\nd", "\n"} {
		if n, err := l.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if strings.Join(got, ",") != "ab,c,,d" || failure != nil {
		t.Errorf("%q, %v", got, failure)
	}
	if _, err := l.Write(make([]byte, vnet.MaxReport+1)); !errors.Is(err, errLongLine) || !errors.Is(failure, errLongLine) {
		t.Errorf("a line without an end: %v, %v", err, failure)
	}
	l.rest = nil
	if _, err := l.Write([]byte("bad\n")); err == nil || failure.Error() != "bad line" {
		t.Errorf("a line that is refused: %v, %v", err, failure)
	}
}

// What the process says is kept as far as it is a report; otherwise the process is killed, and the cause tells.
func TestReportsAreKeptAndAProcessThatSaysOtherThingsIsKilled(t *testing.T) {
	d := dir(t.TempDir())
	v := &vnetProcess{cmd: exec.Command("cat"), carries: make(chan struct{}), done: make(chan struct{})}
	out := &lines{each: v.reports(d.traffic()), failed: v.fail}
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	v.cmd.Stdout = out
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTraffic(string(d)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the first report: %v", err)
	}
	say := func(text string) {
		t.Helper()
		if _, err := stdin.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	say(`{"links": [{"interface": "eth0", "connections": 7}]}` + "\n")
	<-v.carries
	say("hello\n")
	v.err = v.cmd.Wait()
	close(v.done)
	if r, err := LoadTraffic(string(d)); err != nil || r.Links[0].Connections != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := v.waitCarries(t.Context()); err != nil && !strings.Contains(err.Error(), "vnet report") {
		t.Error(err)
	}
	if cause := v.cause().Error(); !strings.Contains(cause, "killed") || !strings.Contains(cause, "vnet report: invalid character") {
		t.Errorf("the cause is %s", cause)
	}
	if _, err := os.Stat(d.traffic() + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a half written report: %v", err)
	}
}

// Names that the guest may not know are logged as they are told of, and what is left out is counted.
func TestWordsThatAreLeftOutAreCounted(t *testing.T) {
	var out bytes.Buffer
	before := log.L.Logger.Out
	log.L.Logger.SetOutput(&out)
	defer log.L.Logger.SetOutput(before)
	say := (&vnetProcess{}).words("sandbox")
	line := []byte(`{"msg": "not known", "name": "evil.example", "untold": 3}`)
	for range wordsBurst + 7 {
		if err := say(line); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "evil.example"); n != wordsBurst || !strings.Contains(out.String(), "otherNames=3") {
		t.Errorf("%d lines: %s", n, out.String())
	}
	out.Reset()
	time.Sleep(1100 * time.Millisecond) // the next one's time
	if err := say(line); err != nil || !strings.Contains(out.String(), "linesLeftOut=7") {
		t.Errorf("%s, %v", out.String(), err)
	}
}

// FuzzLines writes what a process says in parts of any size: the lines are what stands between the ends, in order, and no more is kept
// than the rest of one. Each goes to what reads it.
func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"links": [{"interface": "eth0"}]}`+"\n"+`{"msg": "x", "name": "evil", "untold": 3}`+"\n\nrest"), uint16(7))
	f.Add([]byte("\n\n"), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		v := &vnetProcess{}
		say := v.words("fuzz")
		var got []byte
		l := &lines{each: func(line []byte) error {
			got = append(append(got, line...), '\n')
			_, _ = vnet.ReadReport(line)
			return say(line)
		}, failed: func(err error) { t.Fatal(err) }}
		if len(data) > vnet.MaxReport {
			return
		}
		for rest := data; len(rest) > 0; {
			part := rest[:min(len(rest), int(size)+1)]
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
			rest = rest[len(part):]
		}
		if !bytes.Equal(append(got, l.rest...), data) {
			t.Errorf("%q and a rest of %q came of %q", got, l.rest, data)
		}
	})
}
