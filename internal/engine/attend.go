package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// Times of the care for a command that runs.
const (
	letGo       = 2 * time.Second  // after proof that it is gone, until its channel is given up
	letGoHost   = 30 * time.Second // the same for a durable one, while nothing more comes of it
	ladderExtra = 8 * time.Second  // what a cancel may take beyond its grace
	askLeast    = time.Second      // until a host that could not be asked is asked again, doubling …
	askMost     = 30 * time.Second // … up to this
	// sessionStoreFirst is Engine.storeFirst in a session, whose viewers are to see in
	// a moment that it is cancelled.
	sessionStoreFirst = 20 * time.Millisecond
	askEnded          = 4                // so often the host is asked what is left of a command that has ended
	hostExtra         = 15 * time.Second // what a host may take to end a command at its timeout by itself
	asideExtra        = time.Second      // what an overtaken ladder may take beyond the one that overtook it
)

// waited is what Process.Wait gave.
type waited struct {
	end command.Ending
	err error
}

// ladder is what Process.Cancel gave.
type ladder struct {
	number int
	report command.CancelReport
	err    error // the host could not be asked; the ladder may have run there
}

// attendance is the care of an owner for a command that runs. All of it is the
// owner's own.
type attendance struct {
	*live
	p       Process
	durable bool
	stays   bool        // it goes on without the service: durable, or in a session that is kept
	waits   chan waited // the waiter's one result
	ladders chan ladder // from every ladder; none waits for it beyond attend

	// The ladders under way, by number, with what ends each. All but the last one
	// were overtaken by one with a shorter grace.
	out    map[int]context.CancelFunc
	last   int
	killBy time.Time             // when the grace of the last one is over
	before *command.CancelReport // report when the first of them began
	beside *command.CancelReport // what those of them that told have come to

	w        *waited               // its end, once it is known
	report   *command.CancelReport // of the last ladder that told
	unproven bool                  // the last ladder told nothing
	again    bool                  // the host came back while a ladder was under way
	expired  bool                  // its timeout has passed, and this service sees to it
	timedOut bool                  // and before any cancel was asked for
	overdue  bool                  // it has passed while the host could not be reached
	closed   bool                  // the process was closed here
	quiet    command.Sizes         // of its output when giveUp was last set
	wishing  bool                  // a ladder waits for the cancel to be stored

	asked   int // how often the host was asked in vain what is left of what has ended
	backoff time.Duration
	timeout <-chan time.Time // when to see to its timeout
	ask     <-chan time.Time // when to try a ladder again
	wishBy  <-chan time.Time // when a ladder waits for the store no longer
	asideBy <-chan time.Time // when to wait no longer for overtaken ladders
	giveUp  <-chan time.Time // when to wait no longer for the end of what is gone
}

// attend sees a running command to its end: it stores output, ends the command
// when a cancel or the timeout asks for it, and stores how it ended. At the end of
// ctx it lets go of one that goes on without the service.
func (l *live) attend(ctx context.Context, p Process) {
	a := &attendance{
		live: l, p: p, durable: l.cmd.Durability == command.Durable, stays: l.cmd.Durability == command.Durable || l.kept,
		waits: make(chan waited, 1), ladders: make(chan ladder), out: map[int]context.CancelFunc{},
	}
	climbing, stop := context.WithCancel(ctx)
	defer stop()
	masks, gauges := l.masks, l.gauges
	go func() {
		var w waited
		w.err = l.guard("wait", func() (err error) {
			w.end, err = p.Wait()
			if known(err) || !a.stays {
				for _, s := range command.Streams { // no more comes that it could be a part of
					if l.append(s, masks[s].Flush(), gauges[s]) != nil {
						break // the owner is through with it
					}
				}
			}
			return err
		})
		a.waits <- w
	}()
	if t := l.cmd.Spec.Timeout; t > 0 {
		if a.durable {
			t += hostExtra
		}
		a.timeout = time.After(time.Until(l.cmd.StartTime.Add(t)))
	}
	switch n := l.cmd.Cancellation; {
	case underWay(n):
		a.wished(climbing)
	case n != nil:
		a.report = n.Report // of an owner before
	}
	for a.w == nil || len(a.out) > 0 || a.ask != nil {
		select {
		case end := <-a.waits:
			a.ended(climbing, end)
		case <-l.dirty:
			l.flushDue()
		case <-l.flushTimer.C:
			l.flush(ctx)
		case out := <-l.writes:
			l.wrote(out)
			a.wishStored(climbing)
		case <-a.wishBy:
			a.wishing, a.wishBy = false, nil
			a.climb(climbing, l.grace)
		case <-l.kick:
			wished, back := l.takeWishes(), l.takeLink()
			l.takeProgress()
			l.takeBegan()
			if wished {
				a.wished(climbing)
			}
			if back {
				a.reached(climbing)
			}
		case <-l.tellBy:
			l.tellProgress()
		case <-a.timeout:
			a.pass(climbing)
		case <-a.ask:
			a.ask = nil
			if a.w != nil {
				a.beginLadder(climbing, l.grace)
			} else {
				a.climb(climbing, l.grace)
			}
		case r := <-a.ladders:
			a.climbed(climbing, r)
		case <-a.asideBy:
			a.giveUpAside()
		case <-a.giveUp:
			a.closeIdle()
		case <-ctx.Done():
			if !a.stop() {
				l.leave(ctx, p)
				return
			}
		}
		if l.superseded || a.w != nil && fault.ReasonOf(a.w.err) == fault.ReasonSuperseded {
			l.letGo(p)
			return
		}
	}
	if a.stays && (ctx.Err() != nil || a.session != "" && a.engine.stops()) && !a.closed && fault.ReasonOf(a.w.err) == fault.ReasonConnectionLost {
		l.leave(ctx, p) // it was let go of elsewhere, since the service stops
		return
	}
	l.takeBegan() // of a short one it may have come with the end
	if ev, tell := a.conclude(); l.end(ctx, ev, tell) {
		p.Collected()
	}
}

