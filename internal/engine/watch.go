package engine

import (
	"context"
	"io"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
)

const (
	// watchRead is how many bytes one EventChunk has at most.
	watchRead = 256 << 10
	// watchAhead is how many bytes of a stream are read from the store at least: where
	// the streams take turns often, its pieces in order are much shorter.
	watchAhead = 32 << 10
	// watchStored is how many are read from the store at most. Memory has them anyway;
	// these are each watcher's own, and hundreds may lag behind at once.
	watchStored = 64 << 10
	// watchersEvery is how often a watch is told at most how many others there are.
	watchersEvery = time.Second
)

// WatchOptions says what to watch.
type WatchOptions struct {
	From     command.Sizes              // first byte of each stream
	Position *int64                     // or of both, in the order in which they came; nil: From says it
	Follow   bool                       // go on until the command has ended
	Streams  [len(command.Streams)]bool // which; none means both
	Limit    int64                      // end after so many bytes; 0: none
}

// EventKind is what an Event tells.
type EventKind uint8

// The kinds. The first event of a watch is an EventCommand; the last are
// EventComplete and EventEnded.
const (
	EventCommand  EventKind = iota // Snapshot changed
	EventChunk                     // Chunk came
	EventGap                       // Gap is not stored any more
	EventComplete                  // all output was sent
	EventEnded                     // Snapshot is the last word
)

// Gap is a run of output bytes that retention has removed.
type Gap struct {
	Stream   command.Stream
	From, To int64
}

// Event is one thing that a watcher is told. It is small: each call that waits for the
// next has room for it on its stack, and there are as many as watchers.
type Event struct {
	Kind     EventKind
	Snapshot *Snapshot // nil of a chunk and of a gap
	Chunk    command.Chunk
	Position int64 // of Chunk's first byte in both streams; the others follow it there
	Gap      Gap
}

// Watch is one watcher of one command. It tells the bytes of the streams that it
// wants in the order in which they came. It holds two offsets, and a little of the
// order and of the output behind them where the streams take turns often: a slow
// watcher costs no memory that grows, and slows nobody. Its methods are for one
// goroutine at a time.
type Watch struct {
	engine   *Engine
	live     *live // nil: the command had ended when the watch began
	ended    Snapshot
	follow   bool
	wanted   [len(command.Streams)]bool
	offsets  command.Sizes
	seek     int64         // position to begin at that has not come yet; 0: none
	until    command.Sizes // without follow: where to stop
	limited  bool
	left     int64     // bytes that may still be told, if limited
	told     bool      // the first EventCommand was given
	version  int64     // of the snapshot told last
	place    int       // queue position told last
	watchers int       // their number told last, …
	toldAt   time.Time // and when
	complete bool      // EventComplete was given
	done     bool      // EventEnded was given
	closed   bool

	// Of each stream, a stretch of the order and bytes, which may hold its next byte.
	paths [len(command.Streams)]command.Path
	ahead [len(command.Streams)]command.Chunk
}

// Watch begins to watch a command that the caller may see (see Get). The caller
// closes it. OUT_OF_RANGE where an offset lies behind the end of a finished stream,
// or the position behind that of both.
func (e *Engine) Watch(ctx context.Context, by access.Caller, id string, o WatchOptions) (*Watch, error) {
	if _, err := e.Get(ctx, by, id); err != nil {
		return nil, err
	}
	w := &Watch{engine: e, follow: o.Follow, wanted: o.Streams, offsets: o.From, limited: o.Limit > 0, left: o.Limit}
	if o.Position != nil {
		w.offsets, w.seek = command.Sizes{}, *o.Position
	}
	if w.wanted == ([len(command.Streams)]bool{}) {
		for s := range w.wanted {
			w.wanted[s] = true
		}
	}
	e.watch(id, 1) // first, so that retention leaves the command alone
	if err := w.open(ctx, id); err != nil {
		e.watch(id, -1)
		return nil, err
	}
	return w, nil
}

func (w *Watch) open(ctx context.Context, id string) error {
	var sealed bool
	if w.live = w.engine.find(id); w.live != nil {
		w.until, sealed = w.live.log.Sizes()
	} else {
		c, err := w.engine.journal.Get(ctx, id)
		if err != nil {
			return err
		}
		if !c.Ended() && w.follow {
			return unattended()
		}
		w.ended, w.until, sealed = w.engine.stored(c), c.Size, true
	}
	if sealed && w.seek > w.until.Position() {
		return fault.New(fault.OutOfRange, fault.ReasonOffsetBeyondEnd,
			"the output ended at position %d; %d lies behind it", w.until.Position(), w.seek).
			WithHint("Ask from a position up to the sizes of both streams together, which the status tells")
	}
	for _, s := range command.Streams {
		if w.wanted[s] && sealed && w.offsets[s] > w.until[s] {
			return fault.New(fault.OutOfRange, fault.ReasonOffsetBeyondEnd,
				"%s ended at offset %d; %d lies behind it", s, w.until[s], w.offsets[s]).
				WithHint("Ask from an offset up to its size, which the status tells")
		}
	}
	return w.reach(ctx, w.until)
}

