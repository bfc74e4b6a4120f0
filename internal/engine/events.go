package engine

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// EventsOptions says what changes to watch. All that is set must match.
type EventsOptions struct {
	After     *int64 // what has changed behind this number comes first; nil: nothing does
	Host      string
	Principal string
	Labels    map[string]string
}

// News is one thing that a watcher of events is told.
type News struct {
	Number   int64     // whoever comes back behind it misses nothing; it never falls
	Snapshot *Snapshot // a command that was made or has changed; nil: all that was missed has been told
}

// Events is one watcher of what happens to all commands that its caller may see.
// Like a Watch it is a cursor: a slow one slows nobody, and misses steps in
// between, never the last one. Its methods are for one goroutine at a time, but for
// Close.
//
//	behind ──▶ living ──▶ following
//	   ▲                     │ it was slower than the tail is long
//	   └─────────────────────┘
type Events struct {
	feed   *feed
	by     access.Caller
	all    bool // the caller may see everything
	wanted EventsOptions
	leave  func()

	stage  stage
	number int64

	// While behind: what the journal had, only the number of what is not told of it, and
	// up to where that is all.
	page  []command.Changed
	upTo  int64
	least int64 // the last number when the watch began; what has it is told before synced

	next string // while living: the id told last
	// While following: the place told last, and of commands that were told as they
	// are at a place further on, that place.
	place uint64
	ahead map[string]uint64

	synced bool
}

// stage is what a watcher tells.
type stage uint8

const (
	behind    stage = iota // ends that the journal has behind number, in their order
	living                 // what has not ended, by id
	following              // the tail of the feed
)

// WatchEvents begins to watch what happens: the ends behind o.After, all that has
// not ended, then every change. The caller closes it. ROLE_MISSING where the caller
// may look at nothing; EVENTS_UNKNOWN where o.After was not given by this store.
func (e *Engine) WatchEvents(ctx context.Context, by access.Caller, o EventsOptions) (*Events, error) {
	if err := e.rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, err
	}
	last, err := e.journal.LastChange(ctx)
	if err != nil {
		return nil, err
	}
	w := &Events{feed: e.feed, by: by, all: e.rights.SeesAll(by), wanted: o, number: last, least: last, leave: sync.OnceFunc(e.feed.leave)}
	if o.After != nil {
		if *o.After > last {
			return nil, fault.New(fault.OutOfRange, fault.ReasonEventsUnknown, "the last change has number %d; %d lies behind it", last, *o.After).
				WithHint("The store is another one than before: begin again with after 0, or without")
		}
		w.number = *o.After
	}
	e.feed.join(last)
	return w, nil
}

// Close ends the watch. It may be called twice.
func (w *Events) Close() { w.leave() }

// Number gives how far the changes were told.
func (w *Events) Number() int64 { return w.number }

// Next waits for the next news. When ctx ends it gives ctx's error and may be
// called again: nothing is lost. DRAINING when the service stops.
func (w *Events) Next(ctx context.Context) (News, error) {
	for {
		rung := w.feed.bell.Rung()
		n, ok, err := w.poll(ctx)
		if ok || err != nil {
			return n, err
		}
		select {
		case <-rung:
		case <-w.feed.over:
			return News{}, fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down and tells nothing more").
				WithHint("Watch again in a moment, behind the last sequence").WithRetry(time.Second)
		case <-ctx.Done():
			return News{}, context.Cause(ctx)
		}
	}
}

// poll gives what there is to tell now.
func (w *Events) poll(ctx context.Context) (n News, ok bool, err error) {
	for {
		var t *told
		more := true
		switch w.stage {
		case behind:
			t, more, err = w.catchUp(ctx)
		case living:
			if t, more = w.nextLive(); !more && !w.synced {
				w.synced = true
				return News{Number: w.number}, true, nil
			}
			more = true
		case following:
			t, more = w.follow()
		}
		switch {
		case err != nil || !more:
			return News{}, false, err
		case t != nil && w.sees(t):
			return News{Number: w.number, Snapshot: &t.Snapshot}, true, nil
		}
	}
}

