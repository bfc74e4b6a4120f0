package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// left gives what the journal has of sessions that have not ended.
func (t *Terminals) left(ctx context.Context) ([]session.Session, error) {
	const page = 200
	var all []session.Session
	f := session.Filter{States: []session.State{session.Opening, session.Open, session.Closing}, Limit: page}
	for {
		some, err := t.journal.Sessions(ctx, f)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < page {
			return all, nil
		}
		f.Before = some[len(some)-1].ID
	}
}

// takeUp goes on with a session of the last run, or ends it.
func (t *Terminals) takeUp(ctx context.Context, s session.Session) {
	// What was told since it was last saved is not known.
	s.Version += versionGap
	if s.Connection == command.Connected || s.Keeper == "" {
		s.Output += outputGap
	}
	host, err := t.hosts.Lookup(s.Spec.Host)
	why := &command.Failure{Reason: fault.ReasonServiceRestarted, Message: "the service was restarted, and nothing kept the shell meanwhile",
		Hint: "Open the session again; tmux, screen or dtach on the host would have kept it"}
	switch {
	// Where it is not stored what keeps the shell, something may.
	case s.Keeper == session.KeptByNone, s.Keeper == "" && s.Spec.Keeper == session.KeptByNone:
	case err != nil:
		why = failure(err)
	case s.Nonce == "":
		why = &command.Failure{Reason: fault.ReasonServiceRestarted, Message: "what the service kept of the session cannot be read any more", Hint: "Open it again"}
	default:
		s.Connection = command.Reconnecting
		l := newLive(t, s, host)
		l.recovered = true
		if s.Completion == command.ByMark {
			l.marked = s.Shell
		}
		l.stored.Store(true)
		if s.Recorded && s.Truncated == nil {
			if l.taped, err = recorded(ctx, t.journal, s.ID); err != nil {
				t.log.WarnContext(ctx, "a recording cannot go on", "session", s.ID, "error", err)
				l.s.Truncated = &s.Output
			}
		}
		if t.register(l) == nil && t.start(l) {
			return
		}
		t.unregister(l)
		why = &command.Failure{Reason: fault.ReasonServiceRestarted, Message: "the service was stopped again at once"}
	}
	s.State, s.End, s.EndTime, s.Connection = session.Ended, why, time.Now(), ""
	if err := t.journal.SaveSession(ctx, s, ended(&s)); err != nil {
		t.log.WarnContext(ctx, "cannot store the end of a session", "session", s.ID, "error", err)
	}
}

// What a session that is taken up skips: of the numbers of its versions and of the
// offsets of its output, which may have been told and not saved.
const (
	versionGap = 1000
	outputGap  = 256 << 20
)
