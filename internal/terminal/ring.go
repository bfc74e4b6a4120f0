package terminal

// Sizes of a ring.
const (
	ringLeast = 32 << 10
	ringMost  = 2 << 20 // what a session keeps of its output
)

// ring holds the last bytes of the output of a session, by their offsets. It grows as
// it is filled, so that a session that says little costs little. It has no lock of its
// own.
type ring struct {
	buf        []byte // byte of offset o is at o modulo its length
	start, end int64  // what it holds
}

// newRing gives an empty ring whose first byte will have this offset.
func newRing(at int64) ring { return ring{start: at, end: at} }

// write adds bytes at the end; the oldest fall off.
func (r *ring) write(p []byte) {
	if extra := len(p) - ringMost; extra > 0 {
		r.end += int64(extra)
		r.start = r.end
		p = p[extra:]
	}
	r.grow(int(r.end-r.start) + len(p))
	for len(p) > 0 {
		n := copy(r.buf[r.end%int64(len(r.buf)):], p)
		r.end += int64(n)
		p = p[n:]
	}
	r.start = max(r.start, r.end-int64(len(r.buf)))
}

// grow makes room for n bytes, as far as there may be room.
func (r *ring) grow(n int) {
	if n <= len(r.buf) || len(r.buf) == ringMost {
		return
	}
	size := max(len(r.buf), ringLeast)
	for size < n && size < ringMost {
		size *= 2
	}
	wider := ring{buf: make([]byte, size), start: r.start, end: r.start}
	for at := r.start; at < r.end; {
		piece := r.piece(at)
		wider.write(piece)
		at += int64(len(piece))
	}
	*r = wider
}

// piece gives bytes from an offset on that it has, up to the end of buf at most.
func (r *ring) piece(at int64) []byte {
	i := at % int64(len(r.buf))
	return r.buf[i:min(int64(len(r.buf)), i+r.end-at)]
}

// has reports whether the next byte at an offset is in it, or is yet to come.
func (r *ring) has(at int64) bool { return r.start <= at && at <= r.end }

// read copies bytes from an offset that it has, up to but not including to; none where the
// first of them has fallen off.
func (r *ring) read(p []byte, at, to int64) int {
	n := 0
	for to = min(to, r.end); r.start <= at && at < to && n < len(p); {
		c := copy(p[n:], r.piece(at)[:min(to-at, int64(len(r.piece(at))))])
		n += c
		at += int64(c)
	}
	return n
}
