package terminal

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/session"
)

// Limits bound the sessions. A zero duration is no limit.
type Limits struct {
	MaxSessions      int // open at once
	MaxPerPrincipal  int // open at once, of one principal
	IdleTimeout      time.Duration
	Lifetime         time.Duration
	ReconnectTimeout time.Duration // how long the host of a kept shell may be away; above 0
	Record           bool
	RecordingBytes   int64    // of one session; 0: no limit
	Scrollback       int      // lines that a screen keeps
	Prompts          []string // regular expressions, beside those that are known
}

// Options is what Terminals are made of. Shells, Journal and Hosts are needed.
type Options struct {
	Shells  Shells
	Journal Journal
	Hosts   Hosts
	Rights  *access.Rights // nil: everybody's own, and an admin's everything
	Limits  Limits
	Redact  []secret.Text // masked in recordings
	Logger  *slog.Logger  // nil: slog.Default
}

// Terminals are all sessions. Methods may be called concurrently, those that take a
// reference with the name of a session or its id.
type Terminals struct {
	shells    Shells
	journal   Journal
	hosts     Hosts
	rights    *access.Rights
	limits    Limits
	log       *slog.Logger
	redaction *output.Redaction
	entropy   io.Reader // of ids; safe for concurrent use
	ready     chan struct{}
	stopping  chan struct{} // closed when the service stops
	stopped   chan struct{} // closed when nothing more is told
	bell      output.Bell   // rung when any session has changed

	mu       sync.Mutex
	commands Commands        // nil: what is typed is not made a command
	owning   context.Context // of the owners; nil while none may be started
	lives    map[string]*live
	owners   sync.WaitGroup // Add is guarded by mu and owning
	watchers map[*Watcher]bool
}

// New makes the set, which is empty until Run. Its error is that of a pattern of
// prompts, or of a value to be masked, that cannot be used.
func New(o Options) (*Terminals, error) {
	redaction, err := output.NewRedaction(o.Redact...)
	if err != nil {
		return nil, err
	}
	if _, err := completion.NewPrompts(o.Limits.Prompts); err != nil {
		return nil, err
	}
	t := &Terminals{
		shells: o.Shells, journal: o.Journal, hosts: o.Hosts, rights: o.Rights, limits: o.Limits, log: o.Logger,
		redaction: redaction,
		entropy:   &ulid.LockedMonotonicReader{MonotonicReader: ulid.Monotonic(rand.Reader, 0)},
		ready:     make(chan struct{}),
		stopping:  make(chan struct{}),
		stopped:   make(chan struct{}),
		lives:     make(map[string]*live),
		watchers:  make(map[*Watcher]bool),
	}
	if t.log == nil {
		t.log = slog.Default()
	}
	return t, nil
}

// Use tells who makes commands of what people type. It is called before Run.
func (t *Terminals) Use(c Commands) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commands = c
}

// Ready is closed when the sessions of the last run of the service are known again.
func (t *Terminals) Ready() <-chan struct{} { return t.ready }

// Run takes up what the last run of the service left: shells that something keeps are
// looked for, the other sessions are over. It works until ctx ends; then it lets go of
// kept shells, ends the others, and returns when no owner is left. It is called once.
func (t *Terminals) Run(ctx context.Context) error {
	owning, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	left, err := t.left(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.owning = owning
	t.mu.Unlock()
	for _, s := range left {
		t.takeUp(ctx, s)
	}
	close(t.ready)
	<-ctx.Done()
	t.mu.Lock()
	t.owning = nil
	t.mu.Unlock()
	close(t.stopping)
	for _, l := range t.all() {
		l.post(l.letGo)
	}
	t.owners.Wait()
	close(t.stopped)
	return nil
}

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

// register makes a session known, within the limits.
func (t *Terminals) register(l *live) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := 0
	for _, other := range t.lives {
		if other.createdBy == l.createdBy {
			of++
		}
	}
	switch {
	case l.recovered: // it is there, whatever the limits are now
	case t.limits.MaxSessions > 0 && len(t.lives) >= t.limits.MaxSessions:
		return tooMany("%d sessions are open, and the service allows no more", len(t.lives))
	case t.limits.MaxPerPrincipal > 0 && of >= t.limits.MaxPerPrincipal:
		return tooMany("%s has %d open sessions, and no more are allowed", l.createdBy, of)
	}
	t.lives[l.id] = l
	return nil
}

func tooMany(format string, args ...any) error {
	return fault.New(fault.Exhausted, fault.ReasonTooManySessions, format, args...).
		WithHint("Close one that is not needed any more, or use one that is open")
}

