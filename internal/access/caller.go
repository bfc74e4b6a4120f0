package access

import (
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
)

// Role is what a principal may do. Every role may look at what is the
// principal's own.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // looks; starts nothing
	RoleOperator Role = "operator" // starts commands, and acts on its own
	RoleApprover Role = "approver" // decides about commands that wait for approval
	RoleAdmin    Role = "admin"    // everything, and stands for every role
)

// Roles lists all roles.
var Roles = []Role{RoleViewer, RoleOperator, RoleApprover, RoleAdmin}

// maxName is how many bytes a name from outside may have.
const maxName = 255

// Principal is who asks: a person, a service or an agent. Names of API keys have
// no colon in them, those of other sources have their source in front ("jwt:corp:
// alice", "cert:ci.example.com"), so that no two sources name one principal.
type Principal struct {
	Name   string
	Roles  []Role
	Limits Limits    // of its own; zero fields are the service's
	Key    string    // id of the API key that was shown; empty for other credentials
	Expiry time.Time // when its credentials are over; zero: never
}

// Has reports whether the principal has the role, or is an administrator.
func (p Principal) Has(r Role) bool {
	return slices.Contains(p.Roles, r) || slices.Contains(p.Roles, RoleAdmin)
}

// RoleNames gives the roles as words.
func (p Principal) RoleNames() []string {
	names := make([]string, len(p.Roles))
	for i, r := range p.Roles {
		names[i] = string(r)
	}
	return names
}

// Caller is a principal in one call: who asks, through which door, from where.
type Caller struct {
	Principal
	Origin  command.Origin
	Address string // IP address; empty where it has none, such as a test's
	Call    string // id of the call, as in the log
}

// Actor is what is stored of a caller beside what it has done.
func (c Caller) Actor() command.Actor {
	return command.Actor{Principal: c.Name, Origin: c.Origin}
}

type callerKey struct{}

// WithCaller gives a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// FromContext gives the caller that ctx carries. ok is false in a context that
// did not come through an authenticated door.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// entry begins an audit entry about what the caller did.
func (c Caller) entry(kind audit.Kind, at time.Time) audit.Entry {
	return audit.Entry{Time: at, Kind: kind, Principal: c.Name, Origin: string(c.Origin), Address: c.Address, Call: c.Call}
}
