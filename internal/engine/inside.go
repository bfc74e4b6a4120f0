package engine

import (
	"context"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

// sessionsReady is closed when it is known whether the command's session is there; nil
// where that is known, or it has none.
func (l *live) sessionsReady() <-chan struct{} {
	if l.session == "" {
		return nil
	}
	ready := l.engine.sessions.Ready()
	select {
	case <-ready:
		return nil
	default:
		return ready
	}
}

// sessionOver is why the command cannot run in its session any more; nil where it can,
// or has none. It is asked when the sessions are ready.
func (l *live) sessionOver() error {
	if l.session == "" {
		return nil
	}
	_, err := l.engine.sessions.Find(l.session)
	if err == nil || !sessionGone(err) {
		return nil // whatever else it is, Start tells it
	}
	f := sessionEnded(l.cmd.Spec.Session)
	f.Message += " before it was the command's turn"
	return f.WithHint("Open it again, and run the command again")
}

// stillOpen reports whether the session of a command that is queued is still there; if
// not, the command has ended.
func (l *live) stillOpen(ctx context.Context) bool {
	err := l.sessionOver()
	if err == nil {
		return true
	}
	l.leaveQueue()
	l.end(ctx, command.StartFail, failed(err))
	return false
}

// sessionKept reports whether the command's session goes on without the service.
func (l *live) sessionKept() bool {
	if l.session == "" {
		return false
	}
	s, err := l.engine.sessions.Find(l.session)
	return err == nil && s.Keeper != "" && s.Keeper != session.KeptByNone
}

// enterSession brings the command to run in its session, or finds it there again.
// Without a process (nil) its owner is through with it.
func (l *live) enterSession(ctx context.Context, host *inventory.Host) Process {
	if l.taken && l.cmd.State == command.Starting && l.cmd.Spec.Typed == 0 {
		l.end(ctx, command.Lose, failed(l.lostWhileTyped())) // what runs there now may be anybody's
		return nil
	}
	// What was typed runs, and what an owner before has begun may run.
	runs := l.taken || l.cmd.Spec.Typed > 0
	if !runs {
		l.takeWishes() // while the journal was busy
		if l.cmd.Cancellation != nil {
			l.end(ctx, command.CancelledEnd, neverStarted)
			return nil
		}
	}
	doing, ask := "start", l.engine.sessions.Start
	if l.taken {
		doing, ask = "resume", l.engine.sessions.Resume
	}
	run := l.sessionRun(*host)
	p, err := l.call(ctx, doing, !runs, func(ctx context.Context) (Process, error) {
		if !runs { // it may have to wait for long until the shell reads; so may the next run of the service
			var giveUp context.CancelFunc
			ctx, giveUp = context.WithCancel(ctx)
			defer giveUp()
			defer afterClose(l.engine.stopping, giveUp)()
		}
		select {
		case <-l.engine.sessions.Ready():
			return ask(ctx, run)
		case <-ctx.Done():
			return nil, fault.From(context.Cause(ctx))
		}
	})
	stops := ctx.Err() != nil || l.engine.stops()
	switch {
	case err == nil:
		return p
	case l.superseded:
		l.letGo(nil)
	case !runs && unfit(err):
		l.refuse(ctx, err)
	case ctx.Err() != nil && (runs || broken(err)):
		l.leave(ctx, nil)
	case l.taken && sessionGone(err):
		l.end(ctx, command.Lose, failed(l.lostWithSession(ctx, err)))
	case runs || broken(err) || wentWith(err):
		l.end(ctx, endOf(err), failed(err))
	case l.cmd.Cancellation != nil:
		l.end(ctx, command.CancelledEnd, neverStarted)
	case stops && unsent(err):
		l.unclaim(ctx)
	default:
		l.end(ctx, command.StartFail, failed(err))
	}
	return nil
}

// sessionRun gives what Sessions need. It has a copy of the Spec, since the owner
// blanks its own.
func (l *live) sessionRun(host inventory.Host) SessionRun {
	c, judged := l.cmd, l.judged
	spec := c.Spec
	from, take := l.outlet()
	return SessionRun{
		ID: l.id, Spec: &spec, From: from, Output: take,
		Fits: func() error {
			return l.guard("judge", func() error { return l.engine.stillFits(&c, judged, host) })
		},
		Began: l.beganAt, CancelledBy: l.cancelledBy, Link: l.linked,
	}
}

// beganAt is SessionRun.Began.
func (l *live) beganAt(offset int64) {
	l.mu.Lock()
	l.began = &offset
	l.mu.Unlock()
	l.kickOwner()
}

// takeBegan takes up where the output begins in that of the session.
func (l *live) takeBegan() {
	l.mu.Lock()
	began := l.began
	l.began = nil
	l.mu.Unlock()
	if began != nil {
		l.change(func(c *command.Command) { c.SessionOffset = *began })
		l.flushIn(flushAfter)
	}
}

// cancelledBy is SessionRun.CancelledBy.
func (l *live) cancelledBy() command.Actor {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.cmd.Cancellation; n != nil {
		return n.By
	}
	return command.Actor{}
}

// wentWith reports whether err says that the session has ended when the command was
// perhaps typed already.
func wentWith(err error) bool {
	switch fault.ReasonOf(err) {
	case fault.ReasonSessionGone, fault.ReasonHostRebooted, fault.ReasonServiceRestarted:
		return true
	}
	return endOf(err) == command.Killed
}

// lostWhileTyped is why a command is LOST that waited to be typed, or was typed and not
// yet stored as RUNNING, when the last run of the service ended.
func (l *live) lostWhileTyped() error {
	return fault.New(fault.FailedPrecondition, fault.ReasonServiceRestarted, "it was being typed in the session %s when the service ended; whether it ran is not known", l.cmd.Spec.Session).
		WithHint(sessionLostHint)
}

// sessionLostHint is what to do about a command in a session that is LOST.
const sessionLostHint = "Look on the host what it has done before you run it again"

// lostWithSession is why a command of the last run of the service is LOST, whose session
// is gone: the reason for which that has ended, where that is known.
func (l *live) lostWithSession(ctx context.Context, gone error) error {
	if fault.ReasonOf(gone) == fault.ReasonSessionGone {
		return gone
	}
	if s, err := l.engine.sessions.Session(ctx, l.session); err == nil && s.End != nil && s.End.Reason != fault.ReasonServiceRestarted {
		return fault.New(fault.FailedPrecondition, s.End.Reason, "the session %s ended while the command was running: %s", l.cmd.Spec.Session, s.End.Message).WithHint(sessionLostHint)
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonServiceRestarted, "the service ended, and the session %s with it, while the command was running", l.cmd.Spec.Session).WithHint(sessionLostHint)
}

// afterClose has f called when c is closed, until what it gives is called.
func afterClose(c <-chan struct{}, f func()) (stop func()) {
	over := make(chan struct{})
	go func() {
		select {
		case <-c:
			f()
		case <-over:
		}
	}()
	return func() { close(over) }
}

// stops reports whether the service is about to stop.
func (e *Engine) stops() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}