// catchUp gives an end that the journal has behind number, or nil where the next
// thing there is no end; more is false where it has to wait for the feed. What has
// not ended is told when it lives, and else its end has a later number.
//
// It goes as far as the feed has come and no further: the feed may yet tell an
// earlier version of what the journal has behind that.
func (w *Events) catchUp(ctx context.Context) (t *told, more bool, err error) {
	if len(w.page) == 0 {
		f := w.feed
		f.mu.Lock()
		known, ready := f.number, f.began && f.number >= w.least
		if ready && w.number == known {
			w.stage, w.place, w.ahead, w.next = living, f.last, nil, ""
		}
		f.mu.Unlock()
		if !ready || w.stage != behind {
			return nil, ready, nil
		}
		if w.page, err = f.engine.journal.Changes(ctx, w.number, changesRead); err != nil {
			return nil, false, err
		}
		whole := len(w.page) < changesRead
		if i := slices.IndexFunc(w.page, func(c command.Changed) bool { return c.Number > known }); i >= 0 {
			w.page, whole = w.page[:i], true
		}
		// The rest is only passed over: a slow watcher is not to keep it, with its input.
		for i := range w.page {
			if c := &w.page[i].Command; !c.Ended() || !w.wants(c) {
				*c = command.Command{}
			}
		}
		w.upTo = 0
		if whole {
			w.upTo = known // the numbers in between are of what has changed since, or is deleted
		}
		if len(w.page) == 0 {
			w.number = max(w.number, w.upTo)
			return nil, true, nil
		}
	}
	c := w.page[0]
	if c.Command.Ended() {
		w.feed.awaitOwner(ctx, c.Command.ID)
		if t, err = w.feed.telling(ctx, Snapshot{Command: c.Command}, c.Number); err != nil {
			return nil, false, err // and nothing is passed over
		}
	}
	w.page = w.page[1:]
	w.number = c.Number
	if len(w.page) == 0 {
		w.page, w.number = nil, max(w.number, w.upTo)
	}
	return t, true, nil
}

// nextLive gives the next command that has not ended; more is false behind the last
// one. By id, which no change moves, so that each is told however slow the watcher.
func (w *Events) nextLive() (t *told, more bool) {
	f := w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	i, found := slices.BinarySearch(f.ids, w.next)
	if found {
		i++
	}
	if i == len(f.ids) {
		w.stage = following
		return nil, false
	}
	w.next = f.ids[i]
	t = f.current[w.next]
	w.told(t)
	return t, true
}

// follow gives the next command of the tail, or nil where it was told already; more
// is false at the end.
func (w *Events) follow() (t *told, more bool) {
	f := w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.last - uint64(len(f.tail)) + 1
	switch {
	case w.place == f.last:
		w.number = max(w.number, f.number)
		return nil, false
	case w.place+1 < first:
		w.stage = behind
		return nil, true
	}
	w.place++
	t = f.tail[w.place-first]
	w.number = max(w.number, t.number)
	if at, was := w.ahead[t.ID]; was && at >= w.place {
		if at == w.place {
			delete(w.ahead, t.ID)
		}
		return nil, true
	}
	// It may have changed since. The last state is told, and at once: whatever changes
	// all the time would else always be further on.
	if t = f.current[t.ID]; t != nil {
		w.told(t)
	}
	return t, true
}

// told notes that a command is told as it was at a place, which may lie ahead.
func (w *Events) told(t *told) {
	if t.place > w.place {
		if w.ahead == nil {
			w.ahead = make(map[string]uint64)
		}
		w.ahead[t.ID] = t.place
	}
}

// wants reports whether the watcher asked for a command.
func (w *Events) wants(c *command.Command) bool {
	if w.wanted.Host != "" && c.Spec.Host != w.wanted.Host || w.wanted.Principal != "" && c.CreatedBy.Principal != w.wanted.Principal {
		return false
	}
	for name, value := range w.wanted.Labels {
		if has, ok := c.Spec.Labels[name]; !ok || has != value {
			return false
		}
	}
	return true
}

// sees reports whether the watcher asked for a command and may see it: just those
// that Get would give.
func (w *Events) sees(t *told) bool {
	if !w.wants(&t.Command) {
		return false
	}
	if w.all || t.CreatedBy.Principal == w.by.Name || t.Spec.SessionOwner == w.by.Name {
		return true
	}
	thing := access.Thing{What: "command", ID: t.ID, Owner: t.CreatedBy.Principal, Host: t.Spec.Host, Labels: t.labels}
	return w.feed.engine.rights.May(w.by, access.Look, thing) == nil ||
		slices.ContainsFunc(t.deciders, func(role string) bool { return w.by.Has(access.Role(role)) })
}
