package firewall

import "time"

// table is a map with a bound, whose entries end some time after they were last used. Entries are in classes, each with
// its timeout, in a list in the order of their use: only a use moves no entry, since that is what each frame does, but
// who looks for the oldest moves those that were used since.
//
// Classes from lasting on are kept when the table is full. Of the others, the one with the most entries makes room, with
// that used longest ago: a flood of one kind is at its own cost.
type table[K comparable, V any] struct {
	most     int
	timeouts []time.Duration
	lasting  int
	index    map[K]int32
	slots    []slot[K, V]
	free     int32
	lists    []list
}

type list struct {
	first, last int32
	len         int
}

// slot is an entry, or a free one, in which next alone counts.
type slot[K comparable, V any] struct {
	key   K
	value V
	used  time.Duration
	// queued is what used was when the entry came to the end of its list.
	queued     time.Duration
	class      int32
	prev, next int32
}

// nowhere is the index of no slot.
const nowhere = -1

// sweep is how many entries are looked at for each that is added: more than one, so that those which have ended go.
const sweep = 4

func newTable[K comparable, V any](most int, timeouts []time.Duration, lasting int) *table[K, V] {
	t := &table[K, V]{most: most, timeouts: timeouts, lasting: lasting, index: map[K]int32{}, free: nowhere}
	for range timeouts {
		t.lists = append(t.lists, list{first: nowhere, last: nowhere})
	}
	return t
}

func (t *table[K, V]) len() int { return len(t.index) }

// get returns the entry of key, nil if there is none or its time is over.
func (t *table[K, V]) get(key K, now time.Duration) *slot[K, V] {
	i, ok := t.index[key]
	if !ok {
		return nil
	}
	s := &t.slots[i]
	if t.ended(s, now) {
		t.remove(s)
		return nil
	}
	return s
}

func (t *table[K, V]) ended(s *slot[K, V], now time.Duration) bool {
	return now-s.used >= t.timeouts[s.class]
}

// add makes an entry for a key that has none. It returns nil when all entries are in lasting classes. The entry is
// valid until the next call of add or remove.
func (t *table[K, V]) add(key K, value V, class int, now time.Duration) *slot[K, V] {
	t.sweep(now)
	if len(t.index) >= t.most && !t.makeRoom() {
		return nil
	}
	i := t.free
	if i == nowhere {
		i = int32(len(t.slots))
		t.slots = append(t.slots, slot[K, V]{})
	} else {
		t.free = t.slots[i].next
	}
	s := &t.slots[i]
	*s = slot[K, V]{key: key, value: value, used: now}
	t.index[key] = i
	t.push(i, int32(class))
	return s
}

// move puts an entry into another class, and counts as its use.
func (t *table[K, V]) move(s *slot[K, V], class int, now time.Duration) {
	s.used = now
	if s.class == int32(class) {
		return
	}
	i := t.index[s.key]
	t.unlink(i)
	t.push(i, int32(class))
}

func (t *table[K, V]) remove(s *slot[K, V]) {
	i := t.index[s.key]
	t.unlink(i)
	delete(t.index, s.key)
	*s = slot[K, V]{next: t.free}
	t.free = i
}

// sweep removes entries whose time is over, the longest unused ones first.
func (t *table[K, V]) sweep(now time.Duration) {
	for class := range t.lists {
		for range sweep {
			s := t.oldest(class)
			if s == nil || !t.ended(s, now) {
				break
			}
			t.remove(s)
		}
	}
}

// makeRoom removes one entry that is not in a lasting class, if there is one.
func (t *table[K, V]) makeRoom() bool {
	fullest := 0
	for class := range t.lasting {
		if t.lists[class].len > t.lists[fullest].len {
			fullest = class
		}
	}
	s := t.oldest(fullest)
	if s == nil {
		return false
	}
	t.remove(s)
	return true
}

// oldest returns the first entry of a list, after those that were used since they came there went to its end, at most a
// few: the rest has its turn the next time.
func (t *table[K, V]) oldest(class int) *slot[K, V] {
	for range sweep {
		i := t.lists[class].first
		if i == nowhere {
			return nil
		}
		s := &t.slots[i]
		if s.used == s.queued {
			return s
		}
		t.unlink(i)
		t.push(i, int32(class))
	}
	return &t.slots[t.lists[class].first]
}

func (t *table[K, V]) push(i, class int32) {
	l, s := &t.lists[class], &t.slots[i]
	s.class, s.queued, s.prev, s.next = class, s.used, l.last, nowhere
	if l.last == nowhere {
		l.first = i
	} else {
		t.slots[l.last].next = i
	}
	l.last = i
	l.len++
}

func (t *table[K, V]) unlink(i int32) {
	s := &t.slots[i]
	l := &t.lists[s.class]
	l.len--
	if s.prev == nowhere {
		l.first = s.next
	} else {
		t.slots[s.prev].next = s.next
	}
	if s.next == nowhere {
		l.last = s.prev
	} else {
		t.slots[s.next].prev = s.prev
	}
}
