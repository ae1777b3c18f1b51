package netbridge

import (
	"errors"
	"testing"
	"time"
)

func TestTrialIsLikeAPodsNetworkAndLeavesNothing(t *testing.T) {
	newLab(t) // skips where there can be none
	for name, watch := range map[string]*Watch{"redirect": nil, "sieve": {}} {
		if err := Try(t.Context(), watch); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var path string
	failed := errors.New("what the trial was for failed")
	err := Trial(func(p string) error {
		path = p
		b, err := Join(t.Context(), p, nil)
		if err != nil || len(b.Interfaces) != 1 || b.Interfaces[0].Interface.GetName() != firstName {
			t.Errorf("joined %+v, %v", b, err)
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("the trial says %v", err)
	}
	// The thread ends, and the namespace with it, a moment after Trial does.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := Join(t.Context(), path, nil)
		if errors.Is(err, ErrNetNS) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the trial its namespace can be joined: %v", err)
		}
	}
}
