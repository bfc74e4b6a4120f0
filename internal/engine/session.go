package engine

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/policy"
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

// posix are the shells whose lines the rules can read.
var posix = map[string]bool{"bash": true, "dash": true, "ash": true, "ksh": true, "mksh": true, "sh": true}

// inShell fills in what the rules are to know of a command in a session: somebody may
// type to it, nobody knows in which directory it runs, and its line is for the
// session's shell, or for whatever is there where that is none.
func (e *Engine) inShell(r *policy.Request, spec *command.Spec) {
	r.Input, r.Directory, r.LoginShell, r.RawShell = true, "~", false, false
	s, err := e.sessions.Find(spec.SessionID)
	switch {
	case err != nil:
		r.LoginShell = true
	case s.Shell == "", s.Completion != command.ByMark: // no shell, or what was started in it (ssh, su) is not known
		r.RawShell = true
	default:
		r.LoginShell = !posix[s.Shell] || recalls(spec.Line)
	}
}

// shellKind names the kind of shell that the rules were asked about for a command in a
// session; empty for one that is in none.
func shellKind(r *policy.Request, spec *command.Spec) string {
	switch {
	case spec.SessionID == "":
		return ""
	case r.RawShell:
		return "none"
	case r.LoginShell:
		return "another"
	}
	return "posix"
}

// stillFits is why a command may not be typed in its session any more; nil where it may.
// It was judged for what had the terminal then. Where another kind of shell reads there
// now, the rules are asked again, and an approval is void. was is what this run of the
// service has asked them; nil where an earlier one did.
func (e *Engine) stillFits(c *command.Command, was *policy.Request, host inventory.Host) error {
	spec := &c.Spec
	if _, err := e.sessions.Find(spec.SessionID); err != nil {
		return nil // Start tells why
	}
	now := e.request(access.Caller{Principal: access.Principal{Name: c.CreatedBy.Principal}, Origin: c.CreatedBy.Origin}, spec, host)
	var said policy.Decision
	switch {
	case was != nil && shellKind(was, spec) == shellKind(&now, spec):
		return nil
	case was != nil && c.Gated:
		return fault.New(fault.FailedPrecondition, fault.ReasonApprovalVoid, "what reads in the session %s now is not the shell for which the command was approved", spec.Session).
			WithHint("Look what runs there, and run it again")
	case was != nil:
		now.Roles = was.Roles
		said = e.ask(now)
	default: // by an earlier run, of which nothing but the line is known
		said = e.askForAnybody(now)
	}
	switch said.Effect {
	case policy.Allow:
		return nil
	case policy.RequireApproval:
		return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "what reads in the session %s now may not be what the command was judged for, and there it needs an approval: %s", spec.Session, said.Reason).
			WithHint("Look what runs there, and run it again: it then waits for the approval").With("rule", said.Rule)
	}
	return fault.New(fault.PermissionDenied, fault.ReasonPolicyDenied, "what reads in the session %s now may not be what the command was judged for, and the policy refuses it there: %s", spec.Session, said.Reason).
		WithHint("Look what runs there, and run it again when that has ended, or as plain words that mean the same in every shell").With("rule", said.Rule)
}

// askForAnybody asks the rules about a command that they have let pass once, when
// nobody knows any more for which shell, and what roles its principal had. What the
// rules can read means the same in every shell; else it must be allowed to whoever asks.
func (e *Engine) askForAnybody(r policy.Request) policy.Decision {
	said := e.ask(r)
	if !r.LoginShell && !r.RawShell || said.Parsed {
		return policy.Decision{Effect: policy.Allow, Rule: said.Rule}
	}
	for held := range 1 << len(access.Roles) {
		r.Roles = nil
		for i, role := range access.Roles {
			if held>>i&1 != 0 {
				r.Roles = append(r.Roles, string(role))
			}
		}
		if said = e.ask(r); said.Effect != policy.Allow {
			break
		}
	}
	return said
}

// unfit reports whether err is one of stillFits.
func unfit(err error) bool {
	reason := fault.ReasonOf(err)
	return reason == fault.ReasonPolicyDenied || reason == fault.ReasonApprovalVoid
}

// refuse ends a command that has its slot as the rules refuse it. Nothing of it was
// typed.
func (l *live) refuse(ctx context.Context, err error) {
	l.unclaim(ctx) // what was STARTING is not REJECTED
	l.end(ctx, command.Reject, failed(err))
}

// recalls reports whether an interactive shell may put an earlier line, or words of it,
// in the place of this one, or of a part of it: for a "!", or for a "^" at the beginning.
func recalls(line string) bool {
	for one := range strings.SplitSeq(line, "\n") {
		if strings.HasPrefix(strings.TrimLeft(one, " \t\r"), "^") {
			return true
		}
	}
	for {
		_, rest, found := strings.Cut(line, "!")
		if !found {
			return false
		}
		if line = rest; line != "" && !strings.ContainsRune(" \t\r\n=", rune(line[0])) {
			return true
		}
	}
}

// acquireIdle takes the session's slot where nothing runs or waits there.
func (e *Engine) acquireIdle(spec *command.Spec) (slot bool, err error) {
	key := queueOf(spec, "")
	slot, idle, err := e.queue.acquireIdle(key, 1)
	if err != nil {
		return false, err
	}
	if idle {
		if _, typing := e.sessions.Busy(spec.SessionID); !typing {
			return slot, nil
		}
		if slot {
			e.queue.release(key, 0)
		} else {
			e.queue.unreserve()
		}
	}
	return false, e.sessionBusy(spec)
}

