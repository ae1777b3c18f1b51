package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/agent/api/stream"
	"krun.dev/krunpod/test/testpod"
)

// outputEnv sets the rounds of output, of 938895 bytes each. An emulated node carries about one MiB a second through its
// nested VM, so the default is small there; 1144 make more than 1 GiB.
const (
	outputEnv    = "KRUNPOD_E2E_OUTPUT_ROUNDS"
	outputRounds = 48
	// A pause of the reader is longer than what window and FIFO hold lasts, so that the writer has to wait.
	readerPause = time.Second
	// responsive is what an exec beside the output may take, in an emulated node.
	responsive = 30 * time.Second
)

func outputSize(t *testing.T) int {
	t.Helper()
	if text := os.Getenv(outputEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return outputRounds
}

// slowReader takes what a FIFO brings, pausing often enough that its writer has to wait.
func slowReader(path string, h hash.Hash, read *int64) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	for i := 0; ; i++ {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		*read += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if i%256 == 255 {
			time.Sleep(readerPause) // slowness is the point
		}
	}
}

// lines is about one MiB of text: what seq prints. The guest and the test make it each for themselves.
const lines = 150000

// writeOutput writes what the container's script does: for each round its number, then the lines.
func writeOutput(w io.Writer, rounds int) error {
	var block []byte
	for i := 1; i <= lines; i++ {
		block = strconv.AppendInt(block, int64(i), 10)
		block = append(block, '\n')
	}
	for i := range rounds {
		if _, err := fmt.Fprintln(w, i); err != nil {
			return err
		}
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func TestLongOutputIsExactWithASlowReaderAndSignals(t *testing.T) {
	rounds := outputSize(t)
	n := newNodeFor(t, 8*time.Minute+time.Duration(rounds)*3*time.Second)
	want := sha256.New()
	if err := writeOutput(want, rounds); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("trap : USR1; seq 1 %d > /dev/shm/lines; i=0; while [ $i -lt %d ]; do echo $i; cat /dev/shm/lines; i=$((i+1)); done",
		lines, rounds)
	task := n.startTask("long-output", "/bin/sh", "-c", script)
	h := sha256.New()
	var got int64
	done := make(chan error, 1)
	go func() { done <- slowReader(task.stdout, h, &got) }()
	go func() { _, _ = os.ReadFile(task.stderr) }() // sh says nothing; the FIFO wants a reader all the same
	began := time.Now()
	task.start()
	stop := task.signalEvery(unix.SIGUSR1, time.Second)
	slowest := task.execsWhile(done)
	stop()
	took := time.Since(began)
	if exit := task.wait(); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	if !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes arrived with sha256 %x, sent was %x", got, h.Sum(nil), want.Sum(nil))
	}
	if slowest > responsive {
		t.Errorf("an exec beside the output took %v", slowest)
	}
	t.Logf("%d bytes exact in %v; the slowest exec beside them took %v", got, took, slowest)
}

// idleReader is how long the reader of TestExitIsToldAfterTheLastByte takes nothing: the process has ended meanwhile, and it is
// less than the ten seconds after which a reader counts as gone (docs/architecture.md).
const idleReader = 5 * time.Second

// TestExitIsToldAfterTheLastByte: the process writes what the FIFO and the stream's window hold together, so that it ends while
// most of that has not reached the FIFO yet.
func TestExitIsToldAfterTheLastByte(t *testing.T) {
	const fifo, size = 64 << 10, 64<<10 + stream.Window
	n := newNode(t)
	task := n.startTask("last-byte", "/bin/sh", "-c", fmt.Sprintf("head -c %d /dev/zero", size))
	go func() { _, _ = os.ReadFile(task.stderr) }()
	task.start()
	out, err := os.Open(task.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case st := <-task.exit:
		t.Fatalf("exit code %d was told while at least %d bytes of output had not been handed on", st.ExitCode(), size-fifo-1)
	case <-time.After(idleReader):
	}
	rest := make(chan int64, 1)
	go func() {
		read, _ := io.Copy(io.Discard, out)
		rest <- read
	}()
	if exit := task.wait(); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	if read := <-rest; read != size-1 {
		t.Errorf("%d bytes came after the first, want %d", read, size-1)
	}
}

func TestStdinReachesAnExecWholeAndEnds(t *testing.T) {
	n := newNode(t)
	p := n.pod()
	k := n.container(p, testpod.ContainerConfig("main", "exec sleep 1000"))
	task := n.adopt(k.ID)
	in := strings.Repeat("0123456789abcdef", 1<<16)
	ctx, cancel := context.WithTimeout(n.ctx, patience)
	defer cancel()
	out, exit := task.exec(ctx, in, "sha256sum")
	want := sha256.Sum256([]byte(in))
	if exit != 0 || !strings.HasPrefix(out, hex.EncodeToString(want[:])) {
		t.Errorf("exit %d, the exec says %q, sent was %x", exit, out, want)
	}
}
