// Package output holds the live log of a running command: both streams,
// appended to by the one who reads them from the host, made durable by the
// command's owner, and read by any number of watchers.
//
//	host ──Append──▶ Log ──Unsaved──▶ owner ──▶ store
//	                  │   ◀─SavedTo──            │
//	                  └──Read──▶ watchers ◀──────┘ what memory holds no more
//
// Offsets count bytes from the start of a stream and are never renumbered. A
// watcher is only an offset: a slow one costs nothing, it reads what it missed
// from the store. Append waits only for the store (when too much is unsaved),
// never for a watcher; that pause is passed on to the host by SSH's own flow
// control, so memory is bounded whatever a command prints.
//
// Beside the bytes the log keeps the order in which those of both streams came,
// and has them stored in that order: see order.go. What is appended is looked
// through for progress by a Gauge (gauge.go), whose forms are in meters.go; they
// are much of this room, and know nothing of the rest.
//
// What must not show in the log is masked before Append: see Redaction.
package output

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/telexec/telexec/internal/command"
)

// Sizes of the log's memory. A segment doubles from the least to the most, so
// that a command of a few lines holds a few KiB and one of a gigabyte is stored
// in large rows.
const (
	leastSegment = 4 << 10
	mostSegment  = 1 << 20

	// MaxUnsaved is how many bytes of both streams may wait for the store before
	// Append waits.
	MaxUnsaved = 8 << 20
	// budgetShare is how much each log may have unsaved whatever the others have.
	budgetShare = 256 << 10
	// Window is how many saved bytes of a stream stay in memory for watchers that
	// are close behind.
	Window = 256 << 10
)

// ErrClosed is what Append answers once the log is closed.
var ErrClosed = errors.New("output: log is closed")

// Budget bounds what all logs together may have unsaved, so that a store which
// falls behind many hosts does not fill the memory.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget makes a budget of so many bytes. It is a soft limit: each log may
// have a little whatever the others have.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Source reads what memory holds no more. The store is one.
type Source interface {
	// ReadOutput gives the bytes from offset on, at most limit, fewer only where no
	// more are stored.
	ReadOutput(ctx context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error)
	// ReadOrder gives the stored waypoints from the last one at or before a position
	// on, at most limit, fewer only where no more are stored.
	ReadOrder(ctx context.Context, id string, position int64, limit int) ([]command.Sizes, error)
}

// Log is the log of one command. All methods may be called concurrently.
type Log struct {
	id     string
	source Source
	budget *Budget
	bell   *Bell // rung by Append and Seal

	mu      sync.Mutex
	streams [len(command.Streams)]stream
	order   order         // in which their bytes came
	unsaved int           // bytes of both streams that the store has not got
	room    chan struct{} // closed when unsaved has fallen; nil while nobody waits
	sealed  bool          // no more will be appended
	closed  bool          // Append fails
}

// stream is one stream; its Log's mu guards it.
type stream struct {
	segments []segment // contiguous; the last one may still grow
	size     int64     // offset behind the last byte
	saved    int64     // offset behind the last byte that the store has
}

// segment is a run of bytes. Bytes below len(data) never change, so a reader
// may hold a slice of them while more are appended behind.
type segment struct {
	offset int64
	data   []byte
}

func (g segment) end() int64 { return g.offset + int64(len(g.data)) }

// NewLog makes the log of a command; bell is rung whenever there is news.
func NewLog(id string, source Source, budget *Budget, bell *Bell) *Log {
	return &Log{id: id, source: source, budget: budget, bell: bell}
}

// ResumeLog makes the log of a command of which the source has the beginning: at
// says how much of each stream.
func ResumeLog(id string, source Source, budget *Budget, bell *Bell, at command.Sizes) *Log {
	l := NewLog(id, source, budget, bell)
	for _, s := range command.Streams {
		l.streams[s].size, l.streams[s].saved = at[s], at[s]
	}
	l.order.resume(at)
	return l
}

// Append adds a copy of data to a stream and gives how many bytes of both now
// wait for the store. It waits while too much does, and fails with ErrClosed
// after Close. Each stream has one appender at a time.
func (l *Log) Append(s command.Stream, data []byte) (unsaved int, err error) {
	l.mu.Lock()
	for l.full() && !l.closed {
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		<-room
		l.mu.Lock()
	}
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	if len(data) > 0 {
		l.order.before(s, l.sizes())
	}
	l.streams[s].append(data)
	l.unsaved += len(data)
	l.budget.used.Add(int64(len(data)))
	unsaved = l.unsaved
	l.mu.Unlock()
	l.bell.Ring()
	return unsaved, nil
}

