package sandbox

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// consoleSize bounds each of the two files that hold a guest's console, in bytes.
	consoleSize = 128 << 10
	// consoleRate is what a guest may write in the long run, in bytes a second. A guest that writes more waits for
	// its own console (libkrun's console has a thread of its own) and costs the host no more than this.
	consoleRate = 64 << 10
)

// console keeps the last output of the guest's kernel and agent on disk: path and path.1.
type console struct {
	path string
	file *os.File
	size int
	rate *rate.Limiter
	// closing ends the wait for the rate when the VM is to go.
	closing context.Context
	close   context.CancelFunc
	last    tail
}

func newConsole(path string) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("console log: %w", err)
	}
	c := &console{path: path, file: f, rate: rate.NewLimiter(consoleRate, 4*consoleRate)}
	c.closing, c.close = context.WithCancel(context.Background())
	return c, nil
}

// Write implements io.Writer. It never fails: a console that cannot be kept must not stop the VM.
func (c *console) Write(p []byte) (int, error) {
	_ = c.rate.WaitN(c.closing, min(len(p), c.rate.Burst()))
	_, _ = c.last.Write(p)
	if c.size+len(p) > consoleSize {
		c.rotate()
	}
	n, _ := c.file.Write(p)
	c.size += n
	return len(p), nil
}

func (c *console) rotate() {
	if os.Rename(c.path, c.path+".1") != nil {
		return
	}
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	c.file.Close()
	c.file, c.size = f, 0
}

// Close ends the log; a Write that waits goes on at once.
func (c *console) Close() error {
	c.close()
	return c.file.Close()
}

// tailSize is how much of an output an error quotes, in bytes.
const tailSize = 2 << 10

// tail keeps the end of what is written to it, for error messages.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailSize):]...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
