package workflow

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/task"
)

// AllOptions says which tasks to watch. All that is set must match.
type AllOptions struct {
	After     map[string]int64 // by id: behind which event of these it begins
	Principal string
	Labels    map[string]string
}

func (o *AllOptions) wants(t *task.Task) bool {
	if o.Principal != "" && o.Principal != t.CreatedBy.Principal {
		return false
	}
	for key, value := range o.Labels {
		if has, ok := t.Spec.Labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}

// All is one watcher of all tasks that its caller may see. It keeps for each that has not
// ended which event it was told last, and reads what is behind that: so it misses none
// however slow it is, and slows nobody. Next is for one goroutine.
type All struct {
	w   *Workflow
	by  access.Caller
	all bool // it may see those of others
	o   AllOptions

	mu    sync.Mutex       // taken under that of a task
	after map[string]int64 // by id: the event that was told last
	next  []string         // those of which there may be more to tell, each once …
	due   map[string]bool  // … which these are
	wake  chan struct{}    // holds one where next has got something

	// Next's.
	met  map[string]bool // those that it was told of as such
	page []task.Event
	view *View // of page; told first where it is not met yet
}

// Happening is one thing that a watcher of all tasks is told: a task that it meets, or an
// event of one, which was met before.
type Happening struct {
	View  *View // the task as it is, or as it was when page was read
	Event *task.Event
	Known bool // nothing is set: all that was there when the watch began has been told
}

// WatchAll begins to tell what happens to tasks: of those that have not ended first the
// task, then its events; of o.After the events behind these. EVENTS_UNKNOWN, ACCESS_DENIED
// or UNKNOWN_TASK for an o.After that makes no sense. The caller closes the watcher.
func (w *Workflow) WatchAll(ctx context.Context, by access.Caller, o AllOptions) (*All, error) {
	if err := w.Rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(o.After)) {
		if _, _, err := w.Watch(ctx, by, id, o.After[id]); err != nil {
			return nil, err
		}
	}
	a := &All{
		w: w, by: by, all: w.Rights.SeesAll(by), o: o,
		after: make(map[string]int64), due: make(map[string]bool), wake: make(chan struct{}, 1), met: make(map[string]bool),
	}
	for id, after := range o.After {
		a.mark(id, after)
	}
	w.crowd.mu.Lock()
	w.crowd.all[a] = true // before it is looked what there is: what begins meanwhile is told by that
	w.crowd.mu.Unlock()
	w.mu.Lock()
	lives := slices.Collect(maps.Values(w.lives))
	w.mu.Unlock()
	slices.SortFunc(lives, func(x, y *live) int { return strings.Compare(x.id, y.id) })
	open := make([]task.Task, len(lives))
	for i, l := range lives {
		open[i] = l.snapshot()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range open {
		if t := &open[i]; a.sees(t) {
			a.mark(t.ID, t.Sequence)
		}
	}
	a.next = append(a.next, "") // then all that was there has been told
	return a, nil
}

// sees reports whether a task is among those that the watcher is told of.
func (a *All) sees(t *task.Task) bool {
	return (a.all || t.CreatedBy.Principal == a.by.Name) && a.o.wants(t)
}

// mark notes that there may be more of a task; after is what was told of it before, where
// that is not known yet. mu is held.
func (a *All) mark(id string, after int64) {
	if _, known := a.after[id]; !known {
		a.after[id] = after
	}
	if !a.due[id] {
		a.due[id] = true
		a.next = append(a.next, id)
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Close ends the watch.
func (a *All) Close() {
	a.w.crowd.mu.Lock()
	defer a.w.crowd.mu.Unlock()
	delete(a.w.crowd.all, a)
}

// Next waits for the next thing that happens. When ctx ends it gives ctx's error, and
// nothing is lost. DRAINING when the service stops.
func (a *All) Next(ctx context.Context) (Happening, error) {
	for {
		if v := a.view; v != nil {
			if !a.met[v.ID] {
				a.met[v.ID] = true
				return Happening{View: v}, nil
			}
			if len(a.page) > 0 {
				e := a.page[0]
				a.page = a.page[1:]
				a.told(v, e.Sequence)
				return Happening{View: v, Event: &e}, nil
			}
			a.view = nil
			a.told(v, 0)
		}
		id, ok := a.pop()
		switch {
		case !ok:
			select {
			case <-a.wake:
			case <-a.w.stopped():
				return Happening{}, stopping()
			case <-ctx.Done():
				return Happening{}, context.Cause(ctx)
			}
		case id == "":
			return Happening{Known: true}, nil
		default:
			if err := a.read(ctx, id); err != nil {
				a.mu.Lock()
				a.mark(id, 0)
				a.mu.Unlock()
				return Happening{}, err
			}
		}
	}
}

func (a *All) pop() (id string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.next) == 0 {
		return "", false
	}
	id, a.next = a.next[0], a.next[1:]
	delete(a.due, id)
	return id, true
}

// read takes up a page of what has happened to a task; where there may be more, it is
// asked for again.
func (a *All) read(ctx context.Context, id string) error {
	v, err := a.w.read(ctx, id)
	if err != nil {
		return err
	}
	a.mu.Lock()
	after := a.after[id]
	a.mu.Unlock()
	if v.Sequence > after {
		if a.page, err = a.w.events(ctx, &v, after); err != nil {
			return err
		}
	}
	a.view = &v
	if len(a.page) == watchPage {
		a.mu.Lock()
		a.mark(id, after)
		a.mu.Unlock()
	}
	return nil
}

// told notes that an event was told, or 0 that all were; of a task that is over nothing
// more is kept.
func (a *All) told(v *View, sequence int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	sequence = max(sequence, a.after[v.ID])
	a.after[v.ID] = sequence
	if v.Ended() && sequence >= v.Sequence && !a.due[v.ID] {
		delete(a.after, v.ID)
		delete(a.met, v.ID)
		a.view = nil
	}
}

// crowd are those who watch all tasks.
type crowd struct {
	mu  sync.Mutex
	all map[*All]bool
}

// tell tells them that a task has changed; after is its last event before.
func (c *crowd) tell(t *task.Task, after int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.all {
		if a.sees(t) {
			a.mu.Lock()
			a.mark(t.ID, after)
			a.mu.Unlock()
		}
	}
}
