package terminal

import (
	"context"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

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
