package access_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const (
	issuerURL  = "https://login.example.com"
	sharedText = "0123456789abcdef0123456789abcdef"
)

// Keys are slow to make, so all tests share these.
var (
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaKey2 = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey   = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(key any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))})
}

// corp is an issuer without keys.
func corp() access.Issuer {
	return access.Issuer{
		Name: "corp", Issuer: issuerURL, Audience: "telexec", Skew: time.Minute,
		Roles: map[string][]access.Role{"ops": {access.RoleOperator}, "leads": {access.RoleApprover, access.RoleOperator}},
	}
}

func issuers(t testing.TB, all ...access.Issuer) *access.Issuers {
	t.Helper()
	is, err := access.NewIssuers(all, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// claims are those of a good token, with changes; nil removes one.
func claims(changes map[string]any) jwt.MapClaims {
	c := jwt.MapClaims{
		"iss": issuerURL, "aud": "telexec", "sub": "alice", "roles": []string{"ops"},
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
	}
	for k, v := range changes {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	return c
}

// sign makes a token with these claims and header fields.
func sign(method jwt.SigningMethod, key any, c jwt.MapClaims, header map[string]any) string {
	token := jwt.NewWithClaims(method, c)
	for k, v := range header {
		token.Header[k] = v
	}
	return must(token.SignedString(key))
}

func shared(i access.Issuer) access.Issuer { i.Secret = secret.New(sharedText); return i }

func hs(changes map[string]any) string {
	return sign(jwt.SigningMethodHS256, []byte(sharedText), claims(changes), nil)
}

func TestTokensOfEachKindOfKey(t *testing.T) {
	withRSA, withPKCS1, withEC := corp(), corp(), corp()
	withRSA.PublicKey = publicPEM(rsaKey().Public())
	withPKCS1.PublicKey = pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)})
	withEC.PublicKey = publicPEM(ecKey().Public())
	tokens := map[string]string{
		"HS256": hs(nil),
		"RS256": sign(jwt.SigningMethodRS256, rsaKey(), claims(nil), map[string]any{"kid": "whatever"}),
		"ES256": sign(jwt.SigningMethodES256, ecKey(), claims(nil), nil),
	}
	for _, c := range []struct {
		takes  string
		issuer access.Issuer
	}{{"HS256", shared(corp())}, {"RS256", withRSA}, {"RS256", withPKCS1}, {"ES256", withEC}} {
		is := issuers(t, c.issuer)
		for alg, token := range tokens {
			p, err := is.Authenticate(t.Context(), shows(token))
			if alg != c.takes {
				refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
				continue
			}
			if err != nil || p.Name != "jwt:corp:alice" || !slices.Equal(p.Roles, []access.Role{access.RoleOperator}) || p.Key != "" {
				t.Errorf("%s: %+v, %v", alg, p, err)
			}
			if left := time.Until(p.Expiry); left < time.Hour || left > time.Hour+time.Minute {
				t.Errorf("%s: good for another %v", alg, left)
			}
		}
	}
}

