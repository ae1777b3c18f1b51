package dns

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxRefused is how many refused names are remembered; those that come after are counted in Stats only.
	maxRefused = 512
	// tellEvery and tellBurst bound how often somebody is told of a name.
	tellEvery = time.Second
	tellBurst = 20
)

// refusals are the names that were refused, each told of once.
type refusals struct {
	tell  func(name string)
	limit *rate.Limiter

	mu    sync.Mutex
	times map[string]uint64
	told  map[string]bool
}

func newRefusals(tell func(string)) *refusals {
	return &refusals{
		tell: tell, limit: rate.NewLimiter(rate.Every(tellEvery), tellBurst),
		times: map[string]uint64{}, told: map[string]bool{},
	}
}

func (r *refusals) add(name string) {
	if r.count(name) && r.tell != nil {
		r.tell(name)
	}
}

// count counts a refusal and reports whether it is to be told of: a name that came too soon after others is when it
// comes again.
func (r *refusals) count(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.times[name]; !ok && len(r.times) == maxRefused {
		return false
	}
	r.times[name]++
	if r.told[name] || !r.limit.Allow() {
		return false
	}
	r.told[name] = true
	return true
}

func (r *refusals) list() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.times)
}