// mustBeIdle is SESSION_BUSY where something runs or waits in the session.
func (e *Engine) mustBeIdle(spec *command.Spec) error {
	if spec.SessionID == "" {
		return nil
	}
	if _, typing := e.sessions.Busy(spec.SessionID); !typing && e.queue.idle(queueOf(spec, "")) {
		return nil
	}
	return e.sessionBusy(spec)
}

// lineShown is how many bytes of a command line SESSION_BUSY has.
const lineShown = 200

// sessionBusy says who runs what since when.
func (e *Engine) sessionBusy(spec *command.Spec) error {
	hint := "Run it with if_busy WAIT to have its turn come, or cancel what runs there: telexec cancel --session " + spec.Session
	l := e.currentIn(spec.SessionID, command.Queued)
	if l == nil { // it was typed just now, or has just ended
		return fault.New(fault.FailedPrecondition, fault.ReasonSessionBusy, "something runs in the session %s", spec.Session).
			WithHint("%s", hint).With("session", spec.Session)
	}
	s := l.snapshot()
	since := s.StartTime
	if since.IsZero() {
		since = s.CreateTime
	}
	line := shortened(strings.ToValidUTF8(s.CommandLine(), "\uFFFD"), lineShown)
	at := since.UTC().Format(time.RFC3339)
	return fault.New(fault.FailedPrecondition, fault.ReasonSessionBusy, "in the session %s %s runs %q since %s", spec.Session, s.CreatedBy.Principal, line, at).
		WithHint("%s", hint).With("session", spec.Session).
		With("command_id", s.ID).With("command", line).With("principal", s.CreatedBy.Principal).With("since", at)
}

// shortened gives at most n bytes of text, which is UTF-8, with an ellipsis where it was
// longer.
func shortened(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return cutAt(text, n-len("…")) + "…"
}

// cutAt gives at most n bytes of text, whole runes.
func cutAt(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
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

// Typed makes a command of what somebody has typed in a session, at the prompt with
// that number, and gives its id. Its owner takes it up with Sessions.Start, which may
// be asked before Typed returns. After an error there is no such command, or, where ctx
// has ended or the store left it in doubt, there may be one yet, which ends at once
// where Start does not know it any more.
func (e *Engine) Typed(ctx context.Context, by access.Caller, s session.Session, number int64, line string) (id string, err error) {
	spec := command.Spec{Typed: number, Line: typed(line)}
	enter(&spec, s)
	if spec, err = command.NewSpec(spec); err != nil {
		return "", err
	}
	made, _, err := e.seeThrough(ctx, by, func(ctx context.Context, doubt func(error)) (Snapshot, bool, error) {
		s, err := e.acceptTyped(ctx, by, spec, doubt)
		return s, false, err
	})
	return made.ID, err
}

// typed gives what was typed as a command line that can be kept.
func typed(line string) string {
	line = strings.ReplaceAll(strings.ToValidUTF8(line, "\uFFFD"), "\x00", "")
	return cutAt(line, command.MaxLine)
}

func (e *Engine) acceptTyped(ctx context.Context, by access.Caller, spec command.Spec, doubt func(err error)) (Snapshot, error) {
	now := time.Now()
	c := command.Command{
		ID: e.newID(now), Version: 1, State: command.Queued, Spec: spec,
		CreatedBy: by.Actor(), CreateTime: now, LastActivity: now,
		SessionOffset: -1,
	}
	c.State, _ = command.Next(c.State, command.Claim)
	claimed(&c, e.node)
	host, err := e.hosts.Lookup(spec.Host)
	if err != nil { // its shell is there all the same
		host = inventory.Host{Name: spec.Host}
	}
	hash := c.Spec.ContentHash()
	told := e.about(entry(audit.CommandAccepted, by), &c, nil)
	told.Decision, told.RequestHash, told.Outcome = "typed", boundHash(hash, host, ""), string(c.State)
	l, err := newLive(e, c)
	if err != nil {
		return Snapshot{}, err
	}
	e.queue.take(l.ticket.host, 1)
	handed := false // to its owner, with its slot
	defer func() {
		if !handed {
			e.queue.release(l.ticket.host, 0)
			e.unregister(l)
		}
	}()
	e.register(l)
	if _, _, err := e.create(ctx, c, hash, nil, told, doubt); err != nil {
		return Snapshot{}, err
	}
	handed = true
	e.feed.touch(l)
	e.births <- birth{live: l, host: &host}
	return l.snapshot(), nil
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

// sweepSession answers a cancel of a command that is LOST and ran in a session, where
// nothing tells it from what else was run there.
func (e *Engine) sweepSession(s Snapshot) command.CancelReport {
	r := command.CancelReport{Outcome: command.Unproven, Message: "the command is LOST, and so is the session in which it ran; what is left of it on its host cannot be told"}
	if _, err := e.sessions.Find(s.Spec.SessionID); err == nil {
		r.Message = "the command is LOST; the session " + s.Spec.Session + " is open, and closing it ends what is left of the command there"
	}
	return r
}
