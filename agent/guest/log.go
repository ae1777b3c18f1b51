package guest

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Logger writes to the console, which the host keeps in a file: so no more than a burst and then a steady trickle.
func Logger() (*slog.Logger, io.Writer) {
	w := &limited{w: os.Stderr, now: time.Now}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: noTime})), w
}

// noTime leaves out the time: the console log of the host has its own, and the guest's clock may be wrong.
func noTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

const (
	logBurst  = 200
	logPerSec = 10
)

// limited drops lines beyond logBurst that come faster than logPerSec a second.
type limited struct {
	w    io.Writer
	now  func() time.Time
	mu   sync.Mutex
	debt float64 // lines written lately
	last time.Time
	lost bool
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.debt = max(0, l.debt-now.Sub(l.last).Seconds()*logPerSec)
	l.last = now
	if l.debt >= logBurst {
		if !l.lost {
			l.lost = true
			_, _ = io.WriteString(l.w, "level=WARN msg=\"too many log lines, some are dropped\"\n")
		}
		return len(p), nil
	}
	l.lost = false
	l.debt++
	return l.w.Write(p)
}
