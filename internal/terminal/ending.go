package terminal

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

const (
	endMost   = 15 * time.Second // what the end of a shell may take
	letGoMost = 5 * time.Second  // the same while the service stops
)

// ending is how a session has ended.
type ending struct {
	why   *command.Failure
	exit  *int
	event session.Event
	keep  bool // only this run of the service lets go of it
}

// finish ends the session as one whose shell is gone.
func (l *live) finish(why *command.Failure, exit *int) {
	l.finishAs(why, exit, session.ShellGone)
}

func (l *live) finishAs(why *command.Failure, exit *int, event session.Event) {
	if l.end == nil {
		l.end = &ending{why: why, exit: exit, event: event}
	}
}

// letGo is called when the service stops: a kept shell is left alone, another one ends.
func (l *live) letGo() {
	if l.recovered && l.link == nil || l.kept() && (l.closing == nil && l.s.State == session.Open || l.closing != nil && l.link == nil) {
		l.end = &ending{keep: true} // of one that is to be closed, the next run sees to that
		return
	}
	why := l.closing
	if why == nil {
		why = &command.Failure{Reason: fault.ReasonServiceRestarted, Message: "the service was stopped, and nothing keeps the shell", Hint: "Open the session again; tmux, screen or dtach on the host would have kept it"}
	}
	if l.stopDial != nil {
		l.stopDial()
	}
	if l.link != nil {
		ctx, stop := context.WithTimeout(l.ctx, letGoMost)
		defer stop()
		if _, err := l.link.shell.End(ctx); err != nil {
			l.set.log.Warn("a shell could not be ended while the service stops", "session", l.id, "host", l.host.Name, "error", err)
			if l.kept() {
				l.end = &ending{keep: true} // the next run ends it
				return
			}
		}
	}
	l.finish(why, nil)
}

// kept reports whether something keeps the shell without a connection.
func (l *live) kept() bool { return l.s.Keeper != "" && l.s.Keeper != session.KeptByNone }

// close is Terminals.Close.
func (l *live) close(ctx context.Context, by access.Caller, reason string) (session.Session, command.CancelReport, error) {
	err := l.do(ctx, func() {
		l.scribe.tell(closing(by, &l.s, reason)) // is stored with what beginClose saves
		l.beginClose(closedBy(by, reason))
	})
	if err != nil && fault.ReasonOf(err) != fault.ReasonSessionEnded {
		return l.snapshot(), command.CancelReport{}, err
	}
	most := time.NewTimer(endMost)
	defer most.Stop()
	select {
	case <-l.gone:
	case <-most.C:
	case <-ctx.Done():
		return l.snapshot(), command.CancelReport{}, fault.From(context.Cause(ctx))
	}
	s := l.snapshot()
	if !s.Ended() && l.lingering() {
		return s, command.CancelReport{Outcome: command.Pending, Message: "the shell is gone, and the end of the session cannot be stored for now; it is tried again"}, nil
	}
	if !s.Ended() {
		return s, command.CancelReport{Outcome: command.Pending, Message: "the host does not answer for now; the shell is ended as soon as it does"}, nil
	}
	l.late.Lock()
	defer l.late.Unlock()
	if l.report == nil && s.End != nil && s.End.Reason == fault.ReasonConnectionLost {
		return s, command.CancelReport{Outcome: command.Unproven, Message: s.End.Message}, nil
	}
	if l.report == nil {
		return s, command.CancelReport{Outcome: command.AlreadyEnded, Message: "the shell was gone already"}, nil
	}
	return s, *l.report, nil
}

// beginClose begins to end the shell, and the session with it.
func (l *live) beginClose(why *command.Failure) {
	next, ok := session.Next(l.s.State, session.Close)
	if !ok {
		return
	}
	l.s.State, l.closing = next, why
	l.publish()
	l.save()
	switch {
	case l.link != nil:
		l.endShell()
	case l.stopDial != nil && !l.recovered && !l.loss.lost():
		l.stopDial() // dialled goes on
	}
}

