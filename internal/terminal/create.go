package terminal

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/session"
)

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
