package access_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
)

// login is the server of an issuer, on a real port.
type login struct {
	*httptest.Server
	mu    sync.Mutex
	calls int
	serve http.HandlerFunc
}

func startLogin(t *testing.T, keys ...map[string]any) *login {
	l := &login{}
	l.publish(keys...)
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.calls++
		serve := l.serve
		l.mu.Unlock()
		serve(w, r)
	}))
	t.Cleanup(l.Close)
	return l
}

// publish makes these the key set.
func (l *login) publish(keys ...map[string]any) {
	text := must(json.Marshal(map[string]any{"keys": append([]map[string]any{}, keys...)}))
	l.answer(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
}

func (l *login) answer(serve http.HandlerFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serve = serve
}

func (l *login) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func (l *login) issuer() access.Issuer {
	i := corp()
	i.JWKS = l.URL + "/keys"
	return i
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(kid string, key *rsa.PublicKey) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}
}

func ecJWK(kid string, key *ecdsa.PublicKey) map[string]any {
	point := must(key.Bytes())
	return map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:])}
}

// by makes a token of an issuer's key with an id; none if it is empty.
func by(key any, kid string) string {
	header := map[string]any{}
	if kid != "" {
		header["kid"] = kid
	}
	if _, ok := key.(*rsa.PrivateKey); ok {
		return sign(jwt.SigningMethodRS256, key, claims(nil), header)
	}
	return sign(jwt.SigningMethodES256, key, claims(nil), header)
}

// passes checks whether a token is good.
func passes(t *testing.T, is *access.Issuers, token string, want bool) {
	t.Helper()
	_, err := is.Authenticate(t.Context(), shows(token))
	if want && err != nil {
		t.Errorf("refused: %v", err)
	}
	if !want {
		refused(t, err, fault.Unauthenticated, fault.ReasonBadCredentials)
	}
}

func TestKeysBehindAURLAreRotated(t *testing.T) {
	l := startLogin(t, rsaJWK("old", &rsaKey().PublicKey))
	synctest.Test(t, func(t *testing.T) {
		is := issuers(t, l.issuer())
		passes(t, is, by(rsaKey(), "old"), true)
		passes(t, is, by(rsaKey(), "old"), true)
		if l.asked() != 1 {
			t.Errorf("asked %d times for one key", l.asked())
		}
		// A new one: not asked for again at once, but soon.
		l.publish(rsaJWK("old", &rsaKey().PublicKey), ecJWK("new", &ecKey().PublicKey))
		passes(t, is, by(ecKey(), "new"), false)
		<-time.After(10 * time.Second)
		passes(t, is, by(ecKey(), "new"), true)
		passes(t, is, by(rsaKey(), "old"), true)
		// Ids that nobody has cost the issuer nothing.
		for i := range 50 {
			passes(t, is, by(rsaKey2(), fmt.Sprint("made up ", i)), false)
		}
		if l.asked() != 2 {
			t.Errorf("asked %d times", l.asked())
		}
		// What was withdrawn is gone with the next answer, be it an empty set.
		l.publish()
		<-time.After(10 * time.Second)
		passes(t, is, by(rsaKey2(), "made up"), false)
		passes(t, is, by(ecKey(), "new"), false)
		passes(t, is, by(rsaKey(), "old"), false)
	})
}

func TestKeysAreRefreshedInTheBackground(t *testing.T) {
	l := startLogin(t, rsaJWK("a", &rsaKey().PublicKey))
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		is := must(access.NewIssuers([]access.Issuer{l.issuer(), shared(access.Issuer{
			Name: "other", Issuer: "https://other.example.com", Audience: "x", Roles: corp().Roles,
		})}, slog.New(slog.NewTextHandler(&log, nil))))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- is.Run(ctx) }()
		<-time.After(time.Second)
		if l.asked() != 1 {
			t.Errorf("asked %d times at the start", l.asked())
		}
		<-time.After(15 * time.Minute)
		if l.asked() != 2 {
			t.Errorf("asked %d times after a quarter of an hour", l.asked())
		}
		// The issuer is down: its keys stay, and it is asked every minute.
		l.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		<-time.After(24 * time.Hour)
		passes(t, is, by(rsaKey(), "a"), true)
		if n := l.asked(); n < 1400 || n > 1440 {
			t.Errorf("asked %d times in a day", n)
		}
		synctest.Wait() // the log is its own again
		if !strings.Contains(log.String(), "502 Bad Gateway") || !strings.Contains(log.String(), "has_older_keys=true") {
			t.Errorf("log %q", log.String())
		}
		l.publish(rsaJWK("b", &rsaKey2().PublicKey))
		<-time.After(time.Minute)
		passes(t, is, by(rsaKey(), "a"), false)
		passes(t, is, by(rsaKey2(), "b"), true)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestAnIssuerThatCannotBeAsked(t *testing.T) {
	elsewhere := startLogin(t, rsaJWK("a", &rsaKey().PublicKey))
	for name, serve := range map[string]http.HandlerFunc{
		"an error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"a page":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no set":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"more than fits": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[],"x":"`, strings.Repeat("x", 1<<20), `"}`)
		},
		"too many keys": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{}`, strings.Repeat(",{}", 256), `]}`)
		},
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			fmt.Fprint(w, "{")
		},
		"to another server":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"redirects without end": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x"+r.URL.Path, http.StatusFound) },
	} {
		l := startLogin(t)
		l.answer(serve)
		is := issuers(t, l.issuer())
		_, err := is.Authenticate(t.Context(), shows(by(rsaKey(), "a")))
		if e := refused(t, err, fault.Unavailable, fault.ReasonIssuerUnavailable); e.RetryAfter <= 0 || strings.Contains(e.Text(), l.URL) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if elsewhere.asked() != 0 {
		t.Error("the redirect was followed")
	}

	// To another path of its own it may lead.
	l := startLogin(t)
	l.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			http.Redirect(w, r, "/v2/keys", http.StatusFound)
			return
		}
		w.Write(must(json.Marshal(map[string]any{"keys": []any{rsaJWK("a", &rsaKey().PublicKey)}})))
	})
	passes(t, issuers(t, l.issuer()), by(rsaKey(), "a"), true)

	// One that hangs is waited for by all who need it, and asked once. Whoever goes
	// away is not kept.
	l = startLogin(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	text := must(json.Marshal(map[string]any{"keys": []any{rsaJWK("a", &rsaKey().PublicKey)}}))
	l.answer(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-goOn; w.Write(text) })
	is := issuers(t, l.issuer())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { passes(t, is, by(rsaKey(), "a"), true) })
	}
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := is.Authenticate(ctx, shows(by(rsaKey(), "a")))
	refusedKind := fault.KindOf(err)
	if refusedKind != fault.Cancelled {
		t.Errorf("%v", err)
	}
	close(goOn)
	wg.Wait()
	if l.asked() != 1 {
		t.Errorf("asked %d times", l.asked())
	}
}

