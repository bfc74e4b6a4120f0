package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
)

// The feed tells what changes, once for all who watch (events.go), and only while
// somebody does. Whoever changes a command marks it; the feed's one goroutine then
// makes a round: it reads what the journal has numbered since, takes a snapshot of
// what else was marked, and puts both at the end of a bounded tail.
//
//	accept, owners, deciders ──touch──▶ marked ─┐
//	                                            ├─ round ─▶ tail ─▶ any number of cursors
//	journal ──────────────────────── Changes ───┘           current
//
// Ends are told from the journal alone, in its order and with their numbers. So all
// that has ended at or below the number of a place in the tail stands before it, and
// whoever comes back with that number finds the rest in the journal.

const (
	// tailMost is how many changes a watcher may be behind before it reads the journal.
	tailMost = 1024
	// roundEvery is how long rounds lie apart where much happens. After a rest
	// roundsAtOnce need not wait: what comes alone is told at once, and so is the end
	// that follows a cancel in a moment.
	roundEvery   = 10 * time.Millisecond
	roundsAtOnce = 3
	// changesRead is how many changes are read at once.
	changesRead = 100
	// knownMost is how long the feed waits for the owner of a command whose end the
	// journal has: mostly he is about to be told of it.
	knownMost = time.Second
	// placeEvery is how long, for each place in a queue that has moved, the next moves
	// wait: one that is freed moves all behind it, and thousands may wait.
	placeEvery = time.Millisecond
)

// told is a command as the feed tells it, without what nobody is shown: it may stay
// here when the command has long ended. It is never changed once it has a place.
type told struct {
	Snapshot
	place    uint64            // in the feed; they rise by one
	number   int64             // the last of the journal's that was read when it was told
	labels   map[string]string // of its host
	deciders []string          // roles of those who decide about it, and so may see it
}

// feed is described above.
type feed struct {
	engine *Engine
	most   int           // tailMost, but in tests
	wake   chan struct{} // capacity 1: there is something to do
	bell   output.Bell   // rung by a round that told something
	over   chan struct{} // closed by run: nothing will be told any more

	watching atomic.Int64 // watchers; changed with mu held

	marks struct {
		sync.Mutex
		news   bool             // the journal may have changes
		marked map[string]*live // changed since the last round
		moved  map[string]*live // whose place in the queue has moved since then
	}

	mu sync.Mutex
	// Guarded by mu.
	era     int              // grows when the last watcher goes; what was read before is void
	began   bool             // current has all that live
	number  int64            // of the journal's: told up to here
	asked   int64            // the highest that the journal had when a watcher came
	last    uint64           // place of the end of tail
	tail    []*told          // the last of what was told
	current map[string]*told // how each was told last: all that live, and what is in tail
	ids     []string         // of those in current that have not ended; sorted

	placesDue time.Time // run's own: when moves are told again
}

func newFeed(e *Engine) *feed {
	return &feed{engine: e, most: tailMost, wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// touch says that a command has changed. Anyone may call it; it costs next to
// nothing while nobody watches.
func (f *feed) touch(l *live) {
	if f.watching.Load() == 0 {
		return
	}
	f.mark(map[string]*live{l.id: l})
	f.ring()
}

func (f *feed) mark(lives map[string]*live) {
	f.marks.Lock()
	defer f.marks.Unlock()
	if f.marks.marked == nil {
		f.marks.marked = make(map[string]*live)
	}
	maps.Copy(f.marks.marked, lives)
	f.marks.news = true
}

// move says that a command's place in the queue may have changed.
func (f *feed) move(l *live) {
	if f.watching.Load() == 0 {
		return
	}
	f.marks.Lock()
	if f.marks.moved == nil {
		f.marks.moved = make(map[string]*live)
	}
	f.marks.moved[l.id] = l
	f.marks.Unlock()
	f.ring()
}

// stir says that the journal has a change that touch has not told of.
func (f *feed) stir() {
	if f.watching.Load() == 0 {
		return
	}
	f.marks.Lock()
	f.marks.news = true
	f.marks.Unlock()
	f.ring()
}

func (f *feed) ring() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// join counts a watcher in, to whom the journal's last number is known.
func (f *feed) join(last int64) {
	f.mu.Lock()
	f.watching.Add(1)
	f.asked = max(f.asked, last)
	f.mu.Unlock()
	f.stir()
}

// leave counts a watcher out. What nobody watches is forgotten at once.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watching.Add(-1) > 0 {
		return
	}
	f.era++
	f.began, f.tail, f.current, f.ids = false, nil, nil, nil
	f.unmark()
}

// unmark forgets what was marked, which keeps commands in memory. Whoever comes
// begins with all that lives.
func (f *feed) unmark() {
	f.marks.Lock()
	defer f.marks.Unlock()
	f.marks.marked, f.marks.moved = nil, nil
}

