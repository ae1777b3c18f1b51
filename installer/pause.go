package installer

import (
	"context"
	"time"
)

// pause is a wait between tries that doubles with each.
type pause struct{ first, most, last time.Duration }

func (p *pause) next() time.Duration {
	p.last = min(max(2*p.last, p.first), p.most)
	return p.last
}

func (p *pause) reset() { p.last = 0 }

// sleep reports whether ctx still lives afterwards.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
