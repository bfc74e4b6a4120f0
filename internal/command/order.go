package command

import "sort"

// The order in which the bytes of both streams came is kept as waypoints: places
// where stdout went on after stderr, each the offsets of both streams there.
//
//	came:       o o e e e o e o o      stdout 0–5, stderr 0–4
//	waypoints:            ↑   ↑        (2,3) (3,4), and (0,0), which is implied
//	position:   0 1 2 3 4 5 6 7 8
//
// Between two waypoints first the stdout came and then the stderr, so a waypoint
// is needed only where stdout follows stderr: a command that prints on one stream
// alone has none. A position counts bytes of both streams, in that order.

// Position is how many bytes of both streams lie before these offsets, where they
// are a place in the order.
func (z Sizes) Position() int64 { return z[Stdout] + z[Stderr] }

// Within reports whether neither offset lies behind the one of other.
func (z Sizes) Within(other Sizes) bool {
	return z[Stdout] <= other[Stdout] && z[Stderr] <= other[Stderr]
}

// Path is a stretch of the order in which the bytes of both streams came.
type Path struct {
	// Points are the waypoints of the stretch; it begins at the first one, and there
	// is one. In each next one no offset is lower and the position is higher.
	Points []Sizes
	End    Sizes // up to where the order is known; not before the last waypoint
}

// NewPath makes the stretch that begins at or before a position of stored
// waypoints, which were asked for from the last one at or before it on, at most
// limit: either they are all up to known, or there are limit of them and the stretch
// ends at the last. known are the waypoints that follow, and end is where they end.
func NewPath(position int64, stored []Sizes, limit int, known []Sizes, end Sizes) Path {
	p := Path{End: end}
	if Before(stored[:min(1, len(stored))], position) < 0 {
		p.Points = append(p.Points, Sizes{}) // what lies before is the implied one
	}
	p.Points = append(p.Points, stored...)
	if len(stored) >= limit {
		p.End = stored[len(stored)-1]
	} else {
		p.Points = append(p.Points, known...)
	}
	return p
}

// Rising reports whether points are waypoints of one order.
func Rising(points []Sizes) bool {
	for i, p := range points {
		if p[Stdout] < 0 || p[Stderr] < 0 {
			return false
		}
		if i > 0 && (!points[i-1].Within(p) || points[i-1] == p) {
			return false
		}
	}
	return true
}

// after is where the segment that begins at waypoint i ends.
func (p *Path) after(i int) Sizes {
	if i+1 < len(p.Points) {
		return p.Points[i+1]
	}
	return p.End
}

// Holds reports whether the byte at an offset of a stream lies in the stretch.
func (p *Path) Holds(s Stream, offset int64) bool {
	return len(p.Points) > 0 && p.Points[0][s] <= offset && offset < p.End[s]
}

// Place gives the position of the byte at an offset that the stretch holds, and
// the offset up to which the bytes of its stream follow each other there.
func (p *Path) Place(s Stream, offset int64) (position, until int64) {
	// The last waypoint at or before it: of those with the same offset, the ones
	// before have no byte of this stream behind them.
	i := sort.Search(len(p.Points), func(i int) bool { return p.Points[i][s] > offset }) - 1
	next := p.after(i)
	if s == Stdout {
		return offset + p.Points[i][Stderr], next[Stdout]
	}
	return next[Stdout] + offset, next[Stderr]
}

// At gives the offsets of a position, which lies neither before the stretch nor
// behind it.
func (p *Path) At(position int64) Sizes {
	i := Before(p.Points, position)
	at, next := p.Points[i], p.after(i)
	out := min(position-at.Position(), next[Stdout]-at[Stdout])
	return Sizes{at[Stdout] + out, position - at[Stdout] - out}
}

// Before gives the index of the last of rising waypoints that lies at or before a
// position; -1 where none does.
func Before(points []Sizes, position int64) int {
	return sort.Search(len(points), func(i int) bool { return points[i].Position() > position }) - 1
}
