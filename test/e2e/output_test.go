package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"krun.dev/krunpod/test/testpod"
)

// outputEnv sets the MiB of output of the exactness test; the default is what must hold.
const (
	outputEnv = "KRUNPOD_E2E_OUTPUT_MIB"
	outputMiB = 1024
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
	return outputMiB
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
		if i%4096 == 0 {
			time.Sleep(100 * time.Millisecond) // slowness is the point
		}
	}
}

func TestLongOutputIsExactWithASlowReaderAndSignals(t *testing.T) {
	n := newNode(t)
	mib := outputSize(t)
	// The writer knows its own checksum: it passes the same bytes through sha256sum and to its standard output.
	script := `trap : USR1
mkfifo /tmp/p; sha256sum < /tmp/p > /tmp/sum &
(i=0; while [ $i -lt 16 ]; do head -c 65536 /dev/urandom; i=$((i+1)); done) > /tmp/mib
(i=0; while [ $i -lt ` + strconv.Itoa(mib) + ` ]; do cat /tmp/mib; echo $i; i=$((i+1)); done) | tee /tmp/p
wait; cat /tmp/sum >&2`
	task := n.startTask("long-output", "/bin/sh", "-c", script)
	h := sha256.New()
	var got int64
	done := make(chan error, 1)
	go func() { done <- slowReader(task.stdout, h, &got) }()
	var sum string
	errs := make(chan error, 1)
	go func() {
		f, err := os.Open(task.stderr)
		if err != nil {
			errs <- err
			return
		}
		defer f.Close()
		sum, err = bufio.NewReader(f).ReadString('\n')
		errs <- err
	}()
	task.start()
	stop := task.signalEvery(unix.SIGUSR1, 200*time.Millisecond)
	slowest := task.execsWhile(done)
	stop()
	if err := <-errs; err != nil {
		t.Fatalf("the writer's checksum: %v", err)
	}
	if exit := task.wait(); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	if want, _, _ := strings.Cut(sum, " "); hex.EncodeToString(h.Sum(nil)) != want {
		t.Errorf("%d bytes arrived with sha256 %x, sent was %s", got, h.Sum(nil), want)
	}
	if got < int64(mib)<<20 {
		t.Errorf("%d bytes arrived, fewer than %d MiB", got, mib)
	}
	t.Logf("%d bytes exact; the slowest exec beside them took %v", got, slowest)
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
