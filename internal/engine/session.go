package engine

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// A command in a session is typed in the session's shell, one at a time: the session
// has a queue of its own with one slot. What a person types there is a command too.
// It takes the slot whatever the limits, since it runs already; nobody has judged it.
//
//	Execute(session) ──▶ QUEUED ──slot──▶ STARTING ──the shell reads: typed──▶ RUNNING ──▶ an end
//	Typed ──▶ STARTING, with the slot ──▶ RUNNING ──▶ an end
//
// It lives as long as its shell does, so it counts as attached. Where something on the
// host keeps the shell, it goes on without the service, and the next run takes it up
// again; else that finds the session ended, and the command is LOST. So is one that was
// STARTING when the service was killed: whether it was typed is not known.

// noSessions is what an engine has that was given none.
type noSessions struct{}

func (noSessions) Ready() <-chan struct{} { return alwaysReady }
func (noSessions) Find(string) (session.Session, error) {
	return session.Session{}, notSupported()
}
func (noSessions) Session(context.Context, string) (session.Session, error) {
	return session.Session{}, notSupported()
}
func (noSessions) Start(context.Context, SessionRun) (Process, error)  { return nil, notSupported() }
func (noSessions) Resume(context.Context, SessionRun) (Process, error) { return nil, notSupported() }
func (noSessions) Busy(string) (string, bool)                          { return "", false }

var alwaysReady = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func notSupported() error {
	return fault.New(fault.Unsupported, fault.ReasonNotSupported, "this service has no sessions").
		WithHint("Give host instead of session")
}

// findSession gives a session by name or id to a caller who may do that with it. With
// ended that may be one that has ended, else it is SESSION_ENDED. Where the caller
// would not be told whether there is one, it is not told that there is none.
func (e *Engine) findSession(ctx context.Context, by access.Caller, a access.Action, ref string, ended bool) (session.Session, error) {
	select {
	case <-e.sessions.Ready():
	default:
		return session.Session{}, fault.New(fault.Unavailable, fault.ReasonDraining, "the service is starting, and still looks for its sessions").
			WithHint("Try again in a moment, with the same request_id").WithRetry(time.Second)
	}
	s, err := e.sessions.Find(ref)
	if why := err; why != nil {
		if !sessionGone(why) {
			return s, why
		}
		if s, err = e.sessions.Session(ctx, ref); err != nil {
			if fault.ReasonOf(err) != fault.ReasonUnknownSession {
				return s, err
			}
			if refused := e.rights.May(by, a, access.Thing{What: "session", ID: ref}); refused != nil {
				return s, refused
			}
			return s, err // an administrator may know
		}
		if err = why; ended {
			err = nil
		} else if s.Ended() {
			err = sessionEnded(s.Spec.Name)
		}
	}
	thing := access.Thing{What: "session", ID: ref, Owner: s.CreatedBy.Principal, Host: s.Spec.Host, Labels: e.labels(s.Spec.Host)}
	if refused := e.rights.May(by, a, thing); refused != nil {
		return s, refused
	}
	return s, err
}

// sessionGone reports whether err says that there is no such session, or not any more.
func sessionGone(err error) bool {
	switch fault.ReasonOf(err) {
	case fault.ReasonUnknownSession, fault.ReasonSessionEnded, fault.ReasonSessionGone:
		return true
	}
	return false
}

func sessionEnded(name string) *fault.Error {
	return fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "the session %s has ended", name).
		WithHint("Open it again: telexec session open").With("session", name)
}

// sessionOf is the session of a command as access knows it.
func (e *Engine) sessionOf(c *command.Command) access.Thing {
	return access.Thing{What: "session", ID: c.Spec.Session, Owner: c.Spec.SessionOwner, Host: c.Spec.Host, Labels: e.labels(c.Spec.Host)}
}

// placeIn finds the session that a new command is for, and puts it there.
func (e *Engine) placeIn(ctx context.Context, by access.Caller, spec *command.Spec) error {
	s, err := e.findSession(ctx, by, access.Act, spec.Session, false)
	if err != nil {
		return err
	}
	enter(spec, s)
	return nil
}

