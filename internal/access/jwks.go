package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/fault"
)

// A key set is fetched at the start and then every refreshEvery, and at once when
// a token names a key that is not in it, so that a key that the issuer has just
// begun to use is good at once; but never more often than every fetchEvery, so
// that nobody makes the service call the issuer by inventing keys.
const (
	refreshEvery = 15 * time.Minute
	retryEvery   = time.Minute // after a fetch that failed
	fetchEvery   = 10 * time.Second
	fetchTimeout = 5 * time.Second
	maxSetBytes  = 1 << 20
	maxSetKeys   = 256
)

// keySet holds the keys behind a JWKS URL. Those that were got are kept while the
// URL does not answer; an answer replaces them all, so that a key the issuer has
// withdrawn is gone.
type keySet struct {
	name   string // of the issuer, for the log
	url    string
	client *http.Client
	log    *slog.Logger

	fetching chan struct{} // holds a token while somebody fetches; one place

	mu      sync.Mutex
	keys    map[keyID]any // nil until they were got once
	started time.Time     // of the last fetch
}

// keyID finds a key. The algorithm is part of it: a key is used for its own alone.
type keyID struct{ alg, kid string }

func newKeySet(name, address string, log *slog.Logger) (*keySet, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return nil, fmt.Errorf("%q is not the URL of a key set: https://HOST/PATH, or http on loopback", address)
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true, // one call in a quarter of an hour
		MaxResponseHeaderBytes: 64 << 10,
	}
	client := &http.Client{Transport: transport, Timeout: fetchTimeout}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Host != u.Host || r.URL.Scheme != u.Scheme {
			return errors.New("it redirects to another server")
		}
		if len(via) > 3 {
			return errors.New("it redirects too often")
		}
		return nil
	}
	return &keySet{name: name, url: address, client: client, log: log, fetching: make(chan struct{}, 1)}, nil
}

// loopback reports whether a host name stands for this machine.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// key is of keySource.
func (s *keySet) key(ctx context.Context, alg, kid string) (any, error) {
	if key := s.find(alg, kid); key != nil {
		return key, nil
	}
	// One asks the issuer; who waits behind it finds what it has got.
	select {
	case s.fetching <- struct{}{}:
	case <-ctx.Done():
		return nil, fault.From(ctx.Err())
	}
	defer func() { <-s.fetching }()
	key := s.find(alg, kid)
	s.mu.Lock()
	due := time.Since(s.started) >= fetchEvery
	s.mu.Unlock()
	if key == nil && due {
		// Others wait for it too: it does not end with this call.
		s.fetch(context.WithoutCancel(ctx))
		key = s.find(alg, kid)
	}
	switch {
	case key != nil:
		return key, nil
	case !s.ready():
		return nil, fault.New(fault.Unavailable, fault.ReasonIssuerUnavailable, "the keys of %s cannot be had, so its tokens cannot be checked", s.name).
			WithHint("Try again; the service's log says why").WithRetry(fetchEvery)
	}
	return nil, cause("the issuer has no such key for " + alg)
}

// ready reports whether the keys were ever got.
func (s *keySet) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys != nil
}

// find gives the key; without an id, the only one there is for the algorithm. nil
// where there is none.
func (s *keySet) find(alg, kid string) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kid != "" {
		return s.keys[keyID{alg, kid}]
	}
	var only any
	for id, key := range s.keys {
		if id.alg == alg {
			if only != nil {
				return nil
			}
			only = key
		}
	}
	return only
}

// run keeps the keys fresh until ctx ends.
func (s *keySet) run(ctx context.Context) {
	for {
		wait := refreshEvery
		select {
		case s.fetching <- struct{}{}:
			if !s.fetch(ctx) {
				wait = retryEvery
			}
			<-s.fetching
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// fetch gets the keys and reports whether it could. Whoever calls it holds
// fetching.
func (s *keySet) fetch(ctx context.Context) bool {
	s.mu.Lock()
	s.started = time.Now()
	s.mu.Unlock()
	keys, err := s.get(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot get the keys of an issuer of JWTs", "issuer", s.name, "url", s.url, "error", err, "has_older_keys", s.ready())
		}
		return false
	}
	s.mu.Lock()
	s.keys = keys
	s.mu.Unlock()
	return true
}

// get asks the issuer, within a limit of time and size.
func (s *keySet) get(ctx context.Context) (map[keyID]any, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxSetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSetBytes {
		return nil, fmt.Errorf("its answer has more than %d bytes", maxSetBytes)
	}
	return parseKeySet(text)
}

// jwk is what counts of a JSON Web Key (RFC 7517, RFC 7518 section 6). Whatever
// points elsewhere, such as x5u, is not read, nor are secrets, which have no place
// in what everybody can get.
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	Crv    string   `json:"crv"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

// parseKeySet gives the keys of a set that verify RS256 or ES256. Others are
// passed over: sets hold keys for more than one purpose.
func parseKeySet(text []byte) (map[keyID]any, error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New("its answer is not a JSON Web Key Set")
	}
	if len(*set.Keys) > maxSetKeys {
		return nil, fmt.Errorf("its set has more than %d keys", maxSetKeys)
	}
	keys := make(map[keyID]any)
	for _, raw := range *set.Keys {
		var k jwk
		if json.Unmarshal(raw, &k) != nil {
			continue
		}
		key := k.publicKey()
		if key == nil || fit(key) != nil {
			continue
		}
		alg := algorithmOf(key)
		if k.Use != "" && k.Use != "sig" || k.Alg != "" && k.Alg != alg || k.KeyOps != nil && !slices.Contains(k.KeyOps, "verify") {
			continue
		}
		keys[keyID{alg, k.Kid}] = key
	}
	return keys, nil
}

// publicKey gives the RSA or P-256 key; nil where it is something else, or none.
func (k jwk) publicKey() any {
	number := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return nil
		}
		return b
	}
	switch {
	case k.Kty == "RSA":
		n, e := new(big.Int).SetBytes(number(k.N)), new(big.Int).SetBytes(number(k.E))
		// Exponents are small and odd; 65537 nearly always. Moduli beyond 16384
		// bits cost more than a signature is worth.
		if e.BitLen() > 31 || e.Bit(0) == 0 || e.BitLen() < 2 || n.BitLen() > 16384 || n.Bit(0) == 0 {
			return nil
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}
	case k.Kty == "EC" && k.Crv == "P-256":
		x, y := number(k.X), number(k.Y)
		if len(x) != 32 || len(y) != 32 {
			return nil
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil { // not on the curve
			return nil
		}
		return key
	}
	return nil
}
