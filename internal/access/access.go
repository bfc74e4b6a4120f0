// Package access knows who asks. A caller shows a bearer token; an Authenticator
// turns it into a Principal; the door that did so puts the principal into the
// call's context, from where every later decision takes it.
//
// Today there is one principal, the administrator, whose token is made at the
// first start and kept in a file that only the service's user can read (see
// OpenAdmin). More kinds of credentials are more Authenticators behind the same
// interface.
package access

import (
	"context"
	"slices"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// Role is what a principal may do.
type Role string

// The roles.
const RoleAdmin Role = "admin" // everything

// Principal is who asks: a person, a service or an agent.
type Principal struct {
	Name  string
	Roles []Role
}

// Has reports whether the principal has the role.
func (p Principal) Has(r Role) bool { return slices.Contains(p.Roles, r) }

// Authenticator tells whose token it is. It fails with fault.Unauthenticated:
// NO_CREDENTIALS for the empty token, BAD_CREDENTIALS for an unknown one. It may
// be called from any goroutine.
type Authenticator interface {
	Authenticate(ctx context.Context, token secret.Text) (Principal, error)
}

type principalKey struct{}

// WithPrincipal gives a context that carries the principal.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext gives the principal that ctx carries. ok is false in a context
// that did not come through an authenticated door.
func FromContext(ctx context.Context) (p Principal, ok bool) {
	p, ok = ctx.Value(principalKey{}).(Principal)
	return p, ok
}

func noCredentials() error {
	return fault.New(fault.Unauthenticated, fault.ReasonNoCredentials, "the call carries no credentials").
		WithHint("Send the header \"authorization: Bearer TOKEN\"; the first start of telexecd wrote a token to admin.token in its data directory")
}

func badCredentials() error {
	return fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, "the token is not known to this server").
		WithHint("Check that it belongs to this server and was copied whole; the administrator's is in admin.token in the server's data directory")
}