func (t *Terminals) unregister(l *live) {
	t.mu.Lock()
	delete(t.lives, l.id)
	t.mu.Unlock()
	t.bell.Ring()
}

// start starts the owner of a session; false where the service stops.
func (t *Terminals) start(l *live) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owning == nil {
		return false
	}
	ctx := t.owning
	t.owners.Go(func() {
		l.own(ctx)
		t.over(l)
		t.unregister(l)
		l.sweep(ctx)
	})
	return true
}

// all gives the sessions that have not ended and are stored.
func (t *Terminals) all() []*live {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*live, 0, len(t.lives))
	for _, l := range t.lives {
		if l.stored.Load() {
			list = append(list, l)
		}
	}
	return list
}

// find gives a session that has not ended; nil where there is none.
func (t *Terminals) find(ref string) *live {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.lives[ref]; l != nil && l.stored.Load() {
		return l
	}
	var newest *live // an older one of the name is over, whether or not that is told yet
	for _, l := range t.lives {
		if l.name == ref && l.stored.Load() && (newest == nil || l.id > newest.id) {
			newest = l
		}
	}
	return newest
}

// owned waits until a session has an owner whom find gives, or has none and will have
// none: then it is nil. A session that is just being stored has none yet.
func (t *Terminals) owned(ctx context.Context, id string) (*live, error) {
	for {
		rung := t.bell.Rung()
		t.mu.Lock()
		l := t.lives[id]
		t.mu.Unlock()
		if l == nil || l.stored.Load() {
			return l, nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return nil, fault.From(context.Cause(ctx))
		}
	}
}

// Session gives a session as it is now, also one that has ended; UNKNOWN_SESSION.
func (t *Terminals) Session(ctx context.Context, ref string) (session.Session, error) {
	if l := t.find(ref); l != nil {
		return l.snapshot(), nil
	}
	s, err := t.journal.Session(ctx, ref)
	if err == nil {
		if l := t.find(s.ID); l != nil { // it was just being opened
			return l.snapshot(), nil
		}
	}
	return s, err
}

// Find gives a session that has not ended, from memory: UNKNOWN_SESSION, or
// SESSION_ENDED where it is just over.
func (t *Terminals) Find(ref string) (session.Session, error) {
	l := t.find(ref)
	if l == nil {
		return session.Session{}, unknown(ref)
	}
	s := l.snapshot()
	if s.Ended() {
		return s, l.overNow()
	}
	return s, nil
}

func unknown(ref string) error {
	return fault.New(fault.NotFound, fault.ReasonUnknownSession, "there is no open session %q", ref).
		WithHint("ListSessions tells which there are; OpenSession opens one").With("session", ref)
}

// Busy tells whether something runs in a session, and which command that is; empty
// where it has none, or none yet.
func (t *Terminals) Busy(id string) (commandID string, busy bool) {
	l := t.find(id)
	if l == nil {
		return "", false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pub.Current, l.busy
}

// thing is a session for the rights.
func (t *Terminals) thing(s *session.Session) access.Thing {
	thing := access.Thing{What: "session", ID: s.ID, Owner: s.CreatedBy.Principal, Host: s.Spec.Host}
	if h, err := t.hosts.Lookup(s.Spec.Host); err == nil {
		thing.Labels = h.Labels
	}
	return thing
}

// may gives a session to a caller who may do it to it.
func (t *Terminals) may(ctx context.Context, by access.Caller, a access.Action, ref string) (*live, session.Session, error) {
	s, err := t.Session(ctx, ref)
	if err != nil {
		// Only who may see all is told that it is not there.
		if refused := t.rights.May(by, a, access.Thing{What: "session", ID: ref}); refused != nil && fault.KindOf(err) == fault.NotFound {
			return nil, s, refused
		}
		return nil, s, err
	}
	if err := t.rights.May(by, a, t.thing(&s)); err != nil {
		if fault.ReasonOf(err) == fault.ReasonAccessDenied {
			err = access.Hidden("session", ref) // by the words of the caller
		}
		return nil, session.Session{}, err
	}
	return t.find(s.ID), s, nil
}

// open is may for what needs a session that has not ended.
func (t *Terminals) open(ctx context.Context, by access.Caller, a access.Action, ref string) (*live, error) {
	l, s, err := t.may(ctx, by, a, ref)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, overAs(&s)
	}
	return l, nil
}

