package access

import (
	"context"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/telexec/telexec/internal/fault"
)

// ClientName gives the name for which a client certificate stands: its first DNS
// name, else its first URI (such as a SPIFFE id), else its common name; empty
// where it has none of them. DNS names are in small letters. Names with an
// asterisk name nobody in particular and are passed over. The certificate must
// have been verified by TLS.
func ClientName(cert *x509.Certificate) string {
	for _, name := range cert.DNSNames {
		if plainName(name) {
			return strings.ToLower(name)
		}
	}
	for _, uri := range cert.URIs {
		if name := uri.String(); plainName(name) {
			return name
		}
	}
	// The common name speaks only in certificates without the other two: there it
	// is for people.
	if len(cert.DNSNames)+len(cert.URIs) == 0 && plainName(cert.Subject.CommonName) {
		return cert.Subject.CommonName
	}
	return ""
}

// plainName reports whether a name from outside can be a principal's: it is
// stored, shown and logged.
func plainName(s string) bool {
	return s != "" && len(s) <= maxName && !strings.Contains(s, "*") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\ufffd' || !unicode.IsPrint(r) })
}

// Clients authenticates by client certificates.
type Clients struct {
	roles map[string][]Role
}

// NewClients takes the roles of each certificate name (see ClientName). A name is
// matched exactly; "*.example.com" stands for names with one more label, as in
// certificates of servers, and counts where the exact name is not there. It fails
// with BAD_CONFIG for another asterisk or a role that there is not.
func NewClients(roles map[string][]Role) (*Clients, error) {
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		bad := func(format string, args ...any) error {
			return fault.New(fault.Invalid, fault.ReasonBadConfig, "auth.client_certificates.roles: "+format, args...)
		}
		if !plainName(strings.TrimPrefix(name, "*.")) {
			return nil, bad("%q is not a name in a certificate, nor *. and one", name)
		}
		if len(roles[name]) == 0 {
			return nil, bad("%q has no roles", name)
		}
		if unknown := unknownRoles(roles[name]); len(unknown) > 0 {
			return nil, bad("%q: there is no role %q; the roles are %s", name, unknown[0], roleList(Roles))
		}
	}
	return &Clients{roles: maps.Clone(roles)}, nil
}

// Authenticate is of Authenticator.
func (c *Clients) Authenticate(_ context.Context, shown Credentials) (Principal, error) {
	if shown.Client == "" {
		return Principal{}, noCredentials()
	}
	roles := c.roles[shown.Client]
	if roles == nil {
		if label, rest, _ := strings.Cut(shown.Client, "."); label != "" {
			roles = c.roles["*."+rest]
		}
	}
	if roles == nil || !plainName(shown.Client) {
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, "no roles are configured for the client certificate of %q", shown.Client).
			WithHint("Add the name to auth.client_certificates.roles, or send a token")
	}
	return Principal{Name: "cert:" + shown.Client, Roles: inOrder(roles)}, nil
}