func TestWhichKeysOfASetCount(t *testing.T) {
	good := rsaJWK("k", &rsaKey().PublicKey)
	with := func(change map[string]any) map[string]any {
		k := maps.Clone(good)
		maps.Copy(k, change)
		return k
	}
	weak := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 1024), big.NewInt(1))
	ec := ecJWK("k", &ecKey().PublicKey)
	offCurve := maps.Clone(ec)
	offCurve["y"] = ec["x"]
	p384 := maps.Clone(ec)
	p384["crv"] = "P-384"
	short := maps.Clone(ec)
	short["x"] = "AAAA"
	for name, c := range map[string]struct {
		key  map[string]any
		want int
	}{
		"as it is":            {good, 1},
		"no use, no alg":      {map[string]any{"kty": "RSA", "n": good["n"], "e": good["e"]}, 1},
		"to verify":           {with(map[string]any{"key_ops": []string{"verify"}}), 1},
		"EC":                  {ec, 1},
		"points elsewhere":    {with(map[string]any{"x5u": "http://127.0.0.1:1/", "x5c": []string{"AAAA"}}), 1}, // and nobody goes there
		"for encryption":      {with(map[string]any{"use": "enc"}), 0},
		"another algorithm":   {with(map[string]any{"alg": "PS256"}), 0},
		"to sign":             {with(map[string]any{"key_ops": []string{"sign"}}), 0},
		"a secret":            {map[string]any{"kty": "oct", "kid": "k", "k": b64([]byte(sharedText))}, 0},
		"weak":                {with(map[string]any{"n": b64(weak.Bytes())}), 0},
		"even exponent":       {with(map[string]any{"e": "Ag"}), 0},
		"exponent 1":          {with(map[string]any{"e": "AQ"}), 0},
		"no exponent":         {with(map[string]any{"e": ""}), 0},
		"huge exponent":       {with(map[string]any{"e": "_____w8"}), 0},
		"huge":                {with(map[string]any{"n": strings.Repeat("_", 4096)}), 0},
		"not base64":          {with(map[string]any{"n": "!"}), 0},
		"kid is a number":     {with(map[string]any{"kid": 7}), 0},
		"not on the curve":    {offCurve, 0},
		"another curve":       {p384, 0},
		"half a point":        {short, 0},
		"another type of key": {map[string]any{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, 0},
	} {
		text := must(json.Marshal(map[string]any{"keys": []any{c.key, "no key"}}))
		if n, err := access.ParseKeySet(text); n != c.want || err != nil {
			t.Errorf("%s: %d keys, %v", name, n, err)
		}
	}
}

func TestAKeyIsFoundByItsID(t *testing.T) {
	one := issuers(t, startLogin(t, rsaJWK("a", &rsaKey().PublicKey), ecJWK("a", &ecKey().PublicKey)).issuer())
	passes(t, one, by(rsaKey(), "a"), true)
	passes(t, one, by(ecKey(), "a"), true) // the same id, for the other algorithm
	passes(t, one, by(rsaKey(), ""), true) // none: there is one for the algorithm
	passes(t, one, by(rsaKey2(), "a"), false)
	two := issuers(t, startLogin(t, rsaJWK("a", &rsaKey().PublicKey), rsaJWK("b", &rsaKey2().PublicKey)).issuer())
	passes(t, two, by(rsaKey(), "a"), true)
	passes(t, two, by(rsaKey(), "b"), false)
	passes(t, two, by(rsaKey2(), "b"), true)
	passes(t, two, by(rsaKey(), ""), false) // which of the two?
	// The set is public: a token "signed" with what is in it is not.
	n := rsaKey().N.Bytes()
	passes(t, two, sign(jwt.SigningMethodHS256, n, claims(nil), map[string]any{"kid": "a"}), false)
}

func FuzzKeySet(f *testing.F) {
	f.Add(must(json.Marshal(map[string]any{"keys": []any{rsaJWK("a", &rsaKey().PublicKey), ecJWK("b", &ecKey().PublicKey)}})))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n, err := access.ParseKeySet(text); err != nil && n != 0 {
			t.Errorf("%d keys and %v", n, err)
		}
	})
}