// overAs tells that a session is over.
func overAs(s *session.Session) error {
	why := "it is over"
	if s.End != nil {
		why = s.End.Message
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "the session %s has ended: %s", s.Spec.Name, why).
		WithHint("Open a new one; ReadRecording has what was seen in it").With("session", s.ID)
}

// MayType reports whether the caller may type in a session.
func (t *Terminals) MayType(by access.Caller, s session.Session) bool {
	return !s.Ended() && t.rights.MayType(by, t.thing(&s)) == nil
}

// Get gives a session to a caller who may see it.
func (t *Terminals) Get(ctx context.Context, by access.Caller, ref string) (session.Session, error) {
	_, s, err := t.may(ctx, by, access.Look, ref)
	return s, err
}

// List gives the sessions that the caller may see, newest first.
func (t *Terminals) List(ctx context.Context, by access.Caller, f session.Filter) ([]session.Session, error) {
	if err := t.rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, err
	}
	if f.Visible = nil; !t.rights.SeesAll(by) {
		f.Visible = &command.Visible{Principal: by.Name, Hosts: t.rights.Hosts(by, func(yield func(string, map[string]string) bool) {
			for _, h := range t.hosts.List() {
				if !yield(h.Name, h.Labels) {
					return
				}
			}
		})}
	}
	list, err := t.journal.Sessions(ctx, f)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if l := t.find(list[i].ID); l != nil {
			list[i] = l.snapshot()
		}
	}
	return list, nil
}

// Open opens a session and gives it when its shell has shown its prompt. With reuse an
// open session of the name on the host, in which the caller may act, is as good. The
// end of ctx does not end the session.
func (t *Terminals) Open(ctx context.Context, by access.Caller, spec session.Spec, reuse bool) (s session.Session, reused bool, err error) {
	if err := t.rights.May(by, access.Start, access.Thing{What: "session"}); err != nil {
		return s, false, err
	}
	host, err := t.hosts.Lookup(spec.Host)
	if err != nil {
		return s, false, err
	}
	spec.Host = host.Name
	if err := t.mayStart(by, spec); err != nil {
		return s, false, err
	}
	if spec.Size == (session.Size{}) {
		spec.Size = session.DefaultSize
	}
	if spec.Term == "" {
		spec.Term = "xterm-256color"
	}
	if most := t.limits.IdleTimeout; most > 0 && (spec.IdleTimeout == 0 || spec.IdleTimeout > most) {
		spec.IdleTimeout = most
	}
	named := spec.Name != ""
	for try := 1; ; try++ {
		if named && reuse {
			if s, ok, err := t.reuse(ctx, by, spec); ok || err != nil {
				return s, ok, err
			}
		} else if !named {
			spec.Name = nameOf(host.Name, try)
		}
		l, err := t.create(ctx, by, spec, host)
		if fault.ReasonOf(err) == fault.ReasonSessionExists && try < 1000 && (!named || reuse && try < 3) {
			continue
		}
		if err != nil {
			return s, false, err
		}
		s, err := l.awaitOpen(ctx)
		return s, false, err
	}
}

// reuse gives an open session of the name; ok is false where there is none.
func (t *Terminals) reuse(ctx context.Context, by access.Caller, spec session.Spec) (s session.Session, ok bool, err error) {
	l := t.find(spec.Name)
	if l == nil || l.name != spec.Name {
		return s, false, nil
	}
	s = l.snapshot()
	switch {
	case s.Ended() || s.State == session.Closing:
		return s, false, nil
	case s.Spec.Host != spec.Host || t.rights.May(by, access.Act, t.thing(&s)) != nil:
		return session.Session{}, false, exists(spec.Name)
	}
	if s, err = l.awaitOpen(ctx); err != nil {
		return s, false, err
	}
	return s, true, nil
}

func exists(name string) error {
	return fault.New(fault.AlreadyExists, fault.ReasonSessionExists, "an open session has the name %q", name).
		WithHint("Use it, with reuse where it is on that host, or choose another name").With("session", name)
}

// nameOf makes a name of the name of a host: the host's own, or with a number.
func nameOf(host string, try int) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, host)
	name = strings.TrimLeft(name, "._-")
	name = strings.TrimRight(name[:min(len(name), 56)], "-")
	if name == "" {
		name = "session"
	}
	if _, err := ulid.ParseStrict(name); err == nil {
		name = "host-" + name // a name is not of the form of an id
	}
	if try > 1 {
		name += "-" + strconv.Itoa(try)
	}
	return name
}