// reach finds the offsets of the position to begin at, once so much of both streams
// has come; until then there is nothing to tell.
func (w *Watch) reach(ctx context.Context, sizes command.Sizes) error {
	if w.seek == 0 {
		return nil
	}
	if w.offsets = sizes; w.seek > sizes.Position() {
		return nil
	}
	path, err := w.path(ctx, w.seek, nil)
	if err != nil {
		return err
	}
	w.offsets, w.seek = path.At(w.seek), 0
	return nil
}

// Close ends the watch. It may be called twice.
func (w *Watch) Close() {
	if !w.closed {
		w.closed = true
		w.engine.watch(w.id(), -1)
	}
}

// Offsets gives how far each stream was told.
func (w *Watch) Offsets() command.Sizes { return w.offsets }

func (w *Watch) id() string {
	if w.live != nil {
		return w.live.id
	}
	return w.ended.ID
}

// Next waits for the next event. After EventEnded it gives io.EOF. When ctx
// ends it gives ctx's error and may be called again: nothing is lost.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	for {
		var rung, left <-chan struct{}
		if w.live != nil {
			rung, left = w.live.bell.Rung(), w.live.done
		}
		ev, ok, err := w.poll(ctx)
		if ok || err != nil {
			return ev, err
		}
		var due <-chan time.Time
		if w.live != nil && int(w.live.watchers.Load()) != w.watchers {
			due = time.After(time.Until(w.toldAt.Add(watchersEvery)))
		}
		select {
		case <-due:
		case <-rung:
		case <-left: // its owner is through: it has ended, or the service stops
			if ev, ok, err = w.poll(ctx); ok || err != nil {
				return ev, err
			}
			return Event{}, unattended()
		case <-ctx.Done():
			return Event{}, context.Cause(ctx)
		}
	}
}

// poll gives what there is to tell now. Changes of the command come before
// bulk: a cancel must not wait behind megabytes of output.
func (w *Watch) poll(ctx context.Context) (ev Event, ok bool, err error) {
	if w.done {
		return Event{}, false, io.EOF
	}
	sizes, sealed := w.until, true
	snap := w.ended
	if w.live != nil {
		// Sizes before the snapshot: an end that is told has all its output.
		sizes, sealed = w.live.log.Sizes()
		snap = w.live.snapshot()
	}
	if w.news(snap) {
		w.told, w.version, w.place = true, snap.Version, snap.position()
		w.watchers, w.toldAt = snap.Watchers, time.Now()
		return Event{Kind: EventCommand, Snapshot: new(snap)}, true, nil
	}
	if !w.follow {
		sizes, sealed = w.until, true
	}
	if err := w.reach(ctx, sizes); err != nil {
		return Event{}, false, err
	}
	enough := w.limited && w.left == 0
	if !enough {
		if ev, ok, err = w.read(ctx, snap, sizes); ok || err != nil {
			return ev, ok, err
		}
	}
	switch {
	case !enough && (!sealed || w.follow && !snap.Ended()):
		return Event{}, false, nil
	case !w.complete:
		w.complete = true
		return Event{Kind: EventComplete, Snapshot: new(snap)}, true, nil
	}
	w.done = true
	return Event{Kind: EventEnded, Snapshot: new(snap)}, true, nil
}

// news reports whether a snapshot has something to tell. How many others watch is
// told once in a while: when hundreds come, each would be told of each.
func (w *Watch) news(snap Snapshot) bool {
	return !w.told || snap.Version != w.version || snap.position() != w.place ||
		snap.Watchers != w.watchers && time.Since(w.toldAt) >= watchersEvery
}

