package stream

// ring is a byte queue that grows until it holds Window and no further: most streams carry little, or only in one
// direction. One side fills, one side takes; the caller locks, except that the bytes of free may be filled without the
// lock.
type ring struct {
	buf  []byte // length 0 or a power of two
	head int    // first byte to take
	used int
}

const ringStart = 4 << 10

// reserve makes room for n more bytes; used+n is at most Window.
func (r *ring) reserve(n int) {
	if len(r.buf)-r.used >= n {
		return
	}
	size := max(len(r.buf), ringStart)
	for size < r.used+n {
		size *= 2
	}
	bigger := make([]byte, size)
	r.peek(bigger)
	r.buf, r.head = bigger, 0
}

// free returns the next contiguous run of up to n free bytes; it is not empty after reserve(n) with n > 0.
func (r *ring) free(n int) []byte {
	tail := (r.head + r.used) & (len(r.buf) - 1)
	end := len(r.buf)
	if tail < r.head || r.used == len(r.buf) {
		end = r.head
	}
	return r.buf[tail:min(end, tail+n)]
}

// filled adds n bytes that were written into free's result.
func (r *ring) filled(n int) { r.used += n }

// peek copies the oldest bytes into p and leaves them in the ring.
func (r *ring) peek(p []byte) int {
	n := min(len(p), r.used)
	first := copy(p[:n], r.buf[r.head:])
	copy(p[first:n], r.buf)
	return n
}

// take moves the oldest bytes into p.
func (r *ring) take(p []byte) int {
	n := r.peek(p)
	if n > 0 { // not back to 0 when empty: free's result, being filled, follows from head and used
		r.used -= n
		r.head = (r.head + n) & (len(r.buf) - 1)
	}
	return n
}
