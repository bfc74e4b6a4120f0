package access

import (
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"sync/atomic"

	"github.com/telexec/telexec/internal/fault"
)

// Action is what somebody wants to do.
type Action int

// The actions, each with the role it needs. Who may decide about what waits for
// approval is said by the rule that asked for it.
const (
	Look       Action = iota // see a thing, or list: any role
	Start                    // start a command, open a session: operator
	Act                      // cancel or close it, send it a signal or input: operator
	Administer               // keys, the audit, what is the service's: admin
)

// allowedBy says which roles an action needs one of. That an administrator may do
// everything is in Principal.Has.
var allowedBy = map[Action][]Role{
	Look:       Roles,
	Start:      {RoleOperator},
	Act:        {RoleOperator},
	Administer: {RoleAdmin},
}

// Thing is something that is looked at or acted on: a command, or what belongs to
// one; a session.
type Thing struct {
	What  string // one lower-case word for it: "command", "session"
	ID    string
	Owner string // name of the principal
	Host  string // that it is on; empty: none
	// Labels are the host's, as its administrator has set them; never those of a
	// command, which whoever starts it chooses.
	Labels map[string]string
}

// Wider lets the holders of roles beyond what is their own. It widens whose
// things, not what may be done: each of the roles allows with everybody's what it
// allows with its holder's own.
type Wider struct {
	Roles  []Role            // at least one
	Hosts  []string          // globs of host names (path.Match); empty: any host
	Labels map[string]string // that the host has, all of them; empty: whatever it has
}

// covers reports whether things on the host are among what is widened.
func (w Wider) covers(host string, labels map[string]string) bool {
	if w.everywhere() {
		return true
	}
	named := len(w.Hosts) == 0 || slices.ContainsFunc(w.Hosts, func(glob string) bool {
		matched, _ := path.Match(glob, host) // NewRights has seen that it is a glob
		return matched
	})
	if !named || host == "" {
		return false
	}
	for key, value := range w.Labels {
		if has, ok := labels[key]; !ok || has != value {
			return false
		}
	}
	return true
}

func (w Wider) everywhere() bool { return len(w.Hosts) == 0 && len(w.Labels) == 0 }

// Rights say what callers may do, and with whose things. They may be asked from any
// goroutine, and never change but by SetTyping; nil is those without any Wider, with
// operators who may type.
type Rights struct {
	wider  []Wider
	typing atomic.Pointer[[]Role] // nil: typingDefault
}

// typingDefault are the roles that may type where nobody says which.
var typingDefault = []Role{RoleOperator}

// NewRights gives rights that are wider than each caller's own. typing are the roles
// that may type (MayType), besides administrators; without any they are the
// operators. It fails with BAD_CONFIG for a role that there is not, or what is no
// glob.
func NewRights(wider []Wider, typing ...Role) (*Rights, error) {
	if unknown := unknownRoles(typing); len(unknown) > 0 {
		return nil, fault.New(fault.Invalid, fault.ReasonBadConfig, "sessions.typing_roles: there is no role %q; the roles are %s", unknown[0], roleList(Roles))
	}
	for i, w := range wider {
		bad := func(format string, args ...any) error {
			return fault.New(fault.Invalid, fault.ReasonBadConfig, "auth.wider, entry %d: %s", i+1, fmt.Sprintf(format, args...))
		}
		if len(w.Roles) == 0 {
			return nil, bad("it names no roles")
		}
		if unknown := unknownRoles(w.Roles); len(unknown) > 0 {
			return nil, bad("there is no role %q; the roles are %s", unknown[0], roleList(Roles))
		}
		for _, glob := range w.Hosts {
			if _, err := path.Match(glob, ""); err != nil || glob == "" {
				return nil, bad("%q is not a pattern of host names", glob)
			}
		}
	}
	r := &Rights{wider: slices.Clone(wider)}
	r.SetTyping(typing...)
	return r, nil
}

// SetTyping has those who hold one of these roles type from now on, and no others but
// administrators; without any they are the operators.
func (r *Rights) SetTyping(roles ...Role) {
	if len(roles) == 0 {
		roles = typingDefault
	}
	roles = slices.Clone(roles)
	r.typing.Store(&roles)
}

