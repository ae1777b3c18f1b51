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
	tell  func(name string, untold int) bool
	limit *rate.Limiter

	mu    sync.Mutex
	times map[string]uint64
	told  map[string]bool
}

func newRefusals(tell func(string, int) bool) *refusals {
	return &refusals{
		tell: tell, limit: rate.NewLimiter(rate.Every(tellEvery), tellBurst),
		times: map[string]uint64{}, told: map[string]bool{},
	}
}

// add counts a refusal and tells of the name, if that was not done: a name that came too soon after others has its turn when it comes
// again.
func (r *refusals) add(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.times[name]; !ok && len(r.times) == maxRefused {
		return
	}
	r.times[name]++
	if r.tell != nil && !r.told[name] && r.limit.Allow() && r.tell(name, len(r.times)-len(r.told)-1) {
		r.told[name] = true
	}
}

func (r *refusals) list() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.times)
}
