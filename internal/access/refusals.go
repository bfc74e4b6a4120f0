package access

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

const (
	// refusalWindow is how long what repeats is counted before it is written.
	refusalWindow = 10 * time.Second
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

// How many kinds of refusals are told apart within a window. What strangers do
// takes no place from principals, nor one principal from another, nor a stranger
// that makes kinds up at one address from those at others. A stranger with many
// addresses can take all the places of strangers, and the rest are then told by
// reason alone: the log has each with its address. But guesses, which are limited and
// tell of an attack, have places of their own: what shows no credentials, and costs
// its sender nothing, does not hide them.
const (
	kindsPerPrincipal = 32
	kindsPerAddress   = 16 // of strangers, and of their guesses
	maxStrangerKinds  = 64 // of all of them, and as many rows of addresses; the same for guesses
	maxKnownKinds     = 2048
	maxKnownNames     = 4096 // rows of principals with too many kinds
)

// Refusals tells the audit of refused calls, and bounds what a flood of them
// writes: each costs its caller nothing and the service a durable row.
//
//	first of its kind   ─▶ written at once, before the caller is answered
//	alike, within 10 s  ─▶ counted, and written as one entry when they are over
//	of too many kinds   ─▶ counted for the principal or the address and its door,
//	                       by reason, and written in the same way
//	of too many of them ─▶ counted by reason alone, and written in the same way
//
// Alike are refusals of one principal at one address, of one method for one
// reason; where the policy denies, of one command on one host. Strangers have no
// name, and an IPv6 address of theirs stands for its /64. An entry that the store
// does not take is logged and tried again with what is counted: a refusal stands
// in the audit or in the log, in rare cases in both, and never in neither. Its
// methods may be called from any goroutine.
type Refusals struct {
	recorder Recorder
	log      *slog.Logger
	seed     maphash.Seed
	opened   chan struct{} // Tell to Run: there is a first window; of 1, so that it never blocks

	mu     sync.Mutex
	kinds  map[refusalKind]*alike
	of     map[refusalShare]int // exact ones in kinds, by who is refused
	placed map[refusalClass]int // all in kinds
	queue  []*alike             // all in kinds, by their end
	over   bool                 // Run has ended: nothing is counted any more
}

// refusalKind is what is alike.
type refusalKind struct {
	refusalSource
	method, reason string
	asked          uint64 // hash of the command and its host, where the policy denied it
	refusalClass
}

// refusalSource is who is refused: a principal, or a stranger at an address.
type refusalSource struct{ principal, address string }

// refusalClass is what has its own bound.
type refusalClass struct {
	stranger bool
	guess    bool // of a stranger, with credentials that are not good
	fold     int  // 0: exact, 1: all kinds of one source, 2: of all sources
}

// refusalShare is what of a class one source has.
type refusalShare struct {
	refusalSource
	refusalClass
}

// kindOf gives the exact kind of a refusal.
func (r *Refusals) kindOf(e audit.Entry) refusalKind {
	k := refusalKind{refusalSource: refusalSource{e.Principal, e.Address}, method: e.Method, reason: e.Reason}
	if e.Principal == "" {
		k.stranger, k.guess = true, e.Reason == fault.ReasonBadCredentials
		if a, ok := addressKey(e.Address); ok && a.IsValid() {
			k.address = a.String()
		}
	}
	if e.Reason == fault.ReasonPolicyDenied {
		k.asked = maphash.String(r.seed, e.Host+"\x00"+e.Command)
	}
	return k
}

// source gives who is refused: a principal wherever it is.
func (k refusalKind) source() refusalSource {
	if k.stranger {
		return k.refusalSource
	}
	return refusalSource{principal: k.principal}
}

// share gives whose bound an exact kind counts for.
func (k refusalKind) share() refusalShare { return refusalShare{k.source(), k.refusalClass} }

// folded gives the wider kind to which k belongs. origin is that of a refusal.
func (k refusalKind) folded(origin string) refusalKind {
	wider := refusalKind{reason: k.reason, refusalClass: refusalClass{k.stranger, k.guess, k.fold + 1}}
	if k.stranger {
		wider.method = doorOf(origin)
	}
	if wider.fold == 1 {
		wider.refusalSource = k.source()
	}
	return wider
}

// doorOf names the door through which a call came.
func doorOf(origin string) string {
	switch command.Origin(origin) {
	case command.OriginREST, command.OriginWebSocket, command.OriginWeb:
		return "REST"
	}
	return "gRPC"
}

// alike is what is known of the refusals of one kind for ten seconds.
type alike struct {
	kind  refusalKind
	last  audit.Entry // that was counted
	count int         // of those not written
	ends  time.Time
}

// NewRefusals makes one that writes to the recorder. Run has to run for what is
// counted to be written.
func NewRefusals(r Recorder, log *slog.Logger) *Refusals {
	return &Refusals{
		recorder: r, log: log, opened: make(chan struct{}, 1),
		seed: maphash.MakeSeed(), kinds: make(map[refusalKind]*alike), of: make(map[refusalShare]int), placed: make(map[refusalClass]int),
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
	kind := r.kindOf(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return &alike{kind: kind}, true
	}
	w, opened := r.placeLocked(kind, e.Origin)
	if opened {
		r.openLocked(w, e)
		if w.kind.fold == 0 {
			return w, true
		}
	}
	w.last = e
	w.count++
	return w, false
}

// placeLocked gives the window of a kind, or of the wider one that has a place.
func (r *Refusals) placeLocked(kind refusalKind, origin string) (w *alike, opened bool) {
	for {
		if w := r.kinds[kind]; w != nil {
			return w, false
		}
		if r.roomLocked(kind) {
			break
		}
		kind = kind.folded(origin)
	}
	w = &alike{kind: kind}
	r.kinds[kind] = w
	r.placed[kind.refusalClass]++
	if kind.fold == 0 {
		r.of[kind.share()]++
	}
	return w, true
}

// roomLocked reports whether there is a place for one more kind. The widest are
// few: as many as there are reasons and doors.
func (r *Refusals) roomLocked(k refusalKind) bool {
	most, each := maxKnownKinds, kindsPerPrincipal
	if k.stranger {
		most, each = maxStrangerKinds, kindsPerAddress
	}
	switch k.fold {
	case 0:
		return r.placed[k.refusalClass] < most && r.of[k.share()] < each
	case 1:
		if !k.stranger {
			most = maxKnownNames
		}
		return r.placed[k.refusalClass] < most
	}
	return true
}

// forgetLocked takes a window's place away.
func (r *Refusals) forgetLocked(w *alike) {
	delete(r.kinds, w.kind)
	r.placed[w.kind.refusalClass]--
	if share := w.kind.share(); w.kind.fold == 0 {
		if r.of[share]--; r.of[share] == 0 {
			delete(r.of, share)
		}
	}
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
		r.forgetLocked(w)
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
		now, opened := r.placeLocked(w.kind, w.last.Origin)
		if now.count += w.count; opened {
			now.last, now.ends = w.last, time.Now().Add(refusalWindow)
			r.queue = append(r.queue, now)
		}
	}
	return r.queue[0].ends // of one kept, if nothing else
}

// entry is what is written of the refusals counted.
func (w *alike) entry() audit.Entry {
	if w.kind.fold > 0 {
		return audit.Entry{
			Time: w.last.Time, Kind: audit.Refused, Principal: w.kind.principal, Address: w.kind.address, Method: w.kind.method,
			Reason: w.kind.reason, Count: w.count,
			Detail: fmt.Sprintf("calls of many kinds, which are not told apart: too many within %s", refusalWindow),
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