// wished begins a ladder that somebody wants, once the journal has that, or a moment
// later.
func (a *attendance) wished(ctx context.Context) {
	first := a.engine.storeFirst
	if a.session != "" {
		first = min(first, sessionStoreFirst)
	}
	a.wishing, a.wishBy = true, time.After(first)
	a.wishStored(ctx)
}

// wishStored begins the ladder of a cancel once the journal has that.
func (a *attendance) wishStored(ctx context.Context) {
	switch {
	case !a.wishing || a.writing:
	case a.unstored:
		a.flushIn(0)
	default:
		a.wishing, a.wishBy = false, nil
		a.climb(ctx, a.grace)
	}
}

// climbing reports whether the last ladder is under way.
func (a *attendance) climbing() bool { return a.out[a.last] != nil }

// climb begins a ladder, unless one is under way that kills as soon, or there is
// nothing to end. One that would take longer goes on beside it: two do no harm,
// and it alone can tell what it has ended.
func (a *attendance) climb(ctx context.Context, grace time.Duration) {
	if a.climbing() && grace >= time.Until(a.killBy) || a.w != nil || a.report != nil && a.report.Outcome == command.Gone {
		return
	}
	a.beginLadder(ctx, grace)
}

func (a *attendance) beginLadder(ctx context.Context, grace time.Duration) {
	if len(a.out) == 0 {
		a.before, a.beside = a.report, nil
	}
	a.again, a.ask, a.asideBy = false, nil, nil
	a.last++
	a.killBy = time.Now().Add(grace)
	p, over := a.p, ctx.Done()
	ctx, stop := context.WithTimeout(ctx, grace+ladderExtra)
	r := ladder{number: a.last}
	a.out[r.number] = stop
	go func() {
		defer stop()
		r.err = a.guard("cancel", func() (err error) {
			r.report, err = p.Cancel(ctx, grace)
			return err
		})
		select {
		case a.ladders <- r:
		case <-over:
		}
	}()
}

// climbed takes the outcome of a ladder.
func (a *attendance) climbed(ctx context.Context, l ladder) {
	if a.out[l.number] == nil {
		return // it was given up
	}
	delete(a.out, l.number)
	if l.err == nil {
		together := beside(a.beside, l.report)
		r := after(a.before, together)
		a.beside, a.report = &together, &r
	}
	if a.climbing() {
		a.doubt = a.doubt || l.err != nil
		return // what they have come to is told by the last one
	}
	if l.err == nil || a.w != nil {
		a.hurryAside()
	}
	switch {
	case l.err == nil || a.beside != nil && a.beside.Outcome == command.Gone:
		a.told(*a.report)
	case l.number == a.last:
		a.unanswered(ctx, l.err)
	default:
		a.doubt = true
	}
}

// hurryAside has giveUpAside called soon, unless there is a ladder to wait for.
func (a *attendance) hurryAside() {
	if len(a.out) > 0 && !a.climbing() {
		a.asideBy = time.After(asideExtra)
	}
}

// giveUpAside waits no longer for the ladders that were overtaken.
func (a *attendance) giveUpAside() {
	for _, stop := range a.out {
		stop()
	}
	clear(a.out)
	a.asideBy, a.doubt = nil, true
}

// told takes the report of a ladder, or of those that ran at one time.
func (a *attendance) told(r command.CancelReport) {
	a.unproven, a.backoff, a.ask = false, 0, nil
	// Where an earlier ladder may have ended it, its end tells what to say.
	if a.cmd.Cancellation != nil && !(a.doubt && r.Outcome == command.AlreadyEnded) {
		a.change(func(c *command.Command) { c.Cancellation = withReport(c.Cancellation, r) })
	}
	a.flushIn(0)
	switch {
	case r.Outcome == command.Gone || r.Outcome == command.AlreadyEnded:
		a.watchIdle()
	case a.expired:
		a.timeout = time.After(retryMost)
	}
}

