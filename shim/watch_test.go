package shim

import (
	"testing"

	"golang.org/x/time/rate"
)

func TestTheFirstOOMOfAContainerIsAlwaysTold(t *testing.T) {
	allowed := rate.NewLimiter(0, 2)
	loud, quiet := &container{id: "loud"}, &container{id: "quiet"}
	told := 0
	for range 1000 {
		if mayTell(loud, allowed) {
			told++
		}
	}
	if told != 3 {
		t.Errorf("%d events of one container were told, not its first and the burst of 2", told)
	}
	if !mayTell(quiet, allowed) {
		t.Error("one container's events cost another its first")
	}
}