// May reports whether the caller may do it to the thing: nil, or
// fault.PermissionDenied. ROLE_MISSING does not depend on the thing, so it is
// decided first and tells nothing about it; ACCESS_DENIED is Hidden's, as for a
// thing that is not there.
//
// Whose things: Start needs no thing. The others need the caller
// to own the thing, a Wider that covers its host for a role that allows the
// action, or an administrator.
//
// Where a thing is not there, ask about one with What and ID alone: nil is then
// said only to those who may do it to whatever there is, and so may be told that
// it is not there. All others get what they would get for somebody else's.
func (r *Rights) May(c Caller, a Action, t Thing) error {
	if err := needs(c, a); err != nil {
		return err
	}
	switch {
	case a == Start, c.Has(RoleAdmin):
		return nil
	case t.Owner == "":
		t.Host, t.Labels = "", nil // only what is wider without naming hosts covers it
	case t.Owner == c.Name:
		return nil
	}
	if r.widened(c, a, t.Host, t.Labels) {
		return nil
	}
	return Hidden(t.What, t.ID)
}

// MayType reports whether the caller may type at the terminal that the thing is: nil,
// or fault.PermissionDenied. What is typed is no command that a policy could judge
// before it runs, so it needs, besides the right to Act on the thing, a role that may
// type. TYPING_NOT_ALLOWED does not depend on the thing; the rest is May's answer. Since
// SetTyping may change it, it is asked whenever somebody types, and not once.
func (r *Rights) MayType(c Caller, t Thing) error {
	roles := typingDefault
	if r != nil {
		if set := r.typing.Load(); set != nil {
			roles = *set
		}
	}
	if !slices.ContainsFunc(roles, c.Has) {
		has := "has no role"
		if len(c.Roles) > 0 {
			has = "has only: " + roleList(c.Roles)
		}
		return fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "to type needs one of these roles: %s; %s %s", roleList(roles), c.Name, has).
			WithHint("Watch as an observer, run commands in the session instead of typing them, or ask an administrator for such a role (sessions.typing_roles says which)").
			With("roles", roleList(roles))
	}
	return r.May(c, Act, t)
}

// widened reports whether a Wider lets the caller do it to everybody's things on
// the host.
func (r *Rights) widened(c Caller, a Action, host string, labels map[string]string) bool {
	return r != nil && slices.ContainsFunc(r.wider, func(w Wider) bool { return w.lets(c, a) && w.covers(host, labels) })
}

// lets reports whether the caller has one of w's roles that allows the action.
func (w Wider) lets(c Caller, a Action) bool {
	return slices.ContainsFunc(w.Roles, func(role Role) bool {
		return slices.Contains(c.Roles, role) && slices.ContainsFunc(allowedBy[a], Principal{Roles: []Role{role}}.Has)
	})
}

// SeesAll reports whether the caller may look at whatever there is, so that a list
// needs no filter: an administrator, and whom a Wider lets look without naming
// hosts or labels.
func (r *Rights) SeesAll(c Caller) bool {
	return c.Has(RoleAdmin) || r != nil && slices.ContainsFunc(r.wider, func(w Wider) bool { return w.everywhere() && w.lets(c, Look) })
}

// Hosts gives the names of those hosts on which the caller may look at
// everybody's commands, in order; for lists of a caller for whom SeesAll is
// false. all are the hosts that there are, with their labels.
func (r *Rights) Hosts(c Caller, all iter.Seq2[string, map[string]string]) []string {
	if r == nil || !slices.ContainsFunc(r.wider, func(w Wider) bool { return w.lets(c, Look) }) {
		return nil
	}
	names := make(map[string]bool)
	for name, labels := range all {
		if r.widened(c, Look, name, labels) {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// needs reports whether one of the caller's roles allows the action.
func needs(c Caller, a Action) error {
	roles := allowedBy[a]
	if slices.ContainsFunc(roles, c.Has) {
		return nil
	}
	return roleMissing(c.Principal, roles[0])
}

func roleMissing(p Principal, role Role) error {
	has := "has no role"
	if len(p.Roles) > 0 {
		has = "has only: " + roleList(p.Roles)
	}
	return fault.New(fault.PermissionDenied, fault.ReasonRoleMissing, "this needs the role %s, and %s %s", role, p.Name, has).
		WithHint("Ask an administrator for a token with the role %s", role).With("role", string(role))
}

// Hidden is the refusal of a thing that is somebody else's, and, to whoever may
// not see all, of one that is not there: the same to the letter, so that nobody
// learns which ids are in use.
func Hidden(what, id string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonAccessDenied, "you have no access to a %s %q, if there is one", what, id).
		WithHint("Check the id; ask its owner or an administrator").With(what+"_id", id)
}
