package engine

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// waited is what Process.Wait gave.
type waited struct {
	exit command.Exit
	err  error
}

// attend sees a running command to its end: it stores output, ends the command
// when a cancel or the timeout asks for it, and stores how it ended.
func (l *live) attend(ctx context.Context, p Process) {
	waits := make(chan waited, 1) // the waiter's one result
	go func() {
		var w waited
		w.err = l.guard("wait", func() (err error) {
			w.exit, err = p.Wait()
			return err
		})
		waits <- w
	}()
	reports := make(chan command.CancelReport, 1) // of the one ladder at a time
	var (
		w        *waited               // its end, once it is known
		report   *command.CancelReport // of the last ladder that is through
		climbing bool                  // a ladder is under way
		expired  bool                  // its timeout has passed
		timedOut bool                  // and before any cancel was asked for
		timeout  <-chan time.Time
		letGoAt  <-chan time.Time
	)
	climb := func(grace time.Duration) {
		if climbing || w != nil || report != nil && report.Outcome == command.Gone {
			return
		}
		climbing = true
		go func() { reports <- l.climb(ctx, p, grace) }()
	}
	if t := l.cmd.Spec.Timeout; t > 0 {
		timeout = time.After(time.Until(l.cmd.StartTime.Add(t)))
	}
	if l.cmd.Cancellation != nil {
		climb(l.grace)
	}
	for w == nil || climbing {
		select {
		case end := <-waits:
			w = &end
		case <-l.dirty:
			l.flushDue()
		case <-l.flushTimer.C:
			l.flush(ctx)
		case out := <-l.writes:
			l.wrote(out)
		case <-l.kick:
			if l.takeWishes() {
				climb(l.grace)
			}
		case <-timeout:
			timedOut = timedOut || l.cmd.Cancellation == nil
			expired = true
			climb(defaultGrace)
		case r := <-reports:
			r = after(report, r)
			climbing, report = false, &r
			if l.cmd.Cancellation != nil {
				l.change(func(c *command.Command) { c.Cancellation = withReport(c.Cancellation, r) })
			}
			l.flushIn(0)
			switch {
			case r.Outcome == command.Gone || r.Outcome == command.AlreadyEnded:
				letGoAt = time.After(letGo)
			case expired:
				timeout = time.After(retryMost)
			}
		case <-letGoAt:
			if l.log.UnsavedBytes() > 0 { // what it printed may still be on its way
				letGoAt = time.After(letGo)
			} else {
				p.Close()
			}
		case <-ctx.Done():
			select {
			case end := <-waits:
				w = &end
			default:
			}
			if w == nil {
				p.Close()
				l.end(ctx, command.Lose, stopped)
				return
			}
			climbing = false
		}
	}
	ev, tell := l.conclude(*w, report, timedOut)
	l.end(ctx, ev, func(c *command.Command) {
		c.Exit = w.exit
		if w.err == nil || incomplete(w.err) {
			c.Completion = command.ByExitStatus
		}
		if incomplete(w.err) || w.err != nil && ev != command.Lose {
			sizes, _ := l.log.Sizes()
			c.Truncation = &command.Truncation{Offset: sizes, Reason: "the connection ended before all output had come"}
		}
		tell(c)
	})
}

// stopped is why a command is lost that ran when the service was stopped.
func stopped(c *command.Command) {
	c.Failure = &command.Failure{
		Reason:  fault.ReasonServiceRestarted,
		Message: "the service was stopped while the command was running on an attached connection",
		Hint:    lostHint,
	}
}

// lostHint is what to do about a command that is LOST.
const lostHint = "Cancel it to end what may still run on the host, and look there what it has done before you run it again"

// incomplete reports whether err says that an exit is true but output missing.
func incomplete(err error) bool {
	return err != nil && fault.ReasonOf(err) == fault.ReasonOutputIncomplete
}

// after gives what a ladder has come to that followed another one: what the
// first has ended, the second does not find.
func after(first *command.CancelReport, r command.CancelReport) command.CancelReport {
	if first == nil || first.Signal == "" {
		return r
	}
	r.Ended += first.Ended
	if r.Signal == "" {
		r.Signal = first.Signal
	}
	if r.Outcome == command.AlreadyEnded {
		r.Outcome = command.Gone
	}
	return r
}

