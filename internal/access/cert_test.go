package access_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

func TestNamesOfClientCertificates(t *testing.T) {
	spiffe := must(url.Parse("spiffe://example.com/ci"))
	named := func(cn string, dns []string, uris ...*url.URL) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: cn}, DNSNames: dns, URIs: uris}
	}
	for want, certs := range map[string][]*x509.Certificate{
		"ci.example.com": {
			named("x", []string{"CI.example.com", "b.example.com"}, spiffe), named("x", []string{"*.example.com", "ci.example.com"}), named("ci.example.com", nil),
		},
		"spiffe://example.com/ci": {named("x", nil, spiffe), named("x", []string{"*.example.com"}, spiffe)},
		"": {
			named("", nil), named("*.example.com", nil), named("a b", nil), named("a\nb", nil), named(strings.Repeat("a", 256), nil),
			named("people", []string{"*.example.com"}), // the common name speaks only alone
		},
	} {
		for i, c := range certs {
			if got := access.ClientName(c); got != want {
				t.Errorf("%d: %q, want %q", i, got, want)
			}
		}
	}
}

func TestRolesOfClientCertificates(t *testing.T) {
	operator, viewer := access.RoleOperator, access.RoleViewer
	c, err := access.NewClients(map[string][]access.Role{
		"ci.example.com": {operator, viewer}, "*.example.com": {viewer}, "spiffe://example.com/ci": {operator},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]access.Role{
		"ci.example.com": {viewer, operator}, "b.example.com": {viewer}, "spiffe://example.com/ci": {operator},
		"a.b.example.com": nil, "example.com": nil, ".example.com": nil, "*.example.com": nil, "CI.EXAMPLE.COM": nil, "spiffe://example.com/ci2": nil,
	} {
		p, err := c.Authenticate(t.Context(), access.Credentials{Client: name})
		if want == nil {
			refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
		} else if err != nil || p.Name != "cert:"+name || !slices.Equal(p.Roles, want) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	_, err = c.Authenticate(t.Context(), access.Credentials{})
	refused(t, err, fault.Unauthenticated, fault.ReasonNoCredentials)

	for says, roles := range map[string]map[string][]access.Role{
		"not a name":       {"ci*.example.com": {viewer}},
		"has no roles":     {"ci.example.com": nil},
		"there is no role": {"ci.example.com": {"root"}},
	} {
		_, err := access.NewClients(roles)
		if e := refused(t, err, fault.Invalid, fault.ReasonBadConfig); !strings.Contains(e.Message, says) {
			t.Errorf("%q, want %q", e.Message, says)
		}
	}
}