// unanswered takes the failure of a ladder: what it was for is still wanted, and
// is tried again until the host can be asked or the command has ended.
func (a *attendance) unanswered(ctx context.Context, err error) {
	a.doubt, a.unproven = true, true
	if a.w != nil {
		// Without the proof it could not be said that it is cancelled.
		if a.asked++; a.asked < askEnded && a.unprovenEnd() {
			a.backoff = min(max(2*a.backoff, askLeast), askMost)
			a.ask = time.After(a.backoff)
		}
		return
	}
	a.backoff = min(max(2*a.backoff, askLeast), askMost)
	a.engine.log.Warn("a command could not be ended yet", "command", a.id, "host", a.cmd.Spec.Host, "retry_in", a.backoff, "error", err)
	if a.cmd.Cancellation != nil {
		why := "its host could not be asked to end it"
		if a.cmd.Connection == command.Reconnecting {
			why = "its host does not answer for now"
		}
		pending := command.CancelReport{
			Outcome: command.Pending,
			Message: why + ", and it will be ended as soon as it can be: " + fault.From(err).Message,
		}
		a.change(func(c *command.Command) { c.Cancellation = withReport(c.Cancellation, pending) })
		a.flushIn(flushAfter)
	}
	if a.again {
		a.climb(ctx, a.grace)
		return
	}
	a.ask = time.After(a.backoff)
}

// reached does what had to wait for the host.
func (a *attendance) reached(ctx context.Context) {
	a.again = a.climbing()
	if a.unproven {
		a.backoff = 0
		a.climb(ctx, a.grace)
	}
	if a.overdue {
		a.overdue = false
		a.timeout = time.After(hostExtra) // it may have ended long ago, and tell so now
	}
}

// pass sees to the timeout. Of a durable command that is first its host's affair,
// which does it also while it cannot be reached.
func (a *attendance) pass(ctx context.Context) {
	if a.durable && a.cmd.Connection == command.Reconnecting {
		a.overdue = true
		return
	}
	a.timedOut = a.timedOut || a.cmd.Cancellation == nil
	a.expired = true
	a.climb(ctx, defaultGrace)
}

// ended takes the end of the process. Where a ladder may have brought it about
// that told nothing, the host is asked once more what is left.
func (a *attendance) ended(ctx context.Context, w waited) {
	a.w = &w
	a.timeout, a.ask, a.giveUp = nil, nil, nil
	a.backoff = 0
	if a.unprovenEnd() && !a.climbing() {
		a.beginLadder(ctx, a.grace)
	}
	a.hurryAside()
}

// unprovenEnd reports whether the process was probably ended by a ladder that
// told nothing: one of ours, or one of an owner before.
func (a *attendance) unprovenEnd() bool {
	return (a.unproven || a.doubt && a.wishing) && a.signalled() && a.w.end.TimedOut == nil
}

// signalled reports whether the process died of what a ladder sends. Of a death
// by SIGINT the shell that watches over a durable command gives the code alone.
func (a *attendance) signalled() bool {
	if code := a.w.end.Exit.Code; code != nil && known(a.w.err) {
		switch *code {
		case diedOfINT:
			return a.durable || a.session != ""
		case diedOfKILL, diedOfTERM: // as the shell of a session tells it
			return a.session != ""
		}
	}
	switch a.w.end.Signal {
	case "INT", "TERM", "KILL":
		return known(a.w.err)
	}
	return false
}

// What shells give as the exit code of what died of a signal: 128 + its number.
const (
	diedOfINT  = 130
	diedOfKILL = 137
	diedOfTERM = 143
)

// watchIdle has closeIdle called when no more can be expected of what is gone.
func (a *attendance) watchIdle() {
	a.quiet, _ = a.log.Sizes()
	if a.durable {
		a.giveUp = time.After(letGoHost)
	} else {
		a.giveUp = time.After(letGo)
	}
}

// closeIdle gives up the channel of a command that is gone, but not while
// output may still be on its way. A durable one is only let go of with proof and
// in vain: its host keeps how it ended.
func (a *attendance) closeIdle() {
	sizes, _ := a.log.Sizes()
	busy := a.log.UnsavedBytes() > 0
	if a.durable {
		busy = busy || sizes != a.quiet || a.cmd.Connection == command.Reconnecting || a.report.Outcome != command.Gone
	}
	if busy {
		a.watchIdle()
		return
	}
	a.closed = true
	a.p.Close()
}

// stop takes the end of the service. It reports false where the command is left
// to the next run: where it goes on without the service and its end, or what is left of it, is not
// known yet.
func (a *attendance) stop() bool {
	if a.w == nil {
		select {
		case w := <-a.waits:
			a.w = &w
		default:
		}
	}
	if a.stays && (a.w == nil || a.climbing() || a.unprovenEnd()) {
		return false
	}
	if a.w == nil {
		a.p.Close()
		a.w = &waited{err: fault.New(fault.Unavailable, fault.ReasonServiceRestarted,
			"the service was stopped while the command was running on an attached connection").WithHint("%s", lostHint)}
	}
	clear(a.out)
	a.ask = nil // else what Close brings about would be taken for its end
	return true
}
