package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
)

// certificate makes one that is its own issuer.
func certificate(t *testing.T, name string, use x509.ExtKeyUsage) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{use}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, parsed
}

func TestTLSAndClientCertificates(t *testing.T) {
	server, _ := certificate(t, "server", x509.ExtKeyUsageServerAuth)
	client, issuer := certificate(t, "robot", x509.ExtKeyUsageClientAuth)
	pool := x509.NewCertPool()
	pool.AddCert(issuer)
	clients, err := access.NewClients(map[string][]access.Role{"robot": {access.RoleOperator}})
	if err != nil {
		t.Fatal(err)
	}
	var md metadata.MD
	d := open(t, asking(&md), func(o *gateway.Options) {
		o.Authenticator = access.Authenticators{Admin: o.Authenticator, Clients: clients}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	})
	if c := d.form("/login", url.Values{"token": {token}}).cookie(t); c.Name != "__Host-telexec" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %+v", c)
	}
	if a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", d.login()); a.status != 200 {
		t.Errorf("with the cookie: HTTP %d %s", a.status, a.body)
	}
	if a := d.do("GET", statusPath, "", "Authorization", ""); a.status != 401 {
		t.Errorf("with nothing: HTTP %d", a.status)
	}
	d.client.CloseIdleConnections()
	d.client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{client}
	a := d.do("GET", statusPath, "", "Authorization", "", "Telexec-Client-Bin", "YWRtaW4", "Grpc-Metadata-Telexec-Client-Bin", "YWRtaW4")
	if a.status != 200 || !strings.Contains(a.body, `"host":"cert:robot"`) {
		t.Errorf("with a certificate: HTTP %d %s", a.status, a.body)
	}
	if name := md.Get("telexec-client-bin"); len(name) != 1 || name[0] != "robot" {
		t.Errorf("metadata %v", md)
	}
	if a := d.do("GET", statusPath, ""); a.status != 200 || !strings.Contains(a.body, `"host":"admin"`) {
		t.Errorf("with both: HTTP %d %s", a.status, a.body)
	}
}

// TestACertificateIsNotForPagesOfOthers: a browser shows it with every request,
// whoever's page has made it, as it does a cookie.
func TestACertificateIsNotForPagesOfOthers(t *testing.T) {
	server, _ := certificate(t, "server", x509.ExtKeyUsageServerAuth)
	client, issuer := certificate(t, "robot", x509.ExtKeyUsageClientAuth)
	pool := x509.NewCertPool()
	pool.AddCert(issuer)
	clients, err := access.NewClients(map[string][]access.Role{"robot": {access.RoleOperator}})
	if err != nil {
		t.Fatal(err)
	}
	var md metadata.MD
	svc := asking(&md)
	started := 0
	svc.execute = func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		started++
		return &telexecv1.ExecuteResponse{}, nil
	}
	d := open(t, svc, func(o *gateway.Options) {
		o.Authenticator = access.Authenticators{Admin: o.Authenticator, Clients: clients}
		o.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	})
	d.client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{client}
	plain := "http" + strings.TrimPrefix(d.url, "https")
	for name, c := range map[string]struct {
		method string
		header []string
		status int
	}{
		"program":              {"GET", nil, 200},
		"program starts":       {"POST", []string{"Content-Type", "application/json; charset=utf-8"}, 200},
		"typed":                {"GET", []string{"Sec-Fetch-Site", "none"}, 200},
		"own page":             {"GET", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"own page starts":      {"POST", []string{"Origin", d.url, "Sec-Fetch-Site", "same-origin", "Content-Type", "application/json"}, 200},
		"another port":         {"GET", []string{"Sec-Fetch-Site", "same-site"}, 401},
		"another site":         {"GET", []string{"Sec-Fetch-Site", "cross-site"}, 401},
		"link from elsewhere":  {"GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 401},
		"allowed page":         {"GET", []string{"Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site"}, 401},
		"allowed, old browser": {"GET", []string{"Origin", "https://ops.example"}, 401},
		"allowed page starts":  {"POST", []string{"Origin", "https://ops.example", "Content-Type", "text/plain"}, 401},
		"allowed, with JSON":   {"POST", []string{"Origin", "https://ops.example", "Content-Type", "application/json"}, 401},
		"form":                 {"POST", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"plain HTTP's page":    {"GET", []string{"Origin", plain}, 401},
	} {
		started = 0
		path, body := statusPath, ""
		if c.method == "POST" {
			path, body = "/v1/commands", `{"host":"h","command":"id"}`
		}
		a := d.do(c.method, path, body, append([]string{"Authorization", ""}, c.header...)...)
		if a.status != c.status || (started == 1) != (c.status == 200 && c.method == "POST") {
			t.Errorf("%s: HTTP %d %s, started %d", name, a.status, a.body, started)
		}
	}
	// A token of its own counts, and the certificate does not go on beside it.
	if a := d.do("GET", statusPath, "", "Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site"); a.status != 200 || !strings.Contains(a.body, `"host":"admin"`) {
		t.Errorf("with a token: HTTP %d %s", a.status, a.body)
	}
	if name := md.Get("telexec-client-bin"); len(name) != 0 {
		t.Errorf("the certificate went on: %v", name)
	}
}

// TestWhatABodySaysItIs: a form of a web page can send any of three types without
// asking first. Only who shows a token of its own, which no form can, need not say
// that the body is JSON.
func TestWhatABodySaysItIs(t *testing.T) {
	started := 0
	d := open(t, &service{execute: func(context.Context, *telexecv1.ExecuteRequest) (*telexecv1.ExecuteResponse, error) {
		started++
		return &telexecv1.ExecuteResponse{}, nil
	}})
	cookie := []string{"Authorization", "", "Cookie", d.login()}
	good := `{"host":"h","command":"id"}`
	for _, c := range []struct {
		kind, body   string
		cookie, both int // HTTP status with a cookie, and with a bearer token
	}{
		{"application/json", good, 200, 200},
		{"Application/JSON; charset=utf-8", good, 200, 200},
		{"", good, 415, 200},
		{"text/plain", good, 415, 200},
		{"application/x-www-form-urlencoded", good, 415, 200},
		{"multipart/form-data; boundary=x", good, 415, 200},
		{"application/json2", good, 415, 200},
		{"application/json, text/plain", good, 415, 200},
		{";;", good, 415, 200},
		{"text/plain", "", 415, 400},
		{"", "", 400, 400}, // such as of POST …:cancel
	} {
		for with, want := range map[string]int{"cookie": c.cookie, "token": c.both} {
			started = 0
			var header []string
			if with == "cookie" {
				header = cookie
			}
			if c.kind != "" {
				header = append(header[:len(header):len(header)], "Content-Type", c.kind)
			}
			a := d.do("POST", "/v1/commands", c.body, header...)
			if a.status != want || (started == 1) != (want == 200) {
				t.Errorf("%q, %d bytes, with a %s: HTTP %d %s, started %d", c.kind, len(c.body), with, a.status, a.body, started)
			}
			if want != 415 {
				continue
			}
			if _, reason, hint, _ := a.problem(t); reason != fault.ReasonInvalidRequest || !strings.Contains(hint, "application/json") {
				t.Errorf("%q: %s", c.kind, a.body)
			}
		}
	}
}
