package guest

import (
	"strings"
	"testing"
	"time"
)

func TestLogIsLimitedAndSaysSo(t *testing.T) {
	var out strings.Builder
	now := time.Unix(1000, 0)
	l := &limited{w: &out, now: func() time.Time { return now }}
	for range 10 * logBurst {
		if n, err := l.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	if n := strings.Count(out.String(), "line\n"); n != logBurst {
		t.Errorf("%d lines written", n)
	}
	if n := strings.Count(out.String(), "dropped"); n != 1 {
		t.Errorf("said %d times that lines are dropped", n)
	}
	now = now.Add(2 * time.Second)
	for range 10 * logBurst {
		_, _ = l.Write([]byte("later\n"))
	}
	if n := strings.Count(out.String(), "later\n"); n < 2*logPerSec-1 || n > 2*logPerSec+1 {
		t.Errorf("%d lines after two seconds", n)
	}
}

func TestStagesKeepOrderAndRise(t *testing.T) {
	var s Stages
	s.Mark("first")
	s.Mark("second")
	l := s.List()
	if len(l) != 2 || l[0].Name != "first" || l[1].Name != "second" || l[0].Microseconds > l[1].Microseconds ||
		l[0].Microseconds == 0 {
		t.Errorf("%v", l)
	}
}

func TestEnableAll(t *testing.T) {
	if got := enableAll([]string{"cpu", "memory"}); got != "+cpu +memory " {
		t.Errorf("%q", got)
	}
}

func TestMinFreeIsTheKernelsForItsSize(t *testing.T) {
	for total, want := range map[uint64]uint64{1 << 9: 128, 512 << 10: 2896, 4 << 20: 8192, 1 << 40: 256 << 10} {
		if got := minFreeKiB(total); got != want {
			t.Errorf("of %d KiB: %d KiB, want %d", total, got, want)
		}
	}
}
