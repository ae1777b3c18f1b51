package shim

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"time"
)

// loggerTimeout bounds the start and the end of a logging binary.
const loggerTimeout = 10 * time.Second

// logger is a process that takes a container's output, containerd's "binary" log driver: descriptors 3 and 4 are the
// container's stdout and stderr, 5 is closed (binary) or written to (binary-v2) when it is ready.
type logger struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startLogger(namespace, id string, uri *url.URL) (_ outputs, retErr error) {
	var files []*os.File
	defer func() {
		if retErr != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	pipe := func() (r, w *os.File, err error) {
		if r, w, err = os.Pipe(); err == nil {
			files = append(files, r, w)
		}
		return r, w, err
	}
	outR, outW, err1 := pipe()
	errR, errW, err2 := pipe()
	readyR, readyW, err3 := pipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return outputs{}, fmt.Errorf("log binary: %w", err)
	}
	l := &logger{cmd: exec.Command(uri.Path, loggerArgs(uri)...), done: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), "CONTAINER_ID="+id, "CONTAINER_NAMESPACE="+namespace)
	l.cmd.ExtraFiles = []*os.File{outR, errR, readyW}
	if err := l.cmd.Start(); err != nil {
		return outputs{}, fmt.Errorf("log binary: %w", err)
	}
	go func() {
		_ = l.cmd.Wait() // its status says nothing that the container's owner could act on
		close(l.done)
	}()
	outR.Close()
	errR.Close()
	readyW.Close()
	if err := awaitReady(readyR, uri); err != nil {
		l.stop()
		return outputs{}, err
	}
	readyR.Close()
	return outputs{stdout: outW, stderr: errW, logger: l}, nil
}

// loggerArgs are the query of the URI: each key and its value, in containerd's notation.
func loggerArgs(uri *url.URL) []string {
	var args []string
	for k, vs := range uri.Query() {
		args = append(args, k)
		if len(vs) > 0 && vs[0] != "" {
			args = append(args, vs[0])
		}
	}
	return args
}

func awaitReady(ready *os.File, uri *url.URL) error {
	if err := ready.SetReadDeadline(time.Now().Add(loggerTimeout)); err != nil {
		return fmt.Errorf("log binary %s: %w", uri.Path, err)
	}
	n, err := ready.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("log binary %s was not ready within %v", uri.Path, loggerTimeout)
	}
	if uri.Scheme == "binary-v2" && n == 0 {
		return fmt.Errorf("log binary %s ended before it was ready", uri.Path)
	}
	return nil
}

// stop lets the binary read to the end of its pipes, whose writing ends are closed, and kills it when it does not.
func (l *logger) stop() {
	select {
	case <-l.done:
		return
	case <-time.After(loggerTimeout):
		_ = l.cmd.Process.Kill()
		<-l.done
	}
}
