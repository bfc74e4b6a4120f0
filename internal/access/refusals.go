package access

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
)

const (
	// refusalWindow is how long what repeats is counted before it is written.
	refusalWindow = 10 * time.Second
	// maxRefusalKinds bounds the kinds of refusals that are told apart at a time.
	maxRefusalKinds = 512
	// recordTimeout is how long a refused caller, or the end of the service, waits
	// for the store.
	recordTimeout = time.Second
)

// Recorder keeps audit entries. They are durable when it returns nil. After an
// error they may be there, or not.
type Recorder interface {
	Record(ctx context.Context, entries ...audit.Entry) error
}

// RefusedByAccess reports whether err refuses a call because of who asks or how
// often. Such failures are told to the audit.
func RefusedByAccess(err error) bool {
	if err == nil {
		return false
	}
	switch e := fault.From(err); e.Kind {
	case fault.Unauthenticated, fault.PermissionDenied:
		return true
	case fault.Exhausted:
		return e.Reason == fault.ReasonRateLimited || e.Reason == fault.ReasonTooManyStreams
	}
	return false
}

// Refusals tells the audit of refused calls, and bounds what a flood of them
// writes: each costs its caller nothing and the service a durable row.
//
//	first of its kind   ─▶ written at once, before the caller is answered
//	alike, within 10 s  ─▶ counted, and written as one entry when they are over
//	of too many kinds   ─▶ counted by reason alone, and written in the same way
//
// Alike are refusals of one principal at one address, of one method for one
// reason. An entry that the store does not take is logged and tried again with
// what is counted: a refusal stands in the audit or in the log, in rare cases in
// both, and never in neither. Its methods may be called from any goroutine.
type Refusals struct {
	recorder Recorder
	log      *slog.Logger
	opened   chan struct{} // Tell to Run: there is a first window; of 1, so that it never blocks

	mu     sync.Mutex
	kinds  map[refusalKind]*alike
	others map[string]*alike // by reason, for which kinds has no place
	queue  []*alike          // all of both, by their end
	over   bool              // Run has ended: nothing is counted any more
}

// refusalKind is what is alike.
type refusalKind struct{ principal, address, method, reason string }

// alike is what is known of the refusals of one kind for ten seconds.
type alike struct {
	kind   refusalKind
	shared bool        // it is in others
	last   audit.Entry // that was counted
	count  int         // of those not written
	ends   time.Time
}

// NewRefusals makes one that writes to the recorder. Run has to run for what is
// counted to be written.
func NewRefusals(r Recorder, log *slog.Logger) *Refusals {
	return &Refusals{
		recorder: r, log: log, opened: make(chan struct{}, 1),
		kinds: make(map[refusalKind]*alike), others: make(map[string]*alike),
	}
}

// Tell tells of one refusal. Kind and a zero Time are filled in. When it returns
// the entry is durable, or counted, or logged; it waits for the store a second at
// most, whether or not ctx has ended.
func (r *Refusals) Tell(ctx context.Context, e audit.Entry) {
	e.Kind = audit.Refused
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	w, first := r.count(e)
	if !first {
		return
	}
	if err := r.record(ctx, e); err != nil {
		r.logLost(ctx, e, err)
		r.mu.Lock()
		w.last, w.count = e, w.count+1
		r.mu.Unlock()
	}
}

// count counts a refusal that is like another one, or opens the window of the
// first of its kind, which is not counted.
func (r *Refusals) count(e audit.Entry) (w *alike, first bool) {
	kind := refusalKind{e.Principal, e.Address, e.Method, e.Reason}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return &alike{kind: kind}, true
	}
	if w = r.kinds[kind]; w == nil && len(r.kinds) < maxRefusalKinds {
		w = &alike{kind: kind}
		r.kinds[kind] = w
		r.openLocked(w, e)
		return w, true
	}
	if w == nil {
		if w = r.others[e.Reason]; w == nil {
			w = &alike{kind: kind, shared: true}
			r.others[e.Reason] = w
			r.openLocked(w, e)
		}
	}
	w.last = e
	w.count++
	return w, false
}

func (r *Refusals) openLocked(w *alike, e audit.Entry) {
	w.last, w.ends = e, time.Now().Add(refusalWindow)
	r.queue = append(r.queue, w)
	if len(r.queue) == 1 {
		select {
		case r.opened <- struct{}{}:
		default: // Run is told already
		}
	}
}

// Run writes what was counted when its time is over, and all of it when ctx ends;
// then it returns nil. From then on every refusal is written at once.
func (r *Refusals) Run(ctx context.Context) error {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			r.mu.Lock()
			r.over = true
			r.mu.Unlock()
			r.flush(ctx, time.Now().Add(refusalWindow))
			return nil
		case <-r.opened:
		case <-due.C:
		}
		if next := r.flush(ctx, time.Now()); !next.IsZero() {
			due.Reset(time.Until(next))
		}
	}
}

// flush writes and forgets the windows that end until then, and gives the end of
// the next one; zero where there is none. One that cannot be written is kept for
// another ten seconds.
func (r *Refusals) flush(ctx context.Context, until time.Time) (next time.Time) {
	var over []*alike
	var entries []audit.Entry
	r.mu.Lock()
	for len(r.queue) > 0 && !r.queue[0].ends.After(until) {
		w := r.queue[0]
		r.queue = r.queue[1:]
		if w.shared {
			delete(r.others, w.kind.reason)
		} else {
			delete(r.kinds, w.kind)
		}
		if w.count > 0 {
			over, entries = append(over, w), append(entries, w.entry())
		}
	}
	if len(r.queue) > 0 {
		next = r.queue[0].ends
	}
	r.mu.Unlock()
	if len(entries) == 0 {
		return next
	}
	if err := r.record(ctx, entries...); err != nil {
		for _, e := range entries {
			r.logLost(ctx, e, err)
		}
		return r.keep(over)
	}
	return next
}

// keep takes back windows that could not be written, and gives the next end. New
// ones of their kinds may have been opened meanwhile: those take their counts.
func (r *Refusals) keep(windows []*alike) (next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range windows {
		now := r.kinds[w.kind]
		if w.shared || now == nil && len(r.kinds) >= maxRefusalKinds {
			w.shared, now = true, r.others[w.kind.reason]
		}
		switch {
		case now != nil:
			now.count += w.count
			continue
		case w.shared:
			r.others[w.kind.reason] = w
		default:
			r.kinds[w.kind] = w
		}
		w.ends = time.Now().Add(refusalWindow)
		r.queue = append(r.queue, w)
	}
	return r.queue[0].ends // of one kept, if nothing else
}

// entry is what is written of the refusals counted.
func (w *alike) entry() audit.Entry {
	if w.shared {
		return audit.Entry{
			Time: w.last.Time, Kind: audit.Refused, Reason: w.kind.reason, Count: w.count,
			Detail: fmt.Sprintf("calls of many kinds, which are not told apart: more than %d at once", maxRefusalKinds),
		}
	}
	e := w.last
	if w.count > 1 {
		e.Count = w.count
	}
	return e
}

func (r *Refusals) record(ctx context.Context, entries ...audit.Entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return r.recorder.Record(ctx, entries...)
}

// logLost tells the log what the audit was not told.
func (r *Refusals) logLost(ctx context.Context, e audit.Entry, err error) {
	r.log.ErrorContext(ctx, "a refusal could not be written to the audit", "error", err,
		"principal", e.Principal, "origin", e.Origin, "address", e.Address, "call", e.Call, "method", e.Method,
		"reason", e.Reason, "host", e.Host, "command_id", e.CommandID, "rule", e.Rule, "count", max(1, e.Count))
}
