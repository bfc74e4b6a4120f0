package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

const openMost = 10 * time.Second // a shell counts as open after so long without a prompt

// begin starts the shell, or looks for it.
func (l *live) begin() {
	if !l.s.ExpireTime.IsZero() {
		l.due[expireAlarm] = l.s.ExpireTime
	}
	l.stayActive()
	l.rec.begin(l)
	if l.recovered {
		l.loss.since = l.now
		l.turn.unsure, l.turn.unseen = true, !l.s.Sole
		if l.marked != "" && !l.s.Sole {
			l.s.Completion = command.ByPrompt // until the shell is known to be at its prompt, or has told a mark
		}
		switch l.s.State {
		case session.Open:
			close(l.opened)
		case session.Closing:
			l.closing = &command.Failure{Reason: fault.ReasonSessionClosed, Message: "it was being closed when the service ended", Hint: "Open another one"}
		}
		l.publish()
	}
	l.dial(l.recovered)
}

// dial opens the shell, or takes it up again.
func (l *live) dial(resume bool) {
	spec := ShellSpec{
		ID: l.id, Host: l.host, Shell: l.s.Spec.Shell, Term: l.s.Spec.Term, Size: l.s.Size,
		Keeper: l.s.Spec.Keeper, Nonce: l.s.Nonce, Resume: resume,
	}
	if resume {
		spec.Keeper = l.s.Keeper
	}
	ctx, stop := context.WithCancel(l.ctx)
	l.stopDial = stop
	pid := 0
	if len(l.turn.levels) > 0 {
		pid = l.turn.top().pid
	}
	l.asides.Go(func() {
		defer stop()
		sh, err := l.set.shells.Open(ctx, spec)
		var f *front
		if resume && err == nil {
			f = askFront(ctx, sh, pid)
		}
		if l.post(func() {
			l.stopDial = nil
			l.dialled(sh, err, resume, f)
		}) || err != nil {
			return
		}
		// The session is over meanwhile. A shell that was found again is left as it was.
		if !resume {
			ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), letGoMost)
			defer stop()
			if _, err := sh.End(ctx); err != nil {
				l.set.log.Warn("a shell that came too late could not be ended", "session", l.id, "host", l.host.Name, "error", err)
			}
		}
		_ = sh.Close()
	})
}

// dialled takes what the opening of the shell has come to.
func (l *live) dialled(sh Shell, err error, resume bool, f *front) {
	switch {
	case err == nil:
		l.connect(sh, resume, f)
		if l.closing != nil {
			l.endShell()
		}
	case l.closing != nil && !resume:
		l.finish(l.closing, nil)
	case resume:
		l.notBack(err)
	default:
		l.mu.Lock()
		l.openErr = fault.From(err)
		l.mu.Unlock()
		l.finishAs(failure(err), nil, session.OpenFail)
	}
}

// connect takes a shell that runs.
func (l *live) connect(sh Shell, resume bool, f *front) {
	facts := sh.Facts()
	l.link = newLink(sh, &l.asides)
	l.parser = completion.NewParser(l.s.Nonce)
	l.s.Shell, l.s.Keeper, l.s.KeeperReason, l.s.Connection = facts.Kind, facts.Keeper, facts.KeeperReason, command.Connected
	if l.s.Keeper == "" {
		l.s.Keeper = session.KeptByNone
	}
	l.turn.nested = facts.Nested
	l.turn.begin(facts)
	if l.s.State == session.Opening {
		l.after(openAlarm, openMost)
	}
	if l.s.Completion == "" {
		l.s.Completion = command.ByMark
		if !facts.Marks {
			l.s.Completion = command.BySilence
		}
	}
	if resume {
		l.back(facts, f)
	} else {
		l.watchQuiet()
	}
	l.publish()
	l.save() // what keeps the shell must be known after a restart
}

// openNow makes the session open, once its shell has shown its prompt.
func (l *live) openNow() {
	next, ok := session.Next(l.s.State, session.ShellReady)
	if !ok {
		return
	}
	l.unset(openAlarm)
	l.s.State, l.s.OpenTime = next, l.now
	l.publish()
	l.save()
	close(l.opened)
}

// unprompted opens a session whose shell has shown no prompt for long.
func (l *live) unprompted() {
	if l.turn.marks && (!l.turn.heard || l.turn.phase == starting) {
		// Whatever runs there does not tell marks.
		l.turn.marks = false
		l.s.Completion = command.BySilence
		l.watchQuiet()
	}
	if !l.turn.tells && !l.turn.printed {
		l.silent() // a device that greets nobody
	}
	l.openNow()
}

// awaitOpen gives the session when it is open, or why it could not be opened.
func (l *live) awaitOpen(ctx context.Context) (session.Session, error) {
	select {
	case <-l.opened:
	case <-ctx.Done():
		return l.snapshot(), fault.From(context.Cause(ctx))
	}
	l.scribe.settle(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.told()
	switch {
	case l.openErr != nil:
		return s, l.openErr
	case s.Ended():
		return s, overAs(&s)
	}
	return s, nil
}
