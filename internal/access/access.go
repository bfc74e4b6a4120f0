// Package access knows who asks, and whose things they may touch.
//
//	Credentials ──Authenticators──▶ Principal ──door──▶ Caller ──▶ Limiter.Take   how often
//	             (token.go says                                 └▶ Rights.May     what, and whose
//	              which of them)
//
// A door hands over what a call shows, a bearer token or the name in a client
// certificate, and gets the Principal: a name, with roles. Where it came from:
//
//	Admin    the administrator's token, which is in a file of the service (admin.go)
//	Keys     API keys, made and revoked through the service (keys.go, token.go)
//	Issuers  JSON Web Tokens of others, by key or by the URL of their keys (jwt.go, jwks.go)
//	Clients  client certificates that TLS has verified (cert.go)
//
// The form of the token alone says which of them is asked; nothing is tried in
// turn. A stranger learns nothing: whatever is not known is BAD_CREDENTIALS with
// the same words, and why is in the wrapped cause, for the log. Only who holds a
// genuine token is told that it is over or was taken back.
//
// The door makes a Caller of the principal and puts it into the call's context,
// from where every later decision takes it. Rights (rights.go) says what roles
// allow and whose commands a caller may touch; Limiter (limit.go) how often. Both
// decide in memory; neither starts anything. What is refused is told to the audit
// by Refusals (refusals.go).
//
// docs/access.md tells all of this to those who run the service. The room is
// larger than most because each kind of credentials has its own traps, and they
// stay together so that one review sees every way in.
package access

import (
	"context"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

// Credentials are what a call shows.
type Credentials struct {
	Token  secret.Text // bearer token; empty: none
	Client string      // name from a client certificate that TLS has verified (see ClientName); empty: none
}

// Slow reports whether they may take long to look at: a signature has to be
// checked, with keys that may have to be fetched. All others are known in memory.
func (c Credentials) Slow() bool { return formOf(c.Token.Reveal()) == formJWT }

// Authenticator tells whose credentials they are. It fails with
// fault.Unauthenticated: NO_CREDENTIALS where there are none, BAD_CREDENTIALS for
// those that are not known, TOKEN_EXPIRED and TOKEN_REVOKED for those that were
// good; and with fault.PermissionDenied, ROLE_MISSING, where they are good but
// nothing is allowed to their holder. It may be called from any goroutine.
type Authenticator interface {
	Authenticate(ctx context.Context, shown Credentials) (Principal, error)
}

// Authenticators asks the one that credentials are for. A token is looked at
// before a certificate: a program behind a certificate may act for somebody else.
// A nil field is a kind that is not in use; its credentials are not known.
type Authenticators struct {
	Admin   Authenticator // tokens of no other form
	Keys    Authenticator // tokens that begin with "txk_"
	Issuers Authenticator // tokens of three parts with dots between them
	Clients Authenticator // no token, but a certificate
}

// Authenticate is of Authenticator.
func (a Authenticators) Authenticate(ctx context.Context, shown Credentials) (Principal, error) {
	var who Authenticator
	switch formOf(shown.Token.Reveal()) {
	case formNone:
		if shown.Client == "" || a.Clients == nil {
			return Principal{}, noCredentials()
		}
		who = a.Clients
	case formKey:
		who = a.Keys
	case formJWT:
		who = a.Issuers
	case formOther:
		who = a.Admin
	}
	if who == nil {
		return Principal{}, badCredentials("no such tokens are in use")
	}
	return who.Authenticate(ctx, shown)
}

func noCredentials() error {
	return fault.New(fault.Unauthenticated, fault.ReasonNoCredentials, "the call carries no credentials").
		WithHint("Send the header \"authorization: Bearer TOKEN\"; the first start of telexecd wrote a token to admin.token in its data directory")
}

// badCredentials is what strangers are told, with the cause for the log.
func badCredentials(why string) *fault.Error {
	return fault.Wrap(cause(why), fault.Unauthenticated, fault.ReasonBadCredentials, "the token is not known to this server").
		WithHint("Check that it belongs to this server and was copied whole; the administrator's is in admin.token in the server's data directory")
}

// cause is why credentials were refused, for the log.
type cause string

func (c cause) Error() string { return string(c) }
