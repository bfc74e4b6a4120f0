package terminal

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
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

// register makes a session known, within the limits.
func (t *Terminals) register(l *live) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	open, of := 0, 0
	for _, other := range t.lives {
		if other.isGone() {
			continue // who has closed it may open another one at once
		}
		open++
		if other.createdBy == l.createdBy {
			of++
		}
	}
	switch {
	case l.recovered: // it is there, whatever the limits are now
	case t.limits.MaxSessions > 0 && open >= t.limits.MaxSessions:
		return tooMany("%d sessions are open, and the service allows no more", open)
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

// failure gives an error as the end of a session.
func failure(err error) *command.Failure {
	e := fault.From(err)
	return &command.Failure{Reason: e.Reason, Message: e.Message, Hint: e.Hint}
}
