package engine

import (
	"context"
	"fmt"
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
		timedOut bool                  // its timeout has passed, before any cancel
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
		case r := <-l.cancels:
			l.noteCancel(r)
			climb(r.grace)
		case <-timeout:
			timedOut = timedOut || l.cmd.Cancellation == nil
			climb(defaultGrace)
		case r := <-reports:
			r = after(report, r)
			climbing, report = false, &r
			if l.cmd.Cancellation != nil {
				l.change(func(c *command.Command) { c.Cancellation = withReport(c.Cancellation, r) })
			}
			l.flushIn(0)
			switch {
			case r.Outcome == command.Gone:
				letGoAt = time.After(letGo)
			case timedOut:
				timeout = time.After(retryMost)
			}
		case <-letGoAt:
			p.Close()
		case <-ctx.Done():
			p.Close()
			l.end(ctx, command.Lose, func(c *command.Command) {
				c.Failure = &command.Failure{
					Reason:  fault.ReasonServiceRestarted,
					Message: "the service was stopped while the command was running on an attached connection",
					Hint:    "Look on the host whether it still runs or what it has done before you run it again",
				}
			})
			return
		}
	}
	ev, tell := l.conclude(*w, report, timedOut)
	l.end(ctx, ev, func(c *command.Command) {
		c.Exit = w.exit
		if w.err == nil {
			c.Completion = command.ByExitStatus
		}
		tell(c)
	})
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
// else's. That we ended it is only said where a signal of ours was needed, so
// that an exit which won the race is told as it is; that it is cancelled only
// where nothing is left.
func (l *live) conclude(w waited, report *command.CancelReport, timedOut bool) (command.Event, func(c *command.Command)) {
	ours := report != nil && report.Signal != ""
	gone := ours && report.Outcome == command.Gone
	because := func(reason, hint, format string, args ...any) func(c *command.Command) {
		f := &command.Failure{Reason: reason, Message: fmt.Sprintf(format, args...), Hint: hint}
		return func(c *command.Command) { c.Failure = f }
	}
	spec := &l.cmd.Spec
	switch {
	case gone && timedOut, ours && timedOut && w.err == nil:
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
	case w.err != nil:
		return command.Lose, failed(w.err)
	case ours:
		return command.ForeignKill, because(fault.ReasonCancelIncomplete,
			"The cancellation's report lists what is left on the host",
			"it was ended by a cancel, but not all of it is proven gone: %s", report.Message)
	case w.exit.Code != nil:
		return command.Exited, func(*command.Command) {}
	}
	if sent := l.sent.Load(); sent != nil && sent.name == w.exit.Signal {
		return command.ForeignKill, because(fault.ReasonSignalled, "",
			"it was ended by SIG%s, which %s sent through %s", w.exit.Signal, sent.by.Principal, sent.by.Origin)
	}
	return command.ForeignKill, because(fault.ReasonSignalled,
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

// flush stores output and changes that the journal has not, once; where that
// fails it will try again later, and the owner goes on meanwhile.
func (l *live) flush(ctx context.Context) {
	l.flushSoon = false
	chunks := l.log.Unsaved(flushMost)
	if len(chunks) == 0 && !l.unstored {
		return
	}
	if err := l.apply(ctx, l.cmd, chunks); err != nil {
		l.retry = min(max(2*l.retry, retryLeast), retryMost)
		l.engine.log.Warn("a command's output or state could not be stored", "command", l.id, "retry_in", l.retry, "error", err)
		l.flushIn(l.retry)
		return
	}
	l.retry = 0
	l.unstored = false
	if l.log.UnsavedBytes() > 0 {
		l.flushDue()
	}
}

// apply gives the journal c with chunks, which follow what it has, once.
func (l *live) apply(ctx context.Context, c command.Command, chunks []command.Chunk) error {
	c.Size = l.log.SavedSizes()
	for _, ch := range chunks {
		c.Size[ch.Stream] = ch.End()
	}
	if at := l.lastOutput.Load(); at > c.LastActivity.UnixNano() {
		c.LastActivity = time.Unix(0, at)
	}
	// The last write survives the end of the owner's context.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer stop()
	err := l.engine.journal.Apply(ctx, command.Change{From: l.stored, Fence: l.storedFence, Command: c, Output: chunks})
	if err != nil && !l.applied(ctx, c) {
		return err
	}
	l.stored, l.storedFence = c.State, c.Fence
	l.log.Saved(chunks)
	return nil
}

// applied reports whether the journal has c although Apply gave an error.
func (l *live) applied(ctx context.Context, c command.Command) bool {
	got, err := l.engine.journal.Get(ctx, l.id)
	return err == nil && got.State == c.State && got.Fence == c.Fence && got.Version == c.Version && got.Size == c.Size
}

// persist gives the journal c with chunks, again and again until it has them;
// after the end of ctx once more and no longer. Where another owner has changed
// the command it gives up at once.
func (l *live) persist(ctx context.Context, c command.Command, chunks []command.Chunk) error {
	for wait := retryLeast; ; wait = min(2*wait, retryMost) {
		last := ctx.Err() != nil
		err := l.apply(ctx, c, chunks)
		if err == nil {
			l.unstored = false
			return nil
		}
		l.engine.log.Warn("a command's state could not be stored", "command", l.id, "state", c.State, "error", err)
		if last || fault.KindOf(err) == fault.Aborted {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// end stores how the command ended, with the last of its output, and then tells
// it to everyone.
func (l *live) end(ctx context.Context, ev command.Event, f func(c *command.Command)) {
	l.log.Close()
	for l.log.UnsavedBytes() > flushMost {
		if l.persist(ctx, l.cmd, l.log.Unsaved(flushMost)) != nil {
			break // the end itself is tried all the same
		}
	}
	c := l.cmd
	advance(&c, ev, time.Now(), f)
	c.Version++
	if err := l.persist(ctx, c, l.log.Unsaved(flushMost)); err != nil {
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