// Each of these is signed by nobody we know, whatever it says.
func TestForgedTokens(t *testing.T) {
	withRSA := corp()
	withRSA.PublicKey = publicPEM(rsaKey().Public())
	is := issuers(t, withRSA)
	good := sign(jwt.SigningMethodRS256, rsaKey(), claims(nil), nil)
	if _, err := is.Authenticate(t.Context(), shows(good)); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	raw := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	evil := sign(jwt.SigningMethodRS256, rsaKey2(), claims(nil), map[string]any{
		"jku": "https://evil.example.com/keys", "x5u": "https://evil.example.com/cert", "x5c": []string{"AAAA"},
		"jwk": map[string]string{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(rsaKey2().N.Bytes())},
	})
	admin := must(json.Marshal(claims(map[string]any{"roles": "leads"})))
	texts := make(map[string]bool)
	for name, token := range map[string]string{
		"HS256 with the public key's PEM": sign(jwt.SigningMethodHS256, []byte(withRSA.PublicKey), claims(nil), nil),
		"HS256 with the public key's DER": sign(jwt.SigningMethodHS256, must(x509.MarshalPKIXPublicKey(rsaKey().Public())), claims(nil), nil),
		"alg none":                        sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(nil), nil),
		"alg None":                        raw(`{"alg":"None"}`) + "." + parts[1] + ".",
		"alg none, with a signature":      raw(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"no alg":                          raw(`{}`) + "." + parts[1] + "." + parts[2],
		"alg of another type":             raw(`{"alg":["RS256"]}`) + "." + parts[1] + "." + parts[2],
		"RS384":                           sign(jwt.SigningMethodRS384, rsaKey(), claims(nil), nil),
		"PS256":                           sign(jwt.SigningMethodPS256, rsaKey(), claims(nil), nil),
		"keys in the header":              evil,
		"kid a path":                      sign(jwt.SigningMethodRS256, rsaKey2(), claims(nil), map[string]any{"kid": "../../dev/null"}),
		"kid no string":                   sign(jwt.SigningMethodRS256, rsaKey(), claims(nil), map[string]any{"kid": []int{1}}),
		"crit":                            sign(jwt.SigningMethodRS256, rsaKey(), claims(nil), map[string]any{"crit": []string{"b64"}, "b64": false}),
		"other claims":                    parts[0] + "." + base64.RawURLEncoding.EncodeToString(admin) + "." + parts[2],
		"no signature":                    parts[0] + "." + parts[1] + ".",
		"padding":                         parts[0] + "." + parts[1] + "." + parts[2] + "==",
		"four parts":                      good + ".x",
		"one part":                        "eyJ",
		"claims are no object":            raw(`{"alg":"RS256"}`) + "." + raw(`"x"`) + "." + parts[2],
		"unknown issuer":                  sign(jwt.SigningMethodRS256, rsaKey(), claims(map[string]any{"iss": "https://evil.example.com"}), nil),
		"no issuer":                       sign(jwt.SigningMethodRS256, rsaKey(), claims(map[string]any{"iss": nil}), nil),
		"issuer a list":                   sign(jwt.SigningMethodRS256, rsaKey(), claims(map[string]any{"iss": []string{issuerURL}}), nil),
		"huge":                            sign(jwt.SigningMethodRS256, rsaKey(), claims(map[string]any{"x": strings.Repeat("x", 16<<10)}), nil),
	} {
		_, err := is.Authenticate(t.Context(), shows(token))
		if e := fault.From(err); e == nil || e.Kind != fault.Unauthenticated || e.Reason != fault.ReasonBadCredentials {
			t.Errorf("%s: %v", name, err)
		} else {
			if texts[e.Text()] = true; len(texts) > 1 {
				t.Errorf("%s is told apart: %q", name, e.Text())
			}
			if e.Err == nil || e.Err.Error() == "" {
				t.Errorf("%s: the log is not told why", name)
			}
		}
	}
	_, err := is.Authenticate(t.Context(), access.Credentials{})
	refused(t, err, fault.Unauthenticated, fault.ReasonNoCredentials)
}

