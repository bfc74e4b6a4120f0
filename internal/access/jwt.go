package access

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
)

const (
	minSecret  = 32       // bytes of a shared secret: as many as HS256's hash has (RFC 7518, 3.2)
	minRSABits = 2048     // of an RSA key (RFC 7518, 3.3)
	maxJWT     = 16 << 10 // bytes; more than a header may have elsewhere
	maxSkew    = 10 * time.Minute
)

// latest is the last moment that RFC 3339 and protobuf's Timestamp can tell.
var latest = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// Issuer is somebody whose JSON Web Tokens (RFC 7519) are taken. One of Secret,
// PublicKey and JWKS is set, and it alone decides on the algorithm: a token that
// names another is refused, whatever its header says.
type Issuer struct {
	Name     string // part of principals' names: a-z, 0-9, and ._- inside
	Issuer   string // what iss must be, to the letter; unique among issuers
	Audience string // what aud must be or contain

	Secret    secret.Text // HS256; at least 32 bytes
	PublicKey []byte      // PEM; RS256 for an RSA key of at least 2048 bits, ES256 for one on P-256
	JWKS      string      // URL of a JSON Web Key Set (RFC 7517) with such keys; https, or http on loopback

	Skew           time.Duration     // by how much clocks may differ; at most 10 minutes
	PrincipalClaim string            // names the principal; empty: sub
	RolesClaim     string            // a list, or words with blanks between them; a name or a path with dots; empty: roles
	Roles          map[string][]Role // what a value of that claim stands for
}

// issuer is an Issuer ready for use.
type issuer struct {
	Issuer
	parser *jwt.Parser
	keys   keySource
}

// keySource gives the keys of an issuer.
type keySource interface {
	// key gives the one that verifies signatures of the algorithm under that id,
	// which may be empty. An unknown id may need a call of the issuer's server.
	key(ctx context.Context, alg, kid string) (any, error)
}

// Issuers authenticates by the tokens of all issuers.
type Issuers struct {
	byIssuer map[string]*issuer
	remote   []*keySet // those that Run refreshes
}

var issuerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$`)

// NewIssuers makes ready what is configured. It fails with BAD_CONFIG. It calls
// nobody: keys behind a URL are there once Run has got them, or when the first
// token asks for them. What fails with them goes to the log.
func NewIssuers(all []Issuer, log *slog.Logger) (*Issuers, error) {
	is := &Issuers{byIssuer: make(map[string]*issuer, len(all))}
	var names []string
	for n, i := range all {
		bad := func(err error) error {
			return fault.Wrap(err, fault.Invalid, fault.ReasonBadConfig, "auth.jwt, entry %d (%q): %s", n+1, i.Name, err)
		}
		made, err := newIssuer(i, log)
		if err != nil {
			return nil, bad(err)
		}
		switch {
		case slices.Contains(names, i.Name):
			return nil, bad(errors.New("another one has this name"))
		case is.byIssuer[i.Issuer] != nil:
			return nil, bad(fmt.Errorf("another one has the issuer %q; which keys to use would be open", i.Issuer))
		}
		names, is.byIssuer[i.Issuer] = append(names, i.Name), made
		if set, ok := made.keys.(*keySet); ok {
			is.remote = append(is.remote, set)
		}
	}
	return is, nil
}

func newIssuer(i Issuer, log *slog.Logger) (*issuer, error) {
	i.PrincipalClaim, i.RolesClaim = cmp.Or(i.PrincipalClaim, "sub"), cmp.Or(i.RolesClaim, "roles")
	sources := 0
	for _, set := range []bool{!i.Secret.IsZero(), len(i.PublicKey) > 0, i.JWKS != ""} {
		if set {
			sources++
		}
	}
	switch {
	case !issuerName.MatchString(i.Name):
		return nil, errors.New("the name has 1 to 32 small letters and digits, and . _ - between them")
	case i.Issuer == "" || i.Audience == "":
		return nil, errors.New("issuer and audience must be set: what a token must say of whose and for whom it is")
	case sources != 1:
		return nil, errors.New("exactly one of a secret, a public key and a JWKS URL must be set")
	case i.Skew < 0 || i.Skew > maxSkew:
		return nil, fmt.Errorf("a clock skew is between 0 and %s", maxSkew)
	case len(i.Roles) == 0:
		return nil, errors.New("no roles are given to any value of the roles claim, so no token would be good for anything")
	}
	for _, value := range slices.Sorted(maps.Keys(i.Roles)) {
		if len(i.Roles[value]) == 0 {
			return nil, fmt.Errorf("the value %q of the roles claim has no roles", value)
		}
		if unknown := unknownRoles(i.Roles[value]); len(unknown) > 0 {
			return nil, fmt.Errorf("there is no role %q; the roles are %s", unknown[0], roleList(Roles))
		}
	}

	made := &issuer{Issuer: i}
	var algorithms []string
	switch {
	case !i.Secret.IsZero():
		if len(i.Secret.Reveal()) < minSecret {
			return nil, fmt.Errorf("the shared secret has fewer than %d bytes and could be guessed from a token; make one with: openssl rand -hex 32", minSecret)
		}
		algorithms = []string{"HS256"}
		made.keys = fixedKey{"HS256", []byte(i.Secret.Reveal())}
	case len(i.PublicKey) > 0:
		key, err := parsePublicKey(i.PublicKey)
		if err != nil {
			return nil, err
		}
		algorithms = []string{algorithmOf(key)}
		made.keys = fixedKey{algorithmOf(key), key}
	default:
		set, err := newKeySet(i.Name, i.JWKS, log)
		if err != nil {
			return nil, err
		}
		algorithms = []string{"RS256", "ES256"}
		made.keys = set
	}
	made.parser = jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithIssuer(i.Issuer), jwt.WithAudience(i.Audience),
		jwt.WithLeeway(i.Skew), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding())
	return made, nil
}

// fixedKey is the one key of an issuer. Ids of keys say nothing to it.
type fixedKey struct {
	alg string
	k   any
}

func (f fixedKey) key(_ context.Context, alg, _ string) (any, error) {
	if alg != f.alg {
		return nil, cause("the key is not for " + alg)
	}
	return f.k, nil
}

// parsePublicKey reads a public key in PEM that is fit for RS256 or ES256.
func parsePublicKey(text []byte) (any, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the public key is not PEM; it begins with -----BEGIN PUBLIC KEY-----")
	}
	var key any
	var err error
	switch {
	case block.Type == "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key, which only the issuer should have; give the public one (openssl pkey -pubout)")
	default:
		return nil, fmt.Errorf("a PEM block of type %q is not a public key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("the public key cannot be read: %w", err)
	}
	return key, fit(key)
}

// fit reports why a public key is for neither RS256 nor ES256; nil where it is.
func fit(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits {
			return fmt.Errorf("the RSA key has %d bits, and needs at least %d", bits, minRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fmt.Errorf("the EC key is on %s; ES256 needs one on P-256", k.Curve.Params().Name)
		}
		return nil
	}
	return fmt.Errorf("a key of type %T is for neither RS256 nor ES256", key)
}

// algorithmOf gives the algorithm of a key that is fit.
func algorithmOf(key any) string {
	if _, ok := key.(*rsa.PublicKey); ok {
		return "RS256"
	}
	return "ES256"
}

// Run keeps the keys behind URLs fresh until ctx ends, which is no error. It is to
// run once.
func (is *Issuers) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, set := range is.remote {
		wg.Go(func() { set.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Authenticate is of Authenticator. It may wait a few seconds for the issuer's
// keys where the token is signed with one that is not known yet.
func (is *Issuers) Authenticate(ctx context.Context, shown Credentials) (Principal, error) {
	if shown.Token.IsZero() {
		return Principal{}, noCredentials()
	}
	text := shown.Token.Reveal()
	if len(text) > maxJWT {
		return Principal{}, badCredentials("the token is longer than any JWT should be")
	}
	// Whose token it claims to be says with whose keys to check it, and that
	// check covers the claim.
	claimed := jwt.MapClaims{}
	token, _, err := unverified.ParseUnverified(text, claimed)
	if err != nil {
		return Principal{}, badToken(err)
	}
	name, _ := claimed["iss"].(string)
	i := is.byIssuer[name]
	if i == nil {
		return Principal{}, badCredentials("the JWT is of no issuer that is configured")
	}
	// An extension that must be understood is not (RFC 7515, 4.1.11). Keys that
	// the header itself offers (jwk, jku, x5c, x5u) are not looked at.
	if _, ok := token.Header["crit"]; ok {
		return Principal{}, badCredentials("the JWT has a critical header")
	}

	claims := jwt.MapClaims{}
	_, err = i.parser.ParseWithClaims(text, claims, func(t *jwt.Token) (any, error) {
		kid, ok := t.Header["kid"].(string)
		if _, there := t.Header["kid"]; there && !ok {
			return nil, cause("kid is not a string")
		}
		return i.keys.key(ctx, t.Method.Alg(), kid)
	})
	if err != nil {
		return Principal{}, i.refused(err)
	}
	return i.principal(claims)
}

// unverified reads what a token claims.
var unverified = jwt.NewParser(jwt.WithStrictDecoding())

// badToken is what is said of a token that nobody is known to have issued.
func badToken(why error) error {
	e := badCredentials("")
	e.Err = why
	return e
}

// refused says why a token is not good: in detail only where the issuer has signed
// it, for claims are looked at after the signature.
func (i *issuer) refused(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok { // the keys cannot be had
		return e
	}
	if !errors.Is(err, jwt.ErrTokenInvalidClaims) {
		return badToken(err)
	}
	switch {
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return fault.Wrap(err, fault.Unauthenticated, fault.ReasonBadCredentials, "the token of %s is not for this service: its aud is not %q", i.Name, i.Audience).
			WithHint("Ask %s for a token with the audience %q", i.Issuer.Issuer, i.Audience)
	case errors.Is(err, jwt.ErrTokenExpired):
		return fault.Wrap(err, fault.Unauthenticated, fault.ReasonTokenExpired, "the token of %s has expired", i.Name).
			WithHint("Sign in there again")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return fault.Wrap(err, fault.Unauthenticated, fault.ReasonBadCredentials, "the token of %s is not good yet", i.Name).
			WithHint("Compare the clocks of both servers; auth.jwt.clock_skew says how far they may be apart")
	}
	return fault.Wrap(err, fault.Unauthenticated, fault.ReasonBadCredentials, "the token of %s lacks a claim, or has one of another form: it needs exp, iss and aud", i.Name).
		WithHint("Ask those who run %s", i.Issuer.Issuer)
}

// principal makes one of the claims of a good token.
func (i *issuer) principal(claims jwt.MapClaims) (Principal, error) {
	name, _ := find(claims, i.PrincipalClaim).(string)
	if !plainName(name) {
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, "the token of %s has no name in its claim %s", i.Name, i.PrincipalClaim).
			WithHint("Set auth.jwt.principal_claim to one that is a text without blanks, or ask those who run %s", i.Issuer.Issuer)
	}
	p := Principal{Name: "jwt:" + i.Name + ":" + name}
	if exp, err := claims.GetExpirationTime(); err == nil && exp != nil {
		p.Expiry = exp.Add(i.Skew)
	}
	if p.Expiry.IsZero() || p.Expiry.After(latest) {
		return Principal{}, fault.New(fault.Unauthenticated, fault.ReasonBadCredentials, "the token of %s has an exp beyond the year 9999", i.Name).
			WithHint("Ask those who run %s for tokens that end; exp counts seconds, not milliseconds or less", i.Issuer.Issuer)
	}
	for _, value := range words(find(claims, i.RolesClaim)) {
		p.Roles = append(p.Roles, i.Roles[value]...)
	}
	if p.Roles = inOrder(p.Roles); len(p.Roles) == 0 {
		return Principal{}, fault.New(fault.PermissionDenied, fault.ReasonRoleMissing, "the token of %s gives %s no role here", i.Name, p.Name).
			WithHint("Its claim %s must have one of the values that auth.jwt.roles lists", i.RolesClaim)
	}
	return p, nil
}

// find gives a claim by its name, which may have dots in it (such as
// "https://example.com/roles"), else by a path of names with dots between them.
func find(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, _ := claims[first].(map[string]any)
	return find(inner, rest)
}

// words gives the texts in a list, or those between blanks.
func words(v any) []string {
	switch v := v.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var list []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}