// full reports whether Append must wait. A log that waits for the budget has
// unsaved bytes of its own, so its own next SavedTo wakes it.
func (l *Log) full() bool {
	return l.unsaved >= MaxUnsaved || l.unsaved >= budgetShare && l.budget.used.Load() >= l.budget.limit ||
		len(l.order.points) >= mostPoints && len(l.order.unsaved(l.savedSizes())) >= mostPoints
}

func (t *stream) append(data []byte) {
	for len(data) > 0 {
		var last *segment
		next := leastSegment
		if n := len(t.segments); n > 0 {
			last = &t.segments[n-1]
			next = min(2*cap(last.data), mostSegment)
		}
		if last == nil || len(last.data) == cap(last.data) {
			for next < len(data) && next < mostSegment {
				next *= 2
			}
			t.segments = append(t.segments, segment{offset: t.size, data: make([]byte, 0, next)})
			continue
		}
		n := min(len(data), cap(last.data)-len(last.data))
		last.data = append(last.data, data[:n]...)
		t.size += int64(n)
		data = data[n:]
	}
}

// Unsaved gives output that the store has not got, in chunks of at most 1 MiB,
// about limit bytes in all, the first that came, and the waypoints in it. The
// owner stores both and calls SavedTo.
func (l *Log) Unsaved(limit int) (chunks []command.Chunk, order []command.Sizes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.prefix(limit)
	for _, s := range command.Streams {
		t := &l.streams[s]
		for _, g := range t.segments {
			from, end := max(t.saved, g.offset), min(to[s], g.end())
			if from >= end {
				continue
			}
			data := g.data[from-g.offset : end-g.offset : end-g.offset]
			chunks = append(chunks, command.Chunk{Stream: s, Offset: from, Data: data})
		}
	}
	order = l.order.unsaved(l.savedSizes())
	return chunks, slices.Clone(order[:command.Before(order, to.Position()-1)+1])
}

// SavedTo says that the store has each stream up to these offsets. Offsets that
// it was known to have before change nothing.
func (l *Log) SavedTo(sizes command.Sizes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range command.Streams {
		t := &l.streams[s]
		if n := sizes[s] - t.saved; n > 0 {
			t.saved = sizes[s]
			l.unsaved -= int(n)
			l.budget.used.Add(-n)
			t.forget()
		}
	}
	l.order.forget(l.savedSizes())
	l.wakeAppend()
}

// forget drops saved segments from memory, but for the last Window bytes.
func (t *stream) forget() {
	n := 0
	for n < len(t.segments)-1 && t.segments[n].end() <= t.saved-Window {
		n++
	}
	if n > 0 {
		kept := copy(t.segments, t.segments[n:])
		clear(t.segments[kept:])
		t.segments = t.segments[:kept]
	}
}

func (l *Log) wakeAppend() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// UnsavedBytes is how many bytes of both streams wait for the store.
func (l *Log) UnsavedBytes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}

// Seal says that no more output will come.
func (l *Log) Seal() {
	l.mu.Lock()
	l.sealed = true
	l.mu.Unlock()
	l.bell.Ring()
}

// Close makes Append fail, also one that is waiting. What is in the log can
// still be read and saved.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	l.wakeAppend()
	l.mu.Unlock()
}

// Release gives back what the log takes of the budget. It is called once, when
// nothing will be saved any more.
func (l *Log) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.budget.used.Add(-int64(l.unsaved))
}

// Sizes gives the size of each stream so far, which is a place in the order, and
// whether that is final.
func (l *Log) Sizes() (sizes command.Sizes, sealed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sizes(), l.sealed
}

// SavedSizes gives how much of each stream the store has.
func (l *Log) SavedSizes() (sizes command.Sizes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.savedSizes()
}

// Remembers reports whether the byte at an offset is in memory.
func (l *Log) Remembers(s command.Stream, offset int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &l.streams[s]
	return len(t.segments) > 0 && t.segments[0].offset <= offset && offset < t.size
}

// Read gives bytes of a stream from offset on, at most limit, from memory or
// else from the source. It gives none at the end of what there is; it does not
// wait. The bytes must not be changed.
func (l *Log) Read(ctx context.Context, s command.Stream, offset int64, limit int) ([]byte, error) {
	l.mu.Lock()
	t := &l.streams[s]
	if offset >= t.size {
		l.mu.Unlock()
		return nil, nil
	}
	for i := len(t.segments) - 1; i >= 0; i-- {
		if g := t.segments[i]; g.offset <= offset {
			from := int(offset - g.offset)
			to := min(len(g.data), from+limit)
			l.mu.Unlock()
			return g.data[from:to:to], nil
		}
	}
	// What is not in memory is saved. Reading beyond it would only repeat memory.
	in := t.size - offset
	if len(t.segments) > 0 {
		in = t.segments[0].offset - offset
	}
	limit = int(min(int64(limit), in))
	l.mu.Unlock()
	return l.source.ReadOutput(ctx, l.id, s, offset, limit)
}