func TestWhatTheIssuerHasSignedIsStillChecked(t *testing.T) {
	is := issuers(t, shared(corp()))
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, c := range map[string]struct {
		changes map[string]any
		reason  string // empty: it is good
		says    string
	}{
		"expired within the skew":     {map[string]any{"exp": at(-30 * time.Second)}, "", ""},
		"expired":                     {map[string]any{"exp": at(-61 * time.Second)}, fault.ReasonTokenExpired, "expired"},
		"no exp":                      {map[string]any{"exp": nil}, fault.ReasonBadCredentials, "lacks a claim"},
		"exp a text":                  {map[string]any{"exp": "tomorrow"}, fault.ReasonBadCredentials, "lacks a claim"},
		"nbf within the skew":         {map[string]any{"nbf": at(30 * time.Second)}, "", ""},
		"nbf":                         {map[string]any{"nbf": at(90 * time.Second)}, fault.ReasonBadCredentials, "not good yet"},
		"iat in the future":           {map[string]any{"iat": at(90 * time.Second)}, fault.ReasonBadCredentials, "not good yet"},
		"no iat":                      {map[string]any{"iat": nil}, "", ""},
		"another audience":            {map[string]any{"aud": "other"}, fault.ReasonBadCredentials, "aud"},
		"no audience":                 {map[string]any{"aud": nil}, fault.ReasonBadCredentials, "lacks a claim"},
		"several audiences":           {map[string]any{"aud": []string{"other", "telexec"}}, "", ""},
		"expired, and for others":     {map[string]any{"aud": "other", "exp": at(-time.Hour)}, fault.ReasonBadCredentials, "aud"},
		"no subject":                  {map[string]any{"sub": nil}, fault.ReasonBadCredentials, "claim sub"},
		"a number for a subject":      {map[string]any{"sub": 7}, fault.ReasonBadCredentials, "claim sub"},
		"a subject with a line break": {map[string]any{"sub": "a\nb"}, fault.ReasonBadCredentials, "claim sub"},
		"a subject that turns text":   {map[string]any{"sub": "a\u202eb"}, fault.ReasonBadCredentials, "claim sub"},
		"a subject beyond all bounds": {map[string]any{"sub": strings.Repeat("a", 256)}, fault.ReasonBadCredentials, "claim sub"},
	} {
		_, err := is.Authenticate(t.Context(), shows(hs(c.changes)))
		if c.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e := fault.From(err); e == nil || e.Kind != fault.Unauthenticated || e.Reason != c.reason || !strings.Contains(e.Message, c.says) || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRolesOfTokens(t *testing.T) {
	for _, c := range []struct {
		claim string // empty: the default
		has   map[string]any
		want  []access.Role
	}{
		{"", map[string]any{"roles": []string{"leads", "ops", "others"}}, []access.Role{access.RoleOperator, access.RoleApprover}},
		{"", map[string]any{"roles": "x  ops"}, []access.Role{access.RoleOperator}},
		{"", map[string]any{"roles": []any{1, nil, "ops"}}, []access.Role{access.RoleOperator}},
		{"realm_access.roles", map[string]any{"realm_access": map[string]any{"roles": []string{"ops"}}}, []access.Role{access.RoleOperator}},
		{"https://example.com/roles", map[string]any{"https://example.com/roles": "ops"}, []access.Role{access.RoleOperator}},
		{"", map[string]any{"roles": "OPS"}, nil},
		{"", map[string]any{"roles": "operator"}, nil}, // our own names say nothing unless they are mapped
		{"", map[string]any{"roles": nil}, nil},
		{"", map[string]any{"roles": 7}, nil},
		{"a.b", map[string]any{"a": "ops"}, nil},
	} {
		i := shared(corp())
		i.RolesClaim = c.claim
		p, err := issuers(t, i).Authenticate(t.Context(), shows(hs(c.has)))
		if c.want == nil {
			refused(t, err, fault.PermissionDenied, fault.ReasonRoleMissing)
		} else if err != nil || !slices.Equal(p.Roles, c.want) {
			t.Errorf("%s in %v: %v, %v", c.claim, c.has, p.Roles, err)
		}
	}
	i := shared(corp())
	i.PrincipalClaim = "ext.email"
	p, err := issuers(t, i).Authenticate(t.Context(), shows(hs(map[string]any{"ext": map[string]any{"email": "alice@example.com"}})))
	if err != nil || p.Name != "jwt:corp:alice@example.com" {
		t.Errorf("%+v, %v", p, err)
	}
}

// An issuer's key is good for its own tokens alone.
func TestIssuersDoNotSpeakForEachOther(t *testing.T) {
	other := corp()
	other.Name, other.Issuer, other.Secret = "other", "https://other.example.com", secret.New(strings.Repeat("o", 32))
	is := issuers(t, shared(corp()), other)
	p, err := is.Authenticate(t.Context(), shows(sign(jwt.SigningMethodHS256, []byte(strings.Repeat("o", 32)), claims(map[string]any{"iss": other.Issuer}), nil)))
	if err != nil || p.Name != "jwt:other:alice" {
		t.Errorf("%+v, %v", p, err)
	}
	_, err = is.Authenticate(t.Context(), shows(sign(jwt.SigningMethodHS256, []byte(strings.Repeat("o", 32)), claims(nil), nil)))
	refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
}

func TestUnfitIssuers(t *testing.T) {
	weak, p384 := must(rsa.GenerateKey(rand.Reader, 1024)), must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(ecKey()))})
	with := func(change func(*access.Issuer)) []access.Issuer {
		i := shared(corp())
		change(&i)
		return []access.Issuer{i}
	}
	key := func(text []byte) []access.Issuer {
		return with(func(i *access.Issuer) { i.Secret, i.PublicKey = secret.Text{}, text })
	}
	url := func(address string) []access.Issuer {
		return with(func(i *access.Issuer) { i.Secret, i.JWKS = secret.Text{}, address })
	}
	second := shared(corp())
	second.Name = "second"
	third := shared(corp())
	third.Issuer = "https://third.example.com"
	for says, all := range map[string][][]access.Issuer{
		"the name has":        {with(func(i *access.Issuer) { i.Name = "" }), with(func(i *access.Issuer) { i.Name = "a:b" })},
		"issuer and audience": {with(func(i *access.Issuer) { i.Issuer = "" }), with(func(i *access.Issuer) { i.Audience = "" })},
		"exactly one":         {with(func(i *access.Issuer) { i.Secret = secret.Text{} }), with(func(i *access.Issuer) { i.JWKS = "https://x.example.com" })},
		"clock skew":          {with(func(i *access.Issuer) { i.Skew = -1 }), with(func(i *access.Issuer) { i.Skew = time.Hour })},
		"good for anything":   {with(func(i *access.Issuer) { i.Roles = nil })},
		"has no roles":        {with(func(i *access.Issuer) { i.Roles = map[string][]access.Role{"x": nil} })},
		"there is no role":    {with(func(i *access.Issuer) { i.Roles = map[string][]access.Role{"x": {"root"}} })},
		"fewer than 32":       {with(func(i *access.Issuer) { i.Secret = secret.New("short") })},
		"1024 bits":           {key(publicPEM(weak.Public()))},
		"P-384":               {key(publicPEM(p384.Public()))},
		"not PEM":             {key([]byte("ssh-rsa AAAA"))},
		"private key":         {key(private)},
		"not a public key":    {key(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}))},
		"cannot be read":      {key(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}))},
		"neither RS256":       {key(publicPEM(must(x25519Key())))},
		"not the URL": {
			url("http://login.example.com/keys"), url("login.example.com"), url("https://u:p@login.example.com/"), url("ftp://127.0.0.1/"),
			url("http://127.0.0.1.example.com/"), url("https://"), url("https://a/#b"), url("http://[::1/"),
		},
		"has this name":  {{shared(corp()), third}},
		"has the issuer": {{shared(corp()), second}},
	} {
		for _, is := range all {
			_, err := access.NewIssuers(is, quiet)
			if e := refused(t, err, fault.Invalid, fault.ReasonBadConfig); !strings.Contains(e.Message, says) || !strings.Contains(e.Message, "auth.jwt, entry") || strings.Contains(e.Error(), sharedText) {
				t.Errorf("%q, want %q", e.Message, says)
			}
		}
	}
	for _, good := range []string{"http://127.0.0.1:1/", "http://[::1]:1/k", "http://localhost/k", "https://login.example.com:8443/k?x=1"} {
		issuers(t, url(good)...)
	}
}