// climb runs the cancel ladder and gives its report, also where it failed.
func (l *live) climb(ctx context.Context, p Process, grace time.Duration) command.CancelReport {
	ctx, stop := context.WithTimeout(ctx, grace+ladderExtra)
	defer stop()
	var r command.CancelReport
	err := l.guard("cancel", func() (err error) {
		r, err = p.Cancel(ctx, grace)
		return err
	})
	if err != nil {
		l.engine.log.Warn("a cancel could not be carried out", "command", l.id, "error", err)
		r.Outcome = command.Unproven
		r.Message = "the host could not be asked to end it: " + fault.From(err).Text()
	}
	return r
}

// conclude decides what the end of a process was: its own, ours, or somebody
// else's. That we ended it is only said where a signal of ours ended something,
// so that an exit which won the race is told as it is; that it is cancelled only
// where nothing is left.
func (l *live) conclude(w waited, report *command.CancelReport, timedOut bool) (command.Event, func(c *command.Command)) {
	ours := report != nil && report.Signal != "" && report.Ended > 0
	known := w.err == nil || incomplete(w.err)
	gone := ours && report.Outcome == command.Gone
	because := func(reason, hint, format string, args ...any) func(c *command.Command) {
		f := &command.Failure{Reason: reason, Message: fmt.Sprintf(format, args...), Hint: hint}
		return func(c *command.Command) { c.Failure = f }
	}
	spec := &l.cmd.Spec
	switch {
	case gone && timedOut, ours && timedOut && known:
		left := ""
		if !gone {
			left = "; " + report.Message
		}
		return command.Timeout, because(fault.ReasonTimeout, "Give it a longer timeout, or none",
			"it ran longer than its timeout of %s and was ended%s", spec.Timeout, left)
	case gone:
		by := l.cmd.Cancellation.By
		return command.CancelledEnd, because(fault.ReasonCancelledByCaller, "",
			"it was cancelled by %s through %s", by.Principal, by.Origin)
	case !known:
		return command.Lose, failed(w.err)
	case ours:
		return command.Killed, because(fault.ReasonCancelIncomplete,
			"The cancellation's report lists what is left on the host",
			"it was ended by a cancel, but not all of it is proven gone: %s", report.Message)
	case w.exit.Code != nil:
		return command.Exited, func(*command.Command) {}
	}
	if sent := l.sent.Load(); sent != nil && sent.name == w.exit.Signal {
		return command.Killed, because(fault.ReasonSignalled, "",
			"it was ended by SIG%s, which %s sent through %s", w.exit.Signal, sent.by.Principal, sent.by.Origin)
	}
	return command.Killed, because(fault.ReasonSignalled,
		"Look at the host's log; a kill by the kernel for lack of memory is told there",
		"it was ended by SIG%s, which was not sent through this service", w.exit.Signal)
}

// flushDue has flush called as soon as what waits calls for it.
func (l *live) flushDue() {
	if l.log.UnsavedBytes() >= flushAt {
		l.flushIn(0)
	} else {
		l.flushIn(flushAfter)
	}
}

// flushIn has flush called in d at the latest, or when the next try is due
// where the last one failed.
func (l *live) flushIn(d time.Duration) {
	if l.flushSoon && (d > 0 || l.retry > 0) {
		return
	}
	l.flushSoon = true
	l.flushTimer.Reset(max(d, l.retry))
}

// write is one write to the journal, and what came of it.
type write struct {
	cmd  command.Command // the record that was written
	size command.Sizes   // up to where its output goes
	err  error
	got  *command.Command // where err is set: what the journal has now, if it could be asked
}

// flush begins to store output and changes that the journal has not. The owner
// goes on meanwhile; wrote takes the outcome.
func (l *live) flush(ctx context.Context) {
	l.flushSoon = false
	if l.writing {
		return // wrote sees to the rest
	}
	chunks := l.log.Unsaved(flushMost)
	if len(chunks) == 0 && !l.unstored {
		return
	}
	l.writing = true
	l.unstored = false
	ch := l.changeOf(l.cmd, chunks)
	go func() { l.writes <- l.apply(ctx, ch) }()
}

