package output

import (
	"context"
	"slices"

	"github.com/telexec/telexec/internal/command"
)

// The log knows the order in which the bytes of both streams came, since Append
// sees it (command.Path has the idea). Of the waypoints it keeps those that the
// store has not got and some before; older ones are the source's.
//
// What Unsaved gives is a beginning of what came, in that order. So what the store
// has is at any time all that came up to some place: after a restart the order of
// all of it, and every position in it, is what it was. What the store had not got
// comes anew from the host, and may then come in another order.

const (
	// PathPoints is how many waypoints one Path has about.
	PathPoints = 512
	// keptPoints is how many waypoints that the store has stay in memory for
	// watchers that are close behind.
	keptPoints = 2 * PathPoints
	// mostPoints is how many waypoints, of 16 bytes each, may wait for the store before
	// Append waits: as much memory as each log may have of bytes.
	mostPoints = budgetShare / 16
)

// order is the order of a log; its Log's mu guards it.
type order struct {
	points  []command.Sizes // rising
	mark    int64           // stderr offset of the last waypoint
	earlier bool            // the source has some from before points
}

// before takes note that a stream goes on where both streams have these sizes.
//
// Stdout that comes while there is stderr behind the last waypoint makes a new one.
// So no stdout ever comes into the segment of a byte of stderr: the position of a
// byte is settled when it has come.
func (o *order) before(s command.Stream, sizes command.Sizes) {
	if s == command.Stdout && sizes[command.Stderr] > o.mark {
		o.points = append(o.points, sizes)
		o.mark = sizes[command.Stderr]
	}
}

// resume takes note that the source has the order up to at.
//
// There is then a waypoint at at, so that what comes behind it is told without the
// source, as it was before. It parts a run of one stream in two at most, which
// changes no position. Where only one stream has come, there is none before it.
func (o *order) resume(at command.Sizes) {
	if at[command.Stdout] > 0 && at[command.Stderr] > 0 {
		o.points = append(o.points, at)
		o.mark = at[command.Stderr]
		o.earlier = true
	}
}

// unsaved gives the waypoints that the store has not got when it has all before
// saved. One that lies there is not stored yet: it is only by the byte behind it.
func (o *order) unsaved(saved command.Sizes) []command.Sizes {
	return o.points[command.Before(o.points, saved.Position()-1)+1:]
}

// forget drops waypoints that the store has, now that it has all before saved.
func (o *order) forget(saved command.Sizes) {
	n := len(o.points) - len(o.unsaved(saved)) - keptPoints
	if n <= keptPoints { // not each time: what stays is moved
		return
	}
	o.points = slices.Delete(o.points, 0, n)
	o.earlier = true
	if cap(o.points) > 4*len(o.points) {
		o.points = slices.Clone(o.points)
	}
}

func (l *Log) sizes() (sizes command.Sizes) {
	for _, s := range command.Streams {
		sizes[s] = l.streams[s].size
	}
	return sizes
}

func (l *Log) savedSizes() (sizes command.Sizes) {
	for _, s := range command.Streams {
		sizes[s] = l.streams[s].saved
	}
	return sizes
}

// prefix gives up to where about limit unsaved bytes go in the order in which they
// came: whole segments, so that they are stored in large rows. mu is held.
func (l *Log) prefix(limit int) command.Sizes {
	to := l.sizes()
	if l.unsaved <= limit {
		return to
	}
	saved := l.savedSizes()
	path := command.Path{Points: slices.Concat([]command.Sizes{saved}, l.order.unsaved(saved)), End: to}
	to = path.At(saved.Position() + int64(max(0, limit-1)))
	for _, s := range command.Streams {
		if !path.Holds(s, to[s]) {
			continue
		}
		if position, until := path.Place(s, to[s]); position == to.Position() {
			to[s] = min(until, l.streams[s].segmentEnd(to[s]))
			break
		}
	}
	return to
}

// segmentEnd gives the end of the segment with the byte at offset.
func (t *stream) segmentEnd(offset int64) int64 {
	i, _ := slices.BinarySearchFunc(t.segments, offset, func(g segment, offset int64) int {
		if g.end() <= offset {
			return -1
		}
		return 1
	})
	return t.segments[i].end()
}

// Path gives a stretch of the order that begins at or before a position and ends
// behind it, unless it ends where the log does. It uses points for its Points
// where they are enough.
func (l *Log) Path(ctx context.Context, position int64, points []command.Sizes) (command.Path, error) {
	l.mu.Lock()
	// The end and the waypoints before it are taken together: stderr at the end has
	// its place by all of the stdout that came before it.
	end := l.sizes()
	i := command.Before(l.order.points, position)
	known := l.order.points[max(0, i):]
	if len(known) > PathPoints {
		known = known[:PathPoints]
		end = known[len(known)-1]
	}
	earlier := i < 0 && l.order.earlier
	points = points[:0]
	if i < 0 && !earlier {
		points = append(points, command.Sizes{})
	}
	points = append(points, known...)
	l.mu.Unlock()
	if !earlier {
		return command.Path{Points: points, End: end}, nil
	}
	stored, err := l.source.ReadOrder(ctx, l.id, position, PathPoints)
	if err != nil {
		return command.Path{}, err
	}
	// By now the source may have some of the log's own, or some behind end.
	from := end
	if len(points) > 0 {
		from = points[0]
	}
	return command.NewPath(position, stored[:command.Before(stored, from.Position()-1)+1], PathPoints, points, end), nil
}