func FuzzJWT(f *testing.F) {
	is := issuers(f, shared(corp()))
	for _, c := range []map[string]any{nil, {"exp": nil}, {"exp": 1e300}, {"aud": []any{1}}, {"roles": map[string]any{}}} {
		header, payload, _ := strings.Cut(hs(c), ".")
		payload, _, _ = strings.Cut(payload, ".")
		f.Add(string(must(base64.RawURLEncoding.DecodeString(header))), string(must(base64.RawURLEncoding.DecodeString(payload))), true)
	}
	f.Add(`{"alg":"none"}`, `{}`, false)
	// What is signed with the right key may hold anything, what is not is worth
	// nothing.
	f.Fuzz(func(t *testing.T, header, payload string, signed bool) {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
		sum := []byte("forged")
		if signed {
			sum = must(jwt.SigningMethodHS256.Sign(text, []byte(sharedText)))
		}
		p, err := is.Authenticate(t.Context(), shows(text+"."+base64.RawURLEncoding.EncodeToString(sum)))
		if err == nil && (!signed || !strings.HasPrefix(p.Name, "jwt:corp:") || len(p.Roles) == 0 || p.Expiry.Before(time.Now().Add(-time.Second))) {
			t.Errorf("%s %s: %+v", header, payload, p)
		}
		if reason := fault.ReasonOf(err); err != nil && !slices.Contains([]string{fault.ReasonBadCredentials, fault.ReasonTokenExpired, fault.ReasonRoleMissing}, reason) {
			t.Errorf("%s %s: %v", header, payload, err)
		}
	})
}

func BenchmarkJWT(b *testing.B) {
	withEC := corp()
	withEC.PublicKey = publicPEM(ecKey().Public())
	is := issuers(b, withEC)
	shown := shows(sign(jwt.SigningMethodES256, ecKey(), claims(nil), nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := is.Authenticate(context.Background(), shown); err != nil {
			b.Fatal(err)
		}
	}
}

// x25519Key gives a public key that signs nothing.
func x25519Key() (any, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return key.PublicKey(), nil
}

// TestATokenWithoutEnd: no clock, no calendar and no Timestamp of the contract
// goes beyond the year 9999.
func TestATokenWithoutEnd(t *testing.T) {
	const last = 253402300799 // 9999-12-31T23:59:59Z
	i := shared(corp())
	is := issuers(t, i)
	for _, exp := range []any{1e18, 1e12, float64(last + 1), last - 59} { // with the skew of a minute
		_, err := is.Authenticate(t.Context(), shows(hs(map[string]any{"exp": exp})))
		refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
	}
	for _, exp := range []any{9.3e18, 1e100, 1e308} { // beyond what any integer holds
		if p, err := is.Authenticate(t.Context(), shows(hs(map[string]any{"exp": exp}))); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%v: %+v, %v", exp, p, err)
		}
	}
	p, err := is.Authenticate(t.Context(), shows(hs(map[string]any{"exp": last - 60})))
	if err != nil || p.Expiry.Unix() != last {
		t.Errorf("%+v, %v", p, err)
	}
}