// wrote takes the outcome of a write; it reports whether the journal has it.
func (l *live) wrote(w write) bool {
	l.writing = false
	l.engine.noteStore(w.err)
	if w.err == nil || l.reconcile(w) {
		l.stored, l.storedFence = w.cmd.State, w.cmd.Fence
		l.log.SavedTo(w.size)
		l.retry = 0
		if l.log.UnsavedBytes() > 0 || l.unstored {
			l.flushDue()
		}
		return true
	}
	l.unstored = true
	l.retry = min(max(2*l.retry, retryLeast), retryMost)
	l.engine.log.Warn("a command's output or state could not be stored", "command", l.id, "state", w.cmd.State, "retry_in", l.retry, "error", w.err)
	l.flushIn(l.retry)
	return false
}

// reconcile learns from what the journal has after a write that gave an error:
// it may have happened all the same, this one or one before it.
func (l *live) reconcile(w write) bool {
	if w.got == nil || l.foreign(w) {
		return false
	}
	l.stored, l.storedFence = w.got.State, w.got.Fence
	l.log.SavedTo(w.got.Size)
	return w.got.State == w.cmd.State && w.got.Version == w.cmd.Version && w.got.Size == w.size
}

// foreign reports whether another owner has the command.
func (l *live) foreign(w write) bool {
	return w.got != nil && w.got.Fence != w.cmd.Fence && w.got.Fence != l.storedFence
}

// changeOf gives the change that takes the journal to c with chunks, which
// follow what it has.
func (l *live) changeOf(c command.Command, chunks []command.Chunk) command.Change {
	c.Size = l.log.SavedSizes()
	for _, ch := range chunks {
		c.Size[ch.Stream] = ch.End()
	}
	if at := l.lastOutput.Load(); at > c.LastActivity.UnixNano() {
		c.LastActivity = time.Unix(0, at)
	}
	return command.Change{From: l.stored, Fence: l.storedFence, Command: c, Output: chunks}
}

// apply makes one write, however long the store takes: a write that was given up
// half way would leave in doubt what the journal has. It touches nothing of the
// owner's.
func (l *live) apply(ctx context.Context, ch command.Change) write {
	ctx = context.WithoutCancel(ctx) // the last write survives the end of the owner's context
	w := write{cmd: ch.Command, size: ch.Command.Size}
	w.err = l.guard("store", func() error { return l.engine.journal.Apply(ctx, ch) })
	if w.err != nil {
		if got, err := l.engine.journal.Get(ctx, l.id); err == nil {
			w.got = &got
		}
	}
	return w
}

// persist stores c with all output that waits, again and again until the journal
// has them; after the end of ctx once more and no longer. Where another owner has
// the command it gives up at once.
func (l *live) persist(ctx context.Context, c command.Command) error {
	if l.writing {
		l.wrote(<-l.writes)
	}
	for {
		last := ctx.Err() != nil
		w := l.apply(ctx, l.changeOf(c, l.log.Unsaved(math.MaxInt)))
		foreign := l.foreign(w)
		if l.wrote(w) {
			l.unstored = false
			return nil
		}
		if last || foreign {
			return w.err
		}
		select {
		case <-time.After(l.retry):
		case <-ctx.Done():
		}
	}
}

// end stores how the command ended, with the last of its output, and then tells
// it to everyone.
func (l *live) end(ctx context.Context, ev command.Event, f func(c *command.Command)) {
	l.log.Close()
	c := l.cmd
	advance(&c, ev, time.Now(), f)
	c.Version++
	if err := l.persist(ctx, c); err != nil {
		l.engine.log.Error("a command's end could not be stored; the next run of the service ends it as LOST",
			"command", l.id, "state", c.State, "error", err)
		return
	}
	c.Size, _ = l.log.Sizes()
	l.mu.Lock()
	l.cmd = c
	l.process = nil
	l.mu.Unlock()
	l.log.Seal()
	l.bell.Ring()
	l.engine.meter.Ended(c.State, c.Duration(c.EndTime))
}

// abandon ends a command whose owner has failed with err.
func (l *live) abandon(ctx context.Context, err error) {
	if p := l.running(); p != nil {
		p.Close()
	}
	if l.cmd.State.Ended() {
		return
	}
	ev := command.Lose
	if l.cmd.State == command.Queued {
		ev = command.StartFail
	}
	l.end(ctx, ev, failed(err))
}
