package access_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// named is asked, and gives its own name.
type named string

func (n named) Authenticate(context.Context, access.Credentials) (access.Principal, error) {
	return access.Principal{Name: string(n)}, nil
}

func TestTheFormOfATokenSaysWhoIsAsked(t *testing.T) {
	all := access.Authenticators{Admin: named("admin"), Keys: named("keys"), Issuers: named("issuers"), Clients: named("clients")}
	for token, want := range map[string]string{
		strings.Repeat("ab", 32): "admin", "a": "admin", "a.b": "admin", "a.b.c.d": "admin", "a.b.c d": "admin", "é.b.c": "admin", " txk_x": "admin",
		"txk_": "keys", "txk_a.b.c": "keys", "txk_4f7k2mzq9xab_": "keys",
		"a.b.c": "issuers", "eyJ.eyJ.": "issuers", "..": "issuers", "A-_9.b.c": "issuers",
		"": "clients",
	} {
		shown := shows(token)
		shown.Client = "ci.example.com" // speaks only where there is no token
		p, err := all.Authenticate(t.Context(), shown)
		if err != nil || p.Name != want {
			t.Errorf("%q: %s is asked (%v), want %s", token, p.Name, err, want)
		}
	}
}

func TestWhatIsNotInUseIsNotKnown(t *testing.T) {
	none := access.Authenticators{}
	var text string
	for _, token := range []string{"abc", "txk_abc", "a.b.c"} {
		_, err := none.Authenticate(t.Context(), shows(token))
		e := refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
		if text == "" {
			text = e.Text()
		}
		if e.Text() != text {
			t.Errorf("%q: %q, elsewhere %q", token, e.Text(), text)
		}
	}
	for _, shown := range []access.Credentials{{}, {Client: "ci.example.com"}} {
		_, err := none.Authenticate(t.Context(), shown)
		refused(t, err, fault.Unauthenticated, fault.ReasonNoCredentials)
	}
}

func TestAnAdminTokenInAnothersFormIsRefused(t *testing.T) {
	for _, token := range []string{"txk_" + strings.Repeat("a", 64), strings.Repeat("a", 40) + ".b." + strings.Repeat("c", 40)} {
		path := filepath.Join(t.TempDir(), tokenFile)
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := access.OpenAdmin(path); err == nil || !strings.Contains(err.Error(), "looks like") || strings.Contains(err.Error(), token) {
			t.Errorf("%v", err)
		}
	}
}