// read gives the next bytes of the streams that are wanted, or a gap in front of
// them. sizes is a place in the order: what comes later lies behind all before it.
func (w *Watch) read(ctx context.Context, snap Snapshot, sizes command.Sizes) (ev Event, ok bool, err error) {
	for _, s := range command.Streams {
		at, from := w.offsets[s], min(snap.Earliest[s], sizes[s])
		if w.wanted[s] && at < from {
			return w.gap(s, from), true, nil
		}
	}
	s, position, until, ok, err := w.first(ctx, sizes)
	if !ok || err != nil {
		return Event{}, false, err
	}
	at := w.offsets[s]
	limit := min(watchRead, until-at, sizes[s]-at)
	if w.limited {
		limit = min(limit, w.left)
	}
	data, err := w.readAt(ctx, s, at, int(limit), sizes[s])
	if fault.ReasonOf(err) == fault.ReasonOutputTrimmed && w.live == nil {
		// Retention was at it when this watch began.
		var c command.Command
		if c, err = w.engine.journal.Get(ctx, w.ended.ID); err == nil {
			w.ended.Command = c
			return w.gap(s, max(c.Earliest[s], at)), true, nil
		}
	}
	if err != nil {
		return Event{}, false, err
	}
	w.offsets[s] += int64(len(data))
	w.left -= int64(len(data))
	return Event{Kind: EventChunk, Chunk: command.Chunk{Stream: s, Offset: at, Data: data}, Position: position}, true, nil
}

// gap passes over what is not stored any more.
func (w *Watch) gap(s command.Stream, to int64) Event {
	at := w.offsets[s]
	w.offsets[s] = to
	return Event{Kind: EventGap, Gap: Gap{Stream: s, From: at, To: to}}
}

// first finds the stream whose next byte came first, the position of that byte, and
// up to which offset the bytes of its stream follow each other there; ok is false
// where there is none.
func (w *Watch) first(ctx context.Context, sizes command.Sizes) (first command.Stream, position, until int64, ok bool, err error) {
	for _, s := range command.Streams {
		if !w.wanted[s] || w.offsets[s] >= sizes[s] {
			continue
		}
		path, err := w.stretch(ctx, s, sizes)
		if err != nil {
			return first, 0, 0, false, err
		}
		if at, to := path.Place(s, w.offsets[s]); !ok || at < position {
			first, position, until, ok = s, at, to, true
		}
	}
	return first, position, until, ok, nil
}

// stretch gives a stretch of the order that holds the next byte of a stream. It is
// where the last one ends, or at both offsets together where they are a place in the
// order; else it is searched for.
func (w *Watch) stretch(ctx context.Context, s command.Stream, sizes command.Sizes) (*command.Path, error) {
	at, path := w.offsets[s], &w.paths[s]
	if path.Holds(s, at) {
		return path, nil
	}
	other := command.Stdout + command.Stderr - s
	if p := &w.paths[other]; p.Holds(s, at) {
		return p, nil
	}
	// The position lies from low to high, which closes in with every stretch.
	low, high := at, at+sizes[other]
	if path.End[s] <= at {
		low = max(low, path.End.Position())
	}
	points := path.Points
	*path = command.Path{} // a search that fails may have used its points
	for guess := min(max(low, w.offsets.Position()), high); low <= high; guess = low + (high-low)/2 {
		p, err := w.path(ctx, guess, points)
		if err != nil {
			return nil, err
		}
		points = p.Points
		switch {
		case at < p.Points[0][s]:
			high = p.Points[0].Position() - 1
		case at >= p.End[s]:
			low = p.End.Position()
		default:
			*path = p
			return path, nil
		}
	}
	return nil, fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "the order of the output of command %s does not hold offset %d of %s", w.id(), at, s)
}

// path gives a stretch of the order at a position, and may use points for it.
func (w *Watch) path(ctx context.Context, position int64, points []command.Sizes) (command.Path, error) {
	if w.live != nil {
		return w.live.log.Path(ctx, position, points)
	}
	stored, err := w.engine.journal.ReadOrder(ctx, w.ended.ID, position, output.PathPoints)
	if err != nil {
		return command.Path{}, err
	}
	return command.NewPath(position, stored, output.PathPoints, nil, w.until), nil
}

// readAt gives at most limit bytes of a stream, of which there are some before end.
func (w *Watch) readAt(ctx context.Context, s command.Stream, at int64, limit int, end int64) (data []byte, err error) {
	ahead := &w.ahead[s]
	if ahead.Offset <= at && at < ahead.End() {
		data = ahead.Data[at-ahead.Offset:]
	} else {
		*ahead = command.Chunk{}
		more := limit
		if w.live == nil || !w.live.log.Remembers(s, at) {
			more = int(min(max(int64(limit), watchAhead), watchStored, end-at))
		}
		if w.live != nil {
			data, err = w.live.log.Read(ctx, s, at, more)
		} else {
			data, err = w.engine.journal.ReadOutput(ctx, w.ended.ID, s, at, more)
		}
		if err != nil {
			return nil, err
		}
		if len(data) > limit {
			*ahead = command.Chunk{Stream: s, Offset: at, Data: data}
		}
	}
	if len(data) == 0 {
		return nil, fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "%s of command %s has no bytes at offset %d although it should", s, w.id(), at)
	}
	n := min(limit, len(data))
	return data[:n:n], nil
}

var _ output.Source = Journal(nil)
