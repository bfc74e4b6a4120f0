package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/config"
)

// webToken makes a JSON Web Token as an issuer would, by HS256.
func webToken(secret, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

// TestWhoIsWho shows every kind of credentials that can be configured to the running
// service.
func TestWhoIsWho(t *testing.T) {
	home := t.TempDir()
	cert, key, pool := certificate(t, home)
	secret := strings.Repeat("k", 32)
	secretFile := filepath.Join(home, "jwt.secret")
	if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	file := write(t, home, "tls: {cert_file: "+cert+", key_file: "+key+", client_ca_file: "+cert+"}\n"+
		"auth:\n  client_certificates: {roles: {test: [viewer, approver]}}\n"+
		"  jwt: [{name: corp, issuer: https://issuer.example, audience: telexec, secret_file: "+secretFile+", roles: {ops: [operator]}}]\n"+
		"rate_limits: {principal: {list: 0.01}}\n")
	s := start(t, settings(home), "--config", file, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	shown, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// as gives what the service says to somebody with or without a certificate.
	as := func(certificates ...tls.Certificate) telexecv1.AdminServiceClient {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:"+s.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			RootCAs: pool, ServerName: "127.0.0.1", Certificates: certificates,
		})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return telexecv1.NewAdminServiceClient(conn)
	}
	plain, withCertificate := as(), as(shown)
	bytes, err := os.ReadFile(filepath.Join(s.data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	admin := withToken(t.Context(), strings.TrimSpace(string(bytes)))
	made, err := plain.CreateToken(admin, &telexecv1.CreateTokenRequest{Principal: "ci", Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(issuer string, exp time.Time) string {
		return fmt.Sprintf(`{"iss":%q,"aud":"telexec","sub":"alice","exp":%d,"roles":["ops"]}`, issuer, exp.Unix())
	}
	soon := time.Now().Add(time.Hour)
	good := webToken(secret, claims("https://issuer.example", soon))
	for name, c := range map[string]struct {
		client telexecv1.AdminServiceClient
		ctx    context.Context
		who    string
		roles  []string
	}{
		"administrator":              {plain, admin, "admin", []string{"admin"}},
		"API key":                    {plain, withToken(t.Context(), made.GetSecret()), "ci", []string{"operator"}},
		"web token":                  {plain, withToken(t.Context(), good), "jwt:corp:alice", []string{"operator"}},
		"certificate":                {withCertificate, t.Context(), "cert:test", []string{"viewer", "approver"}},
		"certificate and a key":      {withCertificate, withToken(t.Context(), made.GetSecret()), "ci", []string{"operator"}},
		"nothing":                    {plain, t.Context(), "", nil},
		"certificate, bad token":     {withCertificate, withToken(t.Context(), "nonsense"), "", nil},
		"web token of another":       {plain, withToken(t.Context(), webToken(secret, claims("https://other.example", soon))), "", nil},
		"web token, forged":          {plain, withToken(t.Context(), webToken(strings.Repeat("x", 32), claims("https://issuer.example", soon))), "", nil},
		"web token, over long since": {plain, withToken(t.Context(), webToken(secret, claims("https://issuer.example", time.Now().Add(-time.Hour)))), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := c.client.GetServerInfo(c.ctx, &telexecv1.GetServerInfoRequest{})
			if c.who == "" {
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("%v, %v", info, err)
				}
				return
			}
			if err != nil || info.GetPrincipal() != c.who || !slices.Equal(slices.Sorted(slices.Values(info.GetRoles())), slices.Sorted(slices.Values(c.roles))) {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
	// A key that was taken back is nobody's, also after a restart.
	if _, err := plain.RevokeToken(admin, &telexecv1.RevokeTokenRequest{Principal: "ci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := plain.GetServerInfo(withToken(t.Context(), made.GetSecret()), &telexecv1.GetServerInfoRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	// The limits are those that are configured: one list, and no second one.
	lists := withToken(t.Context(), good)
	hosts := func() error {
		_, err := plain.ListTokens(lists, &telexecv1.ListTokensRequest{})
		return err
	}
	if err := hosts(); status.Code(err) != codes.PermissionDenied { // an operator's is not an administrator's
		t.Error(err)
	}
	if err := hosts(); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
}

func TestAuthoritiesOfClients(t *testing.T) {
	dir := t.TempDir()
	cert, key, _ := certificate(t, dir)
	if pool, err := readCertificates(cert); err != nil || pool == nil {
		t.Error(err)
	}
	for _, file := range []string{key, filepath.Join(dir, "none.pem")} {
		if _, err := readCertificates(file); err == nil || !strings.Contains(err.Error(), "client_ca_file") || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := loadTLS(config.TLS{CertFile: cert, KeyFile: key, ClientCAFile: file}); err == nil {
			t.Errorf("%s is taken", file)
		}
	}
}

// What widens rights is what the configuration says, to the letter.
func TestWiderRights(t *testing.T) {
	rights, err := newRights(config.Config{Auth: config.Auth{Wider: []config.Wider{
		{Roles: []string{"operator"}, Hosts: []string{"web*"}, Labels: map[string]string{"env": "dev"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ann := access.Caller{Principal: access.Principal{Name: "ann", Roles: []access.Role{access.RoleOperator}}}
	for host, may := range map[string]bool{"web1": true, "db1": false} {
		for env, fits := range map[string]bool{"dev": true, "prod": false} {
			err := rights.May(ann, access.Act, access.Thing{What: "command", ID: "1", Owner: "bob", Host: host, Labels: map[string]string{"env": env}})
			if (err == nil) != (may && fits) {
				t.Errorf("%s in %s: %v", host, env, err)
			}
		}
	}
	if _, err := newRights(config.Config{Auth: config.Auth{Wider: []config.Wider{{Roles: []string{"king"}}}}}); err == nil {
		t.Error("a role that there is not is taken")
	}
}

// Who may type is what the configuration says.
func TestTypingRights(t *testing.T) {
	own := access.Thing{What: "session", ID: "1", Owner: "ann", Host: "web1"}
	ann := access.Caller{Principal: access.Principal{Name: "ann", Roles: []access.Role{access.RoleOperator}}}
	for _, c := range []struct {
		roles []string
		may   bool
	}{{[]string{"operator", "admin"}, true}, {[]string{"admin"}, false}} {
		rights, err := newRights(config.Config{Sessions: config.Sessions{TypingRoles: c.roles}})
		if err != nil {
			t.Fatal(err)
		}
		if err := rights.MayType(ann, own); (err == nil) != c.may {
			t.Errorf("%q: %v", c.roles, err)
		}
	}
}
