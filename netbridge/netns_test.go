package netbridge

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestDumpIsRepeatedWhileItIsInterrupted(t *testing.T) {
	calls := 0
	got, err := Dump(func() ([]int, error) {
		calls++
		if calls < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 {
		t.Errorf("after two interruptions: %v, %v", got, err)
	}
	other := errors.New("no such table")
	if _, err := Dump(func() ([]int, error) { return nil, other }); !errors.Is(err, other) {
		t.Errorf("another error becomes %v", err)
	}
}
