package access_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const tokenFile = "admin.token"

func tokenOf(t *testing.T, dir string) secret.Text {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	return secret.New(strings.TrimSpace(string(b)))
}

func TestTheTokenIsMadeOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	first, err := access.OpenAdmin(filepath.Join(dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	token := tokenOf(t, dir)
	if len(token.Reveal()) != 64 {
		t.Errorf("the token has %d characters, want 64", len(token.Reveal()))
	}
	info, err := os.Stat(filepath.Join(dir, tokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	second, err := access.OpenAdmin(filepath.Join(dir, tokenFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*access.Admin{first, second} {
		p, err := a.Authenticate(t.Context(), access.Credentials{Token: token})
		if err != nil || p.Name != "admin" || !p.Has(access.RoleAdmin) || !p.Has(access.RoleViewer) {
			t.Errorf("principal %+v, %v", p, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left in the directory: %v", entries)
	}
}

func TestManyStartsAtOnceAgreeOnOneToken(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	admins := make([]*access.Admin, 8)
	for i := range admins {
		wg.Go(func() {
			a, err := access.OpenAdmin(filepath.Join(dir, tokenFile))
			if err != nil {
				t.Error(err)
			}
			admins[i] = a
		})
	}
	wg.Wait()
	token := tokenOf(t, dir)
	for i, a := range admins {
		if _, err := a.Authenticate(t.Context(), access.Credentials{Token: token}); err != nil {
			t.Errorf("start %d has another token: %v", i, err)
		}
	}
}

func TestWrongTokensAreRefused(t *testing.T) {
	a := access.NewAdmin(secret.New("right"))
	for token, reason := range map[string]string{
		"": fault.ReasonNoCredentials, "wrong": fault.ReasonBadCredentials,
		"right ": fault.ReasonBadCredentials, "righ": fault.ReasonBadCredentials,
	} {
		_, err := a.Authenticate(t.Context(), access.Credentials{Token: secret.New(token)})
		if fault.KindOf(err) != fault.Unauthenticated || fault.ReasonOf(err) != reason {
			t.Errorf("token %q: %v", token, err)
		}
		if e := fault.From(err); e.Hint == "" || (token != "" && strings.Contains(e.Text(), token+"\"")) {
			t.Errorf("token %q: %q", token, e.Text())
		}
	}
}

func TestUnfitFilesAreRefused(t *testing.T) {
	good := strings.Repeat("ab", 32) + "\n"
	for name, prepare := range map[string]func(path string) error{
		"0644":      func(p string) error { return os.WriteFile(p, []byte(good), 0o644) },
		"mode 0640": func(p string) error { return os.WriteFile(p, []byte(good), 0o640) },
		"damaged":   func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"remove":    func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 4096)), 0o600) },
		"regular":   func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, tokenFile)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		_, err := access.OpenAdmin(filepath.Join(dir, tokenFile))
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := access.OpenAdmin(filepath.Join(t.TempDir(), "missing", tokenFile)); err == nil {
		t.Error("a missing directory was taken")
	}
}

func TestCallerInContext(t *testing.T) {
	if _, ok := access.FromContext(t.Context()); ok {
		t.Error("an empty context has a principal")
	}
	p, ok := access.FromContext(access.WithCaller(t.Context(), access.Caller{Principal: access.Principal{Name: "ann"}}))
	if !ok || p.Name != "ann" {
		t.Errorf("%+v %v", p, ok)
	}
}
