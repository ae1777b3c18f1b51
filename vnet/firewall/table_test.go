package firewall

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestTheTableIsAMap holds the table against a map that does the same in the simplest way.
func TestTheTableIsAMap(t *testing.T) {
	const most = 50
	limits := []time.Duration{10, 20, 40}
	table := newTable[int, int](most, limits, 2)
	type entry struct {
		value, class int
		used         time.Duration
	}
	plain := map[int]entry{}
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Duration(0)
	for step := range 200_000 {
		now += time.Duration(random.IntN(3)) / 2
		key, class := random.IntN(200), random.IntN(len(limits))
		want, ok := plain[key]
		ok = ok && now-want.used < limits[want.class]
		s := table.get(key, now)
		if s != nil && (!ok || s.value != want.value || int(s.class) != want.class) {
			t.Fatalf("step %d: key %d: %+v, want %+v %t", step, key, s, want, ok)
		}
		if s == nil && ok && want.class >= table.lasting {
			t.Fatalf("step %d: key %d of class %d is gone", step, key, want.class)
		}
		switch {
		case s == nil:
			delete(plain, key)
			if table.add(key, step, class, now) != nil {
				plain[key] = entry{step, class, now}
			} else if n := table.lists[2].len; n != most {
				t.Fatalf("step %d: no room, with %d entries that stay", step, n)
			}
		case random.IntN(4) == 0:
			table.remove(s)
			delete(plain, key)
		default:
			table.move(s, class, now)
			plain[key] = entry{want.value, class, now}
		}
		if table.len() > most || len(table.slots) > most {
			t.Fatalf("%d entries, %d slots", table.len(), len(table.slots))
		}
	}
}

func TestTheOldestMakesRoom(t *testing.T) {
	table := newTable[int, int](3, []time.Duration{100}, 1)
	for key := range 3 {
		table.add(key, 0, 0, time.Duration(key))
	}
	table.get(0, 5).used = 5
	table.add(3, 0, 0, 6)
	for key, want := range map[int]bool{0: true, 1: false, 2: true, 3: true} {
		if (table.get(key, 6) != nil) != want {
			t.Errorf("key %d: not %t", key, want)
		}
	}
}

func TestEntriesThatEndedMakeRoom(t *testing.T) {
	table := newTable[int, int](1000, []time.Duration{10}, 0)
	for key := range 1000 {
		table.add(key, 0, 0, 0)
	}
	for key := range 300 {
		if table.add(1000+key, 0, 0, 10) == nil {
			t.Fatal("no room")
		}
	}
	if n := table.len(); n != 300 {
		t.Errorf("%d entries, of which 300 have not ended", n)
	}
}