// run makes rounds until ctx ends.
func (f *feed) run(ctx context.Context) {
	defer close(f.over)
	pause := time.Duration(0) // after a round that failed; 0: none did
	var again time.Time       // when the next round may begin
	for next := time.Duration(0); ; {
		var due <-chan time.Time // nil: nothing is
		if next > 0 {
			due = time.After(next)
		}
		woken := false
		select {
		case <-f.wake:
			woken = true
		case <-due:
		case <-ctx.Done():
			return
		}
		err := f.engine.guard("tell", "change", "feed", func() (err error) {
			next, err = f.round(ctx)
			return err
		})
		switch {
		case err == nil || ctx.Err() != nil:
			pause = 0
		case pause == 0: // told once, however often somebody wakes it meanwhile
			f.engine.log.Warn("changes of commands could not be read; they are told later", "error", err)
			pause = retryLeast
		case !woken:
			pause = min(2*pause, retryMost)
		}
		if pause > 0 {
			next = pause
			f.marks.Lock()
			f.marks.news = true
			f.marks.Unlock()
		}
		if rested := time.Now().Add(-roundsAtOnce * roundEvery); again.Before(rested) {
			again = rested
		}
		again = again.Add(roundEvery)
		if wait := time.Until(again); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
	}
}

// round tells what has changed. It gives when the next round is due though nobody
// wakes it; 0: never. After an error of the journal what lives was told all the same.
func (f *feed) round(ctx context.Context) (next time.Duration, err error) {
	f.mu.Lock()
	era, began, watched := f.era, f.began, f.watching.Load() > 0
	place, number := f.last, f.number
	f.mu.Unlock()
	if !watched {
		f.unmark() // what was marked while the last one went
		return 0, nil
	}
	if !began {
		if err := f.begin(ctx, era); err != nil {
			return 0, err
		}
	}
	news, marked, moved, next := f.take()
	if news {
		err = f.readChanges(ctx, era, marked)
	}
	err = errors.Join(err, f.tellLives(ctx, era, marked, err == nil), f.tellLives(ctx, era, moved, false))
	f.mu.Lock()
	void, more := f.era != era, !began || f.last != place || f.number != number
	f.mu.Unlock()
	if void {
		f.stir() // what was taken may have been of the watchers that have come since
	}
	if err != nil {
		f.mark(marked)
		f.mark(moved)
	}
	if more {
		f.bell.Ring()
	}
	return next, err
}

// take gives what was marked since the last round, moves only where they are due;
// next is when they are.
func (f *feed) take() (news bool, marked, moved map[string]*live, next time.Duration) {
	f.marks.Lock()
	defer f.marks.Unlock()
	news, marked = f.marks.news, f.marks.marked
	f.marks.news, f.marks.marked = false, nil
	if len(f.marks.moved) == 0 {
		return news, marked, nil, 0
	}
	if next = time.Until(f.placesDue); next > 0 {
		return news, marked, nil, next
	}
	moved, f.marks.moved = f.marks.moved, nil
	f.placesDue = time.Now().Add(time.Duration(len(moved)) * placeEvery)
	return news, marked, moved, 0
}