func enter(spec *command.Spec, s session.Session) {
	spec.Session, spec.SessionID, spec.SessionOwner, spec.Host = s.Spec.Name, s.ID, s.CreatedBy.Principal, s.Spec.Host
}

// currentIn gives what runs in a session: of several what has come furthest, and of
// those the eldest. What waits for its turn is left out but with also Queued. nil where
// there is nothing.
func (e *Engine) currentIn(id string, also ...command.State) (current *live) {
	rank := map[command.State]int{command.Running: 1, command.Starting: 2}
	for _, state := range also {
		rank[state] = 3
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	best := 0
	for _, l := range e.inside[id] {
		r := rank[l.state()]
		if r != 0 && (best == 0 || r < best || r == best && l.id < current.id) {
			current, best = l, r
		}
	}
	return current
}

// Current gives what runs in a session, by name or id, else what is next, else the last
// that ran there. noTask: there never was anything. UNKNOWN_SESSION, or ACCESS_DENIED
// where the caller must not know whether there is one.
func (e *Engine) Current(ctx context.Context, by access.Caller, ref string) (s Snapshot, noTask bool, err error) {
	in, err := e.findSession(ctx, by, access.Look, ref, true)
	if err != nil {
		return Snapshot{}, false, err
	}
	if l := e.currentIn(in.ID, command.Queued); l != nil {
		return l.snapshot(), false, nil
	}
	last, err := e.journal.List(ctx, command.Filter{Session: in.ID, Limit: 1})
	if err != nil || len(last) == 0 {
		return Snapshot{}, err == nil, err
	}
	s, err = e.get(ctx, last[0].ID)
	return s, false, err
}

// typedWait is how long CancelSession waits for the command that somebody has typed
// just before.
const typedWait = time.Second

// CancelSession is Cancel for what runs in a session, whoever runs it. noTask: nothing
// does. What waits for its turn there goes on waiting.
func (e *Engine) CancelSession(ctx context.Context, by access.Caller, ref string, grace time.Duration, reason string) (s Snapshot, report command.CancelReport, noTask bool, err error) {
	in, err := e.findSession(ctx, by, access.Act, ref, true)
	if err != nil {
		return Snapshot{}, command.CancelReport{}, false, err
	}
	l, err := e.awaitTyped(ctx, in)
	if err != nil || l == nil {
		return Snapshot{}, command.CancelReport{Outcome: command.AlreadyEnded, Message: "nothing runs in the session"}, err == nil, err
	}
	s, report, err = e.Cancel(ctx, by, l.id, grace, reason)
	return s, report, false, err
}

// awaitTyped gives what runs in a session; nil where nothing does. What was typed just
// now may have no record yet.
func (e *Engine) awaitTyped(ctx context.Context, in session.Session) (*live, error) {
	late := time.NewTimer(typedWait)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, busy := e.sessions.Busy(in.ID)
		if l := e.currentIn(in.ID); l != nil || !busy {
			return l, nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return nil, fault.New(fault.Unavailable, fault.ReasonNotRunning, "what runs in the session %s has no record, since the service could not make one when it was typed", in.Spec.Name).
				WithHint("Send the session the key Ctrl+C").With("session", in.Spec.Name)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// SessionEnded tells that a session is over: what waits for its turn there ends at once.
// Without that it ends when its turn comes.
func (e *Engine) SessionEnded(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.inside[id] {
		l.kickOwner()
	}
}

// sweepSession answers a cancel of a command that is LOST and ran in a session, where
// nothing tells it from what else was run there.
func (e *Engine) sweepSession(s Snapshot) command.CancelReport {
	r := command.CancelReport{Outcome: command.Unproven, Message: "the command is LOST, and so is the session in which it ran; what is left of it on its host cannot be told"}
	if _, err := e.sessions.Find(s.Spec.SessionID); err == nil {
		r.Message = "the command is LOST; the session " + s.Spec.Session + " is open, and closing it ends what is left of the command there"
	}
	return r
}