// create stores a new session and starts its owner.
func (t *Terminals) create(ctx context.Context, by access.Caller, spec session.Spec, host inventory.Host) (*live, error) {
	now := time.Now()
	id, err := ulid.New(ulid.Timestamp(now), t.entropy)
	if err != nil {
		return nil, fault.From(err)
	}
	s := session.Session{
		ID: id.String(), Version: 1, State: session.Opening, Spec: spec, CreatedBy: by.Actor(), CreateTime: now, LastActivity: now,
		Size: spec.Size, Nonce: completion.NewNonce(), Recorded: t.limits.Record,
	}
	if t.limits.Lifetime > 0 {
		s.ExpireTime = now.Add(t.limits.Lifetime)
	}
	l := newLive(t, s, host)
	if err := t.register(l); err != nil {
		return nil, err
	}
	told := entry(audit.SessionOpened, by, &s)
	told.Detail = "name " + spec.Name
	if spec.Shell != "" {
		told.Detail += ", shell " + spec.Shell
	}
	if spec.Keeper != "" {
		told.Detail += ", keeper " + string(spec.Keeper)
	}
	if err := t.store(ctx, s, told); err != nil {
		t.unregister(l)
		return nil, err
	}
	l.stored.Store(true)
	t.bell.Ring()
	if t.start(l) {
		return l, nil
	}
	t.unregister(l)
	err = fault.New(fault.Unavailable, fault.ReasonDraining, "the service is starting or shutting down and opens no sessions").
		WithHint("Try again in a moment").WithRetry(time.Second)
	s.Version, s.State, s.End, s.EndTime = 2, session.Ended, failure(err), time.Now()
	return nil, errors.Join(err, t.journal.SaveSession(context.WithoutCancel(ctx), s, ended(&s)))
}

// store stores a new session. Whoever asked may go away meanwhile: then nobody would know
// whether it is there. Where it fails, what may have been stored is ended.
func (t *Terminals) store(ctx context.Context, s session.Session, told audit.Entry) error {
	if err := ctx.Err(); err != nil {
		return fault.From(context.Cause(ctx))
	}
	ctx = context.WithoutCancel(ctx)
	storing, stop := context.WithTimeout(ctx, storeMost)
	defer stop()
	err := t.journal.CreateSession(storing, s, told)
	if err == nil || fault.ReasonOf(err) == fault.ReasonSessionExists {
		return err
	}
	ending, stop := context.WithTimeout(ctx, saveMost)
	defer stop()
	s.Version, s.State, s.End, s.EndTime = 2, session.Ended, failure(err), time.Now()
	switch left := t.journal.SaveSession(ending, s, ended(&s)); fault.KindOf(left) {
	case fault.NotFound: // it was not stored
	default:
		if left != nil {
			t.log.WarnContext(ctx, "a session that could not be stored may have its name until it is closed", "session", s.ID, "name", s.Spec.Name, "error", left)
		}
	}
	return err
}

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

// Recording gives bytes of a recording, also of a session that has ended; last where
// there are no more of them, as yet.
func (t *Terminals) Recording(ctx context.Context, by access.Caller, ref string, offset int64, limit int) (data []byte, last bool, err error) {
	_, s, err := t.may(ctx, by, access.Look, ref)
	if err != nil {
		return nil, false, err
	}
	if data, err = t.journal.ReadRecording(ctx, s.ID, offset, limit); err != nil {
		return nil, false, err
	}
	return data, len(data) < limit, nil
}

// entry begins an audit entry about a session.
func entry(kind audit.Kind, by access.Caller, s *session.Session) audit.Entry {
	return audit.Entry{
		Time: time.Now(), Kind: kind,
		Principal: by.Name, Origin: string(by.Origin), Address: by.Address, Call: by.Call,
		Session: s.ID, Host: s.Spec.Host, Subject: s.Spec.Name,
	}
}

// ended tells of the end of a session.
func ended(s *session.Session) audit.Entry {
	en := audit.Entry{
		Time: s.EndTime, Kind: audit.SessionEnded, Principal: s.CreatedBy.Principal, Origin: string(s.CreatedBy.Origin),
		Session: s.ID, Host: s.Spec.Host, Subject: s.Spec.Name, ExitCode: s.Exit,
	}
	if s.End != nil {
		en.Reason, en.Detail = s.End.Reason, s.End.Message
	}
	return en
}

// failure gives an error as the end of a session.
func failure(err error) *command.Failure {
	e := fault.From(err)
	return &command.Failure{Reason: e.Reason, Message: e.Message, Hint: e.Hint}
}