// begin takes up all that lives, for the first watcher.
func (f *feed) begin(ctx context.Context, era int) error {
	// First the number: what is stored behind it is told from the journal. Then what
	// has not ended there, for an owner knows of an end that it has stored, and of one
	// that it has not, a moment later.
	number, err := f.engine.journal.LastChange(ctx)
	if err != nil {
		return err
	}
	current := make(map[string]*told)
	// Page by page, since they come with their input.
	for filter := (command.Filter{States: unfinishedStates, Limit: changesRead}); ; {
		unfinished, err := f.engine.journal.List(ctx, filter)
		if err != nil {
			return err
		}
		for _, c := range unfinished {
			l := f.engine.find(c.ID)
			if l == nil {
				continue
			}
			s := l.snapshot()
			if s.Ended() {
				continue
			}
			if current[l.id], err = f.telling(ctx, s, number); err != nil {
				return err
			}
		}
		if len(unfinished) < filter.Limit {
			break
		}
		filter.Before = unfinished[len(unfinished)-1].ID
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.era != era {
		return nil
	}
	for _, t := range current {
		t.place = f.last
	}
	f.began, f.number, f.current = true, number, current
	f.ids = slices.Sorted(maps.Keys(current))
	return nil
}

// readChanges tells what the journal has numbered since the last round. What it has
// told is no longer in marked.
func (f *feed) readChanges(ctx context.Context, era int, marked map[string]*live) error {
	f.mu.Lock()
	after, asked := f.number, f.asked
	f.mu.Unlock()
	for {
		page, err := f.engine.journal.Changes(ctx, after, changesRead)
		if err != nil {
			return err
		}
		list := make([]*told, 0, len(page))
		for _, c := range page {
			s := Snapshot{Command: c.Command}
			if s.Ended() {
				f.awaitOwner(ctx, s.ID)
			} else {
				// What its owner knows is newer. Where that is the end, it comes with its number.
				l := f.engine.find(s.ID)
				if l == nil {
					continue
				}
				if s = l.snapshot(); s.Ended() {
					continue
				}
			}
			t, err := f.telling(ctx, s, c.Number)
			if err != nil {
				f.addAll(era, list, c.Number-1)
				return err
			}
			if list = append(list, t); !s.Ended() {
				delete(marked, s.ID)
			}
		}
		whole := len(page) < changesRead
		if len(page) > 0 {
			after = page[len(page)-1].Number
		}
		if whole {
			after = max(after, asked) // of what lies in between, retention has deleted the commands
		}
		if !f.addAll(era, list, after) || whole {
			return nil
		}
	}
}

// awaitOwner waits until the owner of a command knows of its end, so that whoever is
// told of it and asks for the command is answered the same.
func (f *feed) awaitOwner(ctx context.Context, id string) {
	if f.engine.find(id) == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, knownMost)
	defer stop()
	_, _ = f.engine.Await(ctx, id, func(Snapshot) bool { return false }) // late is better than never
}

// addAll adds what the journal has up to a number. It reports false where nobody
// watches any more who did when that was read.
func (f *feed) addAll(era int, list []*told, number int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.era != era {
		return false
	}
	for _, t := range list {
		f.add(t)
	}
	f.number = number
	return true
}

// tellLives tells what was marked and lives, where it was told before: what is new
// comes from the journal, and of what has ended there the owner may not know it yet.
// Where the journal was read, what has neither ended nor has an owner any more was
// let go of, and is forgotten. On an error of the journal it has told the others.
func (f *feed) tellLives(ctx context.Context, era int, marked map[string]*live, read bool) (failed error) {
	list := make([]*told, 0, len(marked))
	var gone []string
	for _, l := range marked {
		switch s := l.snapshot(); {
		case f.engine.find(l.id) != l:
			gone = append(gone, l.id)
		case !s.Ended():
			if t, err := f.telling(ctx, s, 0); err != nil {
				failed = err
			} else {
				list = append(list, t)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.era != era || !f.began {
		return failed
	}
	for _, t := range list {
		if was := f.current[t.ID]; was != nil && !was.Ended() {
			t.number = f.number
			f.add(t)
		}
	}
	for _, id := range gone {
		if t := f.current[id]; read && t != nil && !t.Ended() {
			delete(f.current, id)
			f.ends(id)
		}
	}
	return failed
}

// telling gives a command as it is to be told. Its error is that the journal cannot
// say for now who decides about it; where it never can, nobody does.
func (f *feed) telling(ctx context.Context, s Snapshot, number int64) (*told, error) {
	t := &told{Snapshot: s, number: number, labels: f.engine.labels(s.Spec.Host)}
	blank(&t.Spec)
	t.Spec.Redact = nil
	switch {
	case !s.Gated:
	case s.Gate != nil:
		t.deciders = s.Gate.Roles
	default:
		gate, err := f.engine.gateOf(ctx, s.ID)
		if err != nil && (ctx.Err() != nil || fault.KindOf(err) == fault.Unavailable) {
			return nil, err
		}
		t.deciders = gate.Roles
	}
	return t, nil
}

// add puts what is new at the end of the tail. mu is held.
func (f *feed) add(t *told) {
	if was := f.current[t.ID]; was != nil && (was.Ended() || !t.Ended()) {
		if t.Version < was.Version || t.Version == was.Version && t.position() == was.position() {
			return
		}
	}
	f.last++
	t.place = f.last
	f.tail = append(f.tail, t)
	f.current[t.ID] = t
	if t.Ended() {
		f.ends(t.ID)
	} else if i, known := slices.BinarySearch(f.ids, t.ID); !known {
		f.ids = slices.Insert(f.ids, i, t.ID)
	}
	if len(f.tail) <= f.most {
		return
	}
	oldest := f.tail[0]
	f.tail[0] = nil
	f.tail = f.tail[1:]
	if f.current[oldest.ID] == oldest && oldest.Ended() {
		delete(f.current, oldest.ID)
	}
}

// ends takes a command out of those that live. mu is held.
func (f *feed) ends(id string) {
	if i, known := slices.BinarySearch(f.ids, id); known {
		f.ids = slices.Delete(f.ids, i, i+1)
	}
}