// endShell ends the shell on its host.
func (l *live) endShell() {
	sh := l.link.shell
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, endMost)
		defer stop()
		report, err := sh.End(ctx)
		return func() {
			switch {
			case err == nil:
				l.report = &report
				l.drain()
				l.finish(l.closing, nil)
			case l.kept() && l.link == nil: // the connection is lost: dialled comes back to it
			case l.kept() && l.link.shell != sh: // the same, and it is back
			case l.kept(): // it is there until the host says otherwise
				l.loss.ends++
				l.lostLink(err)
			default:
				l.set.log.Warn("a shell could not be ended; its connection is", "session", l.id, "host", l.host.Name, "error", err)
				l.report = unproven(err)
				l.finish(l.closing, nil)
			}
		}
	})
}

// unproven is the report on a shell that could not be ended, perhaps.
func unproven(err error) *command.CancelReport {
	return &command.CancelReport{Outcome: command.Unproven, Message: "whether the shell has ended is not known: " + fault.From(err).Message}
}

// readEnd takes the end of what can be read.
func (l *live) readEnd(err error) {
	l.parser.Flush(l.segment)
	sh := l.link.shell
	switch {
	case err == io.EOF && l.closing == nil:
		code := sh.Exit()
		l.remains = sh
		l.shellExited(code)
		l.hangUp()
		message := "the shell has ended"
		if code != nil {
			message = fmt.Sprintf("the shell has ended with exit code %d", *code)
		}
		l.finish(&command.Failure{Reason: fault.ReasonShellExited, Message: message, Hint: "Open the session again where it is needed"}, code)
	case err == io.EOF:
		// endShell is about to say what was ended.
		l.link.intake = nil
	default:
		l.lostLink(err)
	}
}

// sweep removes what the host keeps of a shell that has ended by itself. The session is
// over, and nobody waits for that.
func (l *live) sweep(ctx context.Context) {
	if l.remains == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, letGoMost)
	defer stop()
	if err := l.remains.Sweep(ctx); err != nil {
		l.set.log.Warn("the files of a session that has ended are left on its host", "session", l.id, "host", l.host.Name, "error", err)
	}
}

// conclude does what is to be done at the end. Nothing runs any more when it returns,
// and the end is stored before anybody is told of it.
func (l *live) conclude() {
	over := sync.OnceFunc(func() { close(l.over) })
	defer over()
	l.now = time.Now()
	if l.stopDial != nil {
		l.stopDial()
	}
	e := l.end
	if l.parser != nil && !e.keep {
		l.parser.Flush(l.segment)
	}
	l.hangUp()
	l.s.Sole = e.keep && l.sole()
	l.endCommands(e)
	if e.keep {
		l.s.Connection = command.Reconnecting // the offset is the true one: see takeUp
	} else {
		l.s.State, _ = session.Next(l.s.State, e.event)
		l.s.End, l.s.Exit, l.s.EndTime, l.s.Connection = e.why, e.exit, l.now, ""
		l.viewers, l.keyboard = nil, keyboard{}
	}
	l.rec.end()
	l.s.Version++
	l.s.Viewers, l.s.Keyboard, l.s.Current = nil, "", ""
	s := l.s
	l.mu.Lock()
	s.Output, s.LastActivity = l.ring.end, l.active
	l.mu.Unlock()
	l.s = l.scribe.end(s, !e.keep, func() {
		close(l.lingers)
		over()
	})
	l.mu.Lock()
	l.pub, l.busy, l.stopped = l.s, false, e.keep
	l.changes++
	l.mu.Unlock()
	select {
	case <-l.opened:
	default:
		close(l.opened)
	}
	if !e.keep {
		l.set.log.Info("a session has ended", "session", l.id, "name", l.name, "host", l.host.Name, "reason", e.why.Reason)
	}
}
