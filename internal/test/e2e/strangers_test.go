package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/testenv"
)

// stranger is somebody with bad credentials.
type stranger struct {
	name   string
	token  secret.Text
	reason string
	names  string // what the audit's detail must say
}

// strangersOf gives one of each kind.
func strangersOf(t *testing.T, env *testenv.Env, jwtSecret string) []stranger {
	t.Helper()
	sign := func(key string, claims jwt.MapClaims) secret.Text {
		all := jwt.MapClaims{"iss": "test", "aud": "telexec", "sub": "eve", "roles": []string{"ops"}, "exp": time.Now().Add(time.Hour).Unix()}
		maps.Copy(all, claims)
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, all).SignedString([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return secret.New(token)
	}
	short, err := env.Admin().CreateToken(t.Context(), &telexecv1.CreateTokenRequest{Principal: "late", Roles: []string{"operator"}, Lifetime: durationpb.New(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	revoked := env.Key("fired", "operator")
	if _, err := env.Admin().RevokeToken(t.Context(), &telexecv1.RevokeTokenRequest{Principal: "fired"}); err != nil {
		t.Fatal(err)
	}
	expired := secret.New(short.GetSecret())
	if !comesTrue(t, 10*time.Second, func() bool { return time.Now().After(short.GetToken().GetExpireTime().AsTime()) }) {
		t.Fatal("the key does not expire")
	}
	good := sign(jwtSecret, nil)
	if _, err := telexecv1.NewHostServiceClient(env.As(good)).ListHosts(t.Context(), &telexecv1.ListHostsRequest{}); err != nil {
		t.Fatalf("a good JWT: %v", err)
	}
	return []stranger{
		{"no token", secret.Text{}, fault.ReasonNoCredentials, ""},
		{"a bad token", secret.New(strings.Repeat("0", 64)), fault.ReasonBadCredentials, ""},
		{"an unknown key", unknownKey(), fault.ReasonBadCredentials, ""},
		{"half a key", secret.New(revoked.Reveal()[:40]), fault.ReasonBadCredentials, ""},
		{"an expired key", expired, fault.ReasonTokenExpired, `"late"`},
		{"a revoked key", revoked, fault.ReasonTokenRevoked, `"fired"`},
		{"an expired JWT", sign(jwtSecret, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}), fault.ReasonTokenExpired, ""},
		{"a JWT of somebody else", sign(rand.Text()+rand.Text(), nil), fault.ReasonBadCredentials, ""},
		{"an unsigned JWT", unsigned(good), fault.ReasonBadCredentials, ""},
		{"a JWT without a role", sign(jwtSecret, jwt.MapClaims{"roles": []string{"admin"}}), fault.ReasonRoleMissing, "jwt:corp:eve"},
	}
}

// unknownKey has the form of an API key, as docs/access.md tells it.
func unknownKey() secret.Text {
	body := "txk_" + strings.ToLower(rand.Text()[:12]) + "_" + base64.RawURLEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32])
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body)))
	return secret.New(body + base64.RawURLEncoding.EncodeToString(sum))
}

// unsigned is a JWT that says that it needs no signature.
func unsigned(token secret.Text) secret.Text {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	return secret.New(header + "." + strings.Split(token.Reveal(), ".")[1] + ".")
}
