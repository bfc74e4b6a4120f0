package terminal

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// watchMost is how many ends wait for a watcher; older ones are passed over.
const watchMost = 1024

// Watcher tells of all sessions that its caller may see: first those that have not
// ended, then every change, the latest of each session. It is for one goroutine, and
// slows nobody.
type Watcher struct {
	set    *Terminals
	by     access.Caller
	told   map[string]int64 // changes of each session that were told
	next   []*live          // to be told
	synced bool
	ends   []session.Session // guarded by set.mu
	once   sync.Once
}

// Watch begins to watch. The caller closes it.
func (t *Terminals) Watch(_ context.Context, by access.Caller) *Watcher {
	w := &Watcher{set: t, by: by, told: make(map[string]int64)}
	t.mu.Lock()
	t.watchers[w] = true
	t.mu.Unlock()
	return w
}

// over tells watchers of an end.
func (t *Terminals) over(l *live) {
	s := l.snapshot()
	if !s.Ended() {
		return
	}
	t.mu.Lock()
	for w := range t.watchers {
		if len(w.ends) == watchMost {
			w.ends = slices.Delete(w.ends, 0, 1)
		}
		w.ends = append(w.ends, s)
	}
	t.mu.Unlock()
}

// Close ends the watch. It may be called twice.
func (w *Watcher) Close() {
	w.once.Do(func() {
		w.set.mu.Lock()
		delete(w.set.watchers, w)
		w.set.mu.Unlock()
	})
}

// Next waits for a session that has changed; nil, once, when all that had not ended were
// told. When ctx ends it gives ctx's error and may be called again. DRAINING when the
// service stops.
func (w *Watcher) Next(ctx context.Context) (*session.Session, error) {
	for {
		rung := w.set.bell.Rung()
		if s := w.poll(); s != nil {
			return s, nil
		}
		if !w.synced {
			w.synced = true
			return nil, nil
		}
		select {
		case <-w.set.stopped:
			return nil, fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down and tells nothing more").
				WithHint("Watch again in a moment").WithRetry(time.Second)
		default:
		}
		select {
		case <-rung:
		case <-w.set.stopped:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// poll gives what has changed.
func (w *Watcher) poll() *session.Session {
	if len(w.next) == 0 {
		w.next = w.set.all()
		slices.SortFunc(w.next, func(a, b *live) int { return strings.Compare(a.id, b.id) })
	}
	for len(w.next) > 0 {
		l := w.next[0]
		w.next = w.next[1:]
		l.mu.Lock()
		s, changes := l.told(), l.changes
		l.mu.Unlock()
		if told, was := w.told[l.id]; was && told == changes || s.Ended() {
			continue // an end is among ends
		}
		w.told[l.id] = changes
		if w.sees(&s) {
			return &s
		}
	}
	for {
		w.set.mu.Lock()
		if len(w.ends) == 0 {
			w.set.mu.Unlock()
			return nil
		}
		s := w.ends[0]
		w.ends = slices.Delete(w.ends, 0, 1)
		w.set.mu.Unlock()
		delete(w.told, s.ID)
		if w.sees(&s) {
			return &s
		}
	}
}

func (w *Watcher) sees(s *session.Session) bool {
	return w.set.rights.May(w.by, access.Look, w.set.thing(s)) == nil
}
