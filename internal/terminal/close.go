package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// Close ends a session and what runs in it. It gives the session, which has ended, or is
// CLOSING where its host could not be asked yet. One that has ended is given as it is.
func (t *Terminals) Close(ctx context.Context, by access.Caller, ref, reason string) (session.Session, command.CancelReport, error) {
	l, s, err := t.may(ctx, by, access.Act, ref)
	if err != nil {
		return s, command.CancelReport{}, err
	}
	if l == nil && !s.Ended() {
		if l, err = t.owned(ctx, s.ID); err != nil {
			return s, command.CancelReport{}, err
		}
	}
	switch {
	case l != nil:
		return l.close(ctx, by, reason)
	case s.Ended():
		return s, alreadyEnded, nil
	}
	return t.closeUnowned(ctx, by, s, reason)
}

var alreadyEnded = command.CancelReport{Outcome: command.AlreadyEnded, Message: "the session had ended"}

// closeUnowned ends a session that the journal has as one that goes on, and that nobody
// has: its beginning or its end could not be stored.
func (t *Terminals) closeUnowned(ctx context.Context, by access.Caller, s session.Session, reason string) (session.Session, command.CancelReport, error) {
	if !t.works() { // the next run has it
		return s, command.CancelReport{}, fault.New(fault.Unavailable, fault.ReasonDraining, "the service is starting or shutting down and cannot end the session %s now", s.Spec.Name).
			WithHint("Close it again in a moment").WithRetry(time.Second)
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), storeMost)
	defer stop()
	asked := closing(by, &s, reason)
	over := s
	over.Version++
	over.State, over.End, over.EndTime, over.Connection = session.Ended, closedBy(by, reason), time.Now(), ""
	err := t.journal.SaveSession(ctx, over, asked, ended(&over))
	if fault.KindOf(err) == fault.Aborted { // what was read is not the latest
		now, err := t.journal.Session(ctx, s.ID)
		if err == nil && now.Ended() {
			return now, alreadyEnded, nil
		}
		return now, command.CancelReport{}, fault.New(fault.Unavailable, fault.ReasonInternal, "the session %s was changed meanwhile", s.Spec.Name).
			WithHint("Close it again").WithRetry(time.Second)
	}
	if err != nil {
		return s, command.CancelReport{}, err
	}
	t.bell.Ring()
	return over, command.CancelReport{Outcome: command.Unproven, Message: "nobody had the session any more; it has ended here, and its host was not asked what is left there"}, nil
}

// works reports whether every session that goes on has an owner.
func (t *Terminals) works() bool {
	select {
	case <-t.ready:
	default:
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.owning != nil
}

// closing tells that somebody has asked to close a session.
func closing(by access.Caller, s *session.Session, reason string) audit.Entry {
	told := entry(audit.SessionClose, by, s)
	told.Detail = reason
	return told
}

// closedBy is the end of a session that somebody has closed.
func closedBy(by access.Caller, reason string) *command.Failure {
	message := "it was closed by " + by.Name
	if reason != "" {
		message += ": " + reason
	}
	return &command.Failure{Reason: fault.ReasonSessionClosed, Message: message, Hint: "Open another one"}
}
