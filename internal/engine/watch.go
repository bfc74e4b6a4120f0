package engine

import (
	"context"
	"io"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
)

// watchRead is how many bytes one EventChunk has at most.
const watchRead = 256 << 10

// WatchOptions says what to watch.
type WatchOptions struct {
	From    command.Sizes              // first byte of each stream
	Follow  bool                       // go on until the command has ended
	Streams [len(command.Streams)]bool // which; none means both
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

// Event is one thing that a watcher is told.
type Event struct {
	Kind     EventKind
	Snapshot Snapshot
	Chunk    command.Chunk
	Gap      Gap
}

// Watch is one watcher of one command. It holds two offsets and nothing else,
// so a slow watcher costs no memory and slows nobody. Its methods are for one
// goroutine at a time.
type Watch struct {
	engine   *Engine
	live     *live // nil: the command had ended when the watch began
	ended    Snapshot
	follow   bool
	wanted   [len(command.Streams)]bool
	offsets  command.Sizes
	until    command.Sizes // without follow: where to stop
	told     bool          // the first EventCommand was given
	version  int64         // of the snapshot told last
	place    int           // queue position told last
	turn     command.Stream
	complete bool // EventComplete was given
	done     bool // EventEnded was given
	closed   bool
}

// Watch begins to watch a command that the caller may see (see Get). The caller
// closes it. OUT_OF_RANGE where an offset lies behind the end of a finished stream.
func (e *Engine) Watch(ctx context.Context, by access.Caller, id string, o WatchOptions) (*Watch, error) {
	if _, err := e.Get(ctx, by, id); err != nil {
		return nil, err
	}
	w := &Watch{engine: e, follow: o.Follow, wanted: o.Streams, offsets: o.From}
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
		w.ended, w.until, sealed = Snapshot{Command: c}, c.Size, true
	}
	for _, s := range command.Streams {
		if w.wanted[s] && sealed && w.offsets[s] > w.until[s] {
			return fault.New(fault.OutOfRange, fault.ReasonOffsetBeyondEnd,
				"%s ended at offset %d; %d lies behind it", s, w.until[s], w.offsets[s]).
				WithHint("Ask from an offset up to its size, which the status tells")
		}
	}
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
		select {
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
	if pos := snap.position(); !w.told || snap.Version != w.version || pos != w.place {
		w.told, w.version, w.place = true, snap.Version, pos
		return Event{Kind: EventCommand, Snapshot: snap}, true, nil
	}
	if !w.follow {
		sizes, sealed = w.until, true
	}
	if ev, ok, err = w.read(ctx, snap, sizes); ok || err != nil {
		return ev, ok, err
	}
	switch {
	case !sealed || w.follow && !snap.Ended():
		return Event{}, false, nil
	case !w.complete:
		w.complete = true
		return Event{Kind: EventComplete, Snapshot: snap}, true, nil
	}
	w.done = true
	return Event{Kind: EventEnded, Snapshot: snap}, true, nil
}

// read gives the next bytes of whichever stream has some, in turn.
func (w *Watch) read(ctx context.Context, snap Snapshot, sizes command.Sizes) (ev Event, ok bool, err error) {
	for range command.Streams {
		s := w.turn
		w.turn = (w.turn + 1) % command.Stream(len(command.Streams))
		at := w.offsets[s]
		if !w.wanted[s] || at >= sizes[s] {
			continue
		}
		if from := min(snap.Earliest[s], sizes[s]); at < from {
			w.offsets[s] = from
			return Event{Kind: EventGap, Gap: Gap{Stream: s, From: at, To: from}}, true, nil
		}
		data, err := w.readAt(ctx, s, at, int(min(watchRead, sizes[s]-at)))
		if fault.ReasonOf(err) == fault.ReasonOutputTrimmed && w.live == nil {
			// Retention was at it when this watch began.
			if w.ended.Command, err = w.engine.journal.Get(ctx, w.ended.ID); err == nil {
				from := max(w.ended.Earliest[s], at)
				w.offsets[s] = from
				return Event{Kind: EventGap, Gap: Gap{Stream: s, From: at, To: from}}, true, nil
			}
		}
		if err != nil {
			return Event{}, false, err
		}
		w.offsets[s] += int64(len(data))
		return Event{Kind: EventChunk, Chunk: command.Chunk{Stream: s, Offset: at, Data: data}}, true, nil
	}
	return Event{}, false, nil
}

func (w *Watch) readAt(ctx context.Context, s command.Stream, at int64, limit int) (data []byte, err error) {
	if w.live != nil {
		data, err = w.live.log.Read(ctx, s, at, limit)
	} else {
		data, err = w.engine.journal.ReadOutput(ctx, w.ended.ID, s, at, limit)
	}
	if err == nil && len(data) == 0 {
		err = fault.New(fault.DataLoss, fault.ReasonStoreDamaged, "%s of command %s has no bytes at offset %d although it should", s, w.id(), at)
	}
	return data, err
}

var _ output.Source = Journal(nil)
