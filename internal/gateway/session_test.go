package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/gateway"
	"github.com/telexec/telexec/internal/secret"
)

// authenticator is one that a test makes of a function.
type authenticator func(access.Credentials) (access.Principal, error)

func (f authenticator) Authenticate(_ context.Context, shown access.Credentials) (access.Principal, error) {
	return f(shown)
}

const html = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"

// form sends a form as a browser does that shows our page.
func (d *door) form(path string, fields url.Values, header ...string) answer {
	d.t.Helper()
	header = append([]string{"Authorization", "", "Content-Type", "application/x-www-form-urlencoded", "Accept", html, "Origin", d.url, "Sec-Fetch-Site", "same-origin"}, header...)
	return d.do("POST", path, fields.Encode(), header...)
}

// cookie gives the cookie that an answer sets.
func (a answer) cookie(t *testing.T) *http.Cookie {
	t.Helper()
	cookies := (&http.Response{Header: a.header}).Cookies()
	if len(cookies) != 1 {
		t.Fatalf("HTTP %d sets %d cookies: %s", a.status, len(cookies), a.body)
	}
	return cookies[0]
}

// login signs in and gives the Cookie header from then on.
func (d *door) login() string {
	d.t.Helper()
	c := d.form("/login", url.Values{"token": {token}}).cookie(d.t)
	d.audit.take()
	return c.Name + "=" + c.Value
}

// asking is a service that keeps the metadata of the last GetStatus.
func asking(md *metadata.MD) *service {
	return &service{status: func(ctx context.Context, _ *telexecv1.GetStatusRequest) (*telexecv1.GetStatusResponse, error) {
		*md, _ = metadata.FromIncomingContext(ctx)
		c, _ := access.FromContext(ctx)
		return &telexecv1.GetStatusResponse{Command: &telexecv1.Command{Id: anID, Host: c.Name}}, nil
	}}
}

const statusPath = "/v1/commands/" + anID

func TestABrowserSignsInAndOut(t *testing.T) {
	var md metadata.MD
	d := open(t, asking(&md))
	// Without a cookie it is sent to the login, which nobody calls a refusal.
	if a := d.do("GET", "/", "", "Authorization", "", "Accept", html); a.status != 303 || a.header.Get("Location") != "/login" {
		t.Fatalf("HTTP %d %v", a.status, a.header)
	}
	if a := d.do("GET", "/login?next=/v1/hosts", "", "Authorization", "", "Accept", html); a.status != 200 || !strings.Contains(a.body, `name="next" value="/v1/hosts"`) {
		t.Fatalf("HTTP %d %s", a.status, a.body)
	}
	if e := d.audit.take(); len(e) != 0 {
		t.Errorf("audit %+v", e)
	}

	a := d.form("/login", url.Values{"token": {" " + token + "\r\n"}, "next": {"/v1/hosts"}})
	if a.status != 303 || a.header.Get("Location") != "/v1/hosts" {
		t.Fatalf("HTTP %d %v %s", a.status, a.header, a.body)
	}
	c := a.cookie(t)
	if c.Name != "telexec" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" ||
		c.MaxAge < 12*3600-60 || c.MaxAge > 12*3600 {
		t.Errorf("cookie %+v", c)
	}
	if raw, _ := base64.RawURLEncoding.DecodeString(c.Value); strings.Contains(c.Value, token) || bytes.Contains(raw, []byte(token)) {
		t.Errorf("the token is in the cookie: %q", raw)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Login || e[0].Principal != "admin" || e[0].Origin != "web" || e[0].Address != "127.0.0.1" ||
		e[0].Method != "POST /login" || e[0].Call != a.header.Get("X-Request-Id") || e[0].Time.IsZero() {
		t.Errorf("audit %+v", e)
	}

	held := c.Name + "=" + c.Value
	if a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", held); a.status != 200 || !strings.Contains(a.body, `"host":"admin"`) {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if md.Get("telexec-origin")[0] != "web" || md.Get("authorization")[0] != "Bearer "+token || len(md.Get("cookie")) != 0 {
		t.Errorf("metadata %v", md)
	}
	if a := d.do("GET", statusPath, "", "Authorization", "Basic abc", "Cookie", held); a.status != 200 || len(md.Get("authorization")) != 1 {
		t.Errorf("HTTP %d, metadata %v", a.status, md)
	}
	// A token that is shown is the one that counts.
	if a := d.do("GET", statusPath, "", "Authorization", "Bearer wrong", "Cookie", held); a.status != 401 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if home := d.do("GET", "/", "", "Authorization", "", "Cookie", held, "Accept", html); home.status != 200 || home.body != uiPage {
		t.Errorf("HTTP %d %s", home.status, home.body)
	}
	d.audit.take()

	a = d.form("/logout", nil, "Cookie", held)
	if gone := a.cookie(t); a.status != 303 || a.header.Get("Location") != "/login" || gone.Name != "telexec" || gone.Value != "" || gone.MaxAge != -1 {
		t.Errorf("HTTP %d %v", a.status, a.header)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Logout || e[0].Principal != "admin" || e[0].Method != "POST /logout" {
		t.Errorf("audit %+v", e)
	}
	if a := d.form("/logout", nil); a.status != 303 || len(d.audit.take()) != 0 {
		t.Errorf("signing out twice: HTTP %d", a.status)
	}
}

func TestTheFirstPage(t *testing.T) {
	d := open(t, &service{})
	if a := d.do("GET", "/", "", "Accept", html); a.status != 200 || a.body != uiPage {
		t.Errorf("with a token: HTTP %d %s", a.status, a.body)
	}
	for _, header := range [][]string{{"Accept", "application/json"}, {"Accept", "*/*"}, {"Accept", "text/html2"}, nil} {
		if a := d.do("GET", "/", "", header...); a.status != 404 {
			t.Errorf("%v: HTTP %d %s", header, a.status, a.body)
		}
		if a := d.do("GET", "/", "", append([]string{"Authorization", ""}, header...)...); a.status != 401 {
			t.Errorf("%v, without a token: HTTP %d %s", header, a.status, a.body)
		}
	}
	if a := d.do("POST", "/", "", "Authorization", "", "Accept", html); a.status != 401 {
		t.Errorf("POST: HTTP %d", a.status)
	}
	if a := d.do("GET", "/openapi.json", "", "Authorization", "", "Accept", html); a.status != 401 {
		t.Errorf("/openapi.json: HTTP %d", a.status)
	}
	for path, methods := range map[string]string{"/": "GET, HEAD", "/login": "GET, HEAD, POST", "/logout": "POST"} {
		if a := d.do("PUT", path, ""); a.status != 405 || a.header.Get("Allow") != methods {
			t.Errorf("PUT %s: HTTP %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
	if a := d.do("GET", "/logout", ""); a.status != 405 {
		t.Errorf("GET /logout: HTTP %d", a.status)
	}
}

// TestPagesNeedNothing: no script, nothing from elsewhere, and a policy by which
// browsers allow neither.
func TestPagesNeedNothing(t *testing.T) {
	d := open(t, &service{})
	pages := map[string]answer{
		"login":  d.do("GET", "/login", "", "Authorization", ""),
		"failed": d.form("/login", url.Values{"token": {"nobody's"}}),
	}
	for name, a := range pages {
		h := a.header
		style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(a.body)
		if style == nil || !strings.Contains(style[1], "prefers-color-scheme: dark") {
			t.Fatalf("%s has no style: %s", name, a.body)
		}
		sum := sha256.Sum256([]byte(style[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
		if h.Get("Content-Security-Policy") != want {
			t.Errorf("%s: policy %q, not %q", name, h.Get("Content-Security-Policy"), want)
		}
		if h.Get("Content-Type") != "text/html; charset=utf-8" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("X-Frame-Options") != "DENY" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: %v", name, h)
		}
		for _, never := range []string{"<script", "http:", "https:", "//", "<img", "<link", " style=", " onclick", token, "nobody's"} {
			if strings.Contains(strings.ToLower(a.body), never) {
				t.Errorf("%s has %q", name, never)
			}
		}
		for _, always := range []string{`<html lang="en">`, "<title>", "<h1>", "<main>", `name="viewport"`} {
			if !strings.Contains(a.body, always) {
				t.Errorf("%s has no %s", name, always)
			}
		}
	}
	for _, always := range []string{`<label for="token">`, `type="password"`, `aria-describedby="note"`, "12 hours"} {
		if !strings.Contains(pages["login"].body, always) {
			t.Errorf("login has no %s", always)
		}
	}
}

func TestLoginsThatFail(t *testing.T) {
	log := &bytes.Buffer{}
	gone := authenticator(func(shown access.Credentials) (access.Principal, error) {
		switch shown.Token.Reveal() {
		case "over":
			return access.Principal{}, fault.New(fault.Unauthenticated, fault.ReasonTokenExpired, "it is over")
		case "broken":
			return access.Principal{}, errors.New("hunter2 in some library's text")
		case strings.Repeat("long", 1000):
			return access.Principal{Name: "long"}, nil
		}
		return access.NewAdmin(secret.New(token)).Authenticate(t.Context(), shown)
	})
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Authenticator = gone
		o.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for name, c := range map[string]struct {
		token  string
		status int
		says   string
		reason string // that the audit is told; empty: it is not
	}{
		"none":    {"", 401, "There is no token. Enter one.", fault.ReasonNoCredentials},
		"unknown": {"plant-unknown", 401, "The token is not known to this server", fault.ReasonBadCredentials},
		"over":    {"over", 401, "It is over.", fault.ReasonTokenExpired},
		"broken":  {"broken", 500, "Internal error", ""},
		"long":    {strings.Repeat("long", 1000), 400, "too long for a cookie", ""},
	} {
		a := d.form("/login", url.Values{"token": {c.token}, "next": {"/v1/hosts"}})
		if a.status != c.status || !strings.Contains(a.body, c.says) || !strings.Contains(a.body, `role="alert"`) ||
			!strings.Contains(a.body, `value="/v1/hosts"`) || len(a.header.Values("Set-Cookie")) != 0 || strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
		if c.status == 401 && a.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: no WWW-Authenticate", name)
		}
		e := d.audit.take()
		if c.reason == "" && len(e) == 0 {
			continue
		}
		if len(e) != 1 || e[0].Kind != audit.Refused || e[0].Reason != c.reason || e[0].Method != "POST /login" || e[0].Origin != "web" || e[0].Address != "127.0.0.1" {
			t.Errorf("%s: audit %+v", name, e)
		}
	}
	for name, header := range map[string][]string{
		"query":    {"Content-Type", "application/x-www-form-urlencoded"},
		"no form":  {"Content-Type", "application/json"},
		"bad form": {"Content-Type", "application/x-www-form-urlencoded; ="},
	} {
		if a := d.do("POST", "/login?token="+token, `{"token":"`+token+`"}`, append(header, "Authorization", "")...); a.status/100 != 4 || len(a.header.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
	}
	if a := d.form("/login", url.Values{"token": {strings.Repeat("x", 1<<20)}}); a.status != 400 || !strings.Contains(a.body, "The form cannot be read") {
		t.Errorf("huge: HTTP %d %s", a.status, a.body)
	}
	d.stop()
	for _, never := range []string{"plant-unknown", token, "longlong"} {
		if strings.Contains(log.String(), never) {
			t.Errorf("%q is in the log:\n%s", never, log)
		}
	}
}

func TestSigningInIsNotDoneBehindTheAuditsBack(t *testing.T) {
	d := open(t, &service{})
	held := d.login()
	d.audit.mu.Lock()
	d.audit.err = fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the store is closed")
	d.audit.mu.Unlock()
	if a := d.form("/login", url.Values{"token": {token}}); a.status != 503 || len(a.header.Values("Set-Cookie")) != 0 || !strings.Contains(a.body, "The store is closed") {
		t.Errorf("login: HTTP %d %v", a.status, a.header)
	}
	if a := d.form("/logout", nil, "Cookie", held); a.status != 303 || a.cookie(t).MaxAge != -1 {
		t.Errorf("logout: HTTP %d %v", a.status, a.header)
	}
}

func TestGuessesAreLimited(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{FailuresPerAddress: 0.1}) // one at once
	})
	if a := d.form("/login", url.Values{"token": {"guess"}}); a.status != 401 {
		t.Fatalf("HTTP %d", a.status)
	}
	d.audit.take()
	a := d.form("/login", url.Values{"token": {"another"}})
	if a.status != 429 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "failed authentications") {
		t.Errorf("HTTP %d %v %s", a.status, a.header, a.body)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Reason != fault.ReasonRateLimited {
		t.Errorf("audit %+v", e)
	}
	// What has a signature is not even looked at; what is known in memory is.
	for name, c := range map[string]struct {
		shown  string
		status int
	}{"guess": {"guess", 429}, "JWT": {"e30.e30.AAAA", 429}, "good": {token, 404}} {
		if a := d.do("GET", "/nowhere", "", "Authorization", "Bearer "+c.shown); a.status != c.status || (c.status == 429) != (a.header.Get("Retry-After") != "") {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
	}
	if a := d.form("/login", url.Values{"token": {token}}); a.status != 303 {
		t.Errorf("a good token signs in: HTTP %d", a.status)
	}
	// Who shows nothing has a measure of their own, which is larger.
	if a := d.do("GET", "/v1/hosts", "", "Authorization", ""); a.status != 401 {
		t.Errorf("nothing shown: HTTP %d %s", a.status, a.body)
	}
	refused := 0
	for range 100 {
		if a := d.do("GET", "/v1/hosts", "", "Authorization", ""); a.status == 429 && a.header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("a flood that shows nothing is not refused")
	}
}

// TestSigningInAndOutIsLimited: each is a row of the audit, for good.
func TestSigningInAndOutIsLimited(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Start: 0.1}}) // one at once
	})
	held := d.login()
	a := d.form("/login", url.Values{"token": {token}, "next": {"/v1/hosts"}})
	if a.status != 429 || a.header.Get("Retry-After") != "10" || len(a.header.Values("Set-Cookie")) != 0 ||
		!strings.Contains(a.body, `role="alert"`) || !strings.Contains(a.body, "start calls") || !strings.Contains(a.body, `value="/v1/hosts"`) {
		t.Errorf("login: HTTP %d %v %s", a.status, a.header, a.body)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Refused || e[0].Reason != fault.ReasonRateLimited || e[0].Principal != "admin" || e[0].Method != "POST /login" {
		t.Errorf("login: audit %+v", e)
	}
	// The browser forgets the cookie all the same.
	a = d.form("/logout", nil, "Cookie", held)
	if a.status != 429 || a.header.Get("Retry-After") == "" || a.cookie(t).MaxAge != -1 || !strings.Contains(a.body, "start calls") {
		t.Errorf("logout: HTTP %d %v %s", a.status, a.header, a.body)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Refused || e[0].Principal != "admin" || e[0].Method != "POST /logout" {
		t.Errorf("logout: audit %+v", e)
	}
	// A guess costs its address a failure, and no principal anything.
	if a := d.form("/login", url.Values{"token": {"guess"}}); a.status != 401 {
		t.Errorf("guess: HTTP %d", a.status)
	}
}

// TestCookiesOfOthersAreInNobodysWay: a page on another port of this host can set
// cookies of our name, which the browser sends too, and may send first.
func TestCookiesOfOthersAreInNobodysWay(t *testing.T) {
	var md metadata.MD
	d := open(t, asking(&md))
	over := open(t, &service{}, func(o *gateway.Options) { o.SessionLifetime = 0 }).login() // by the same key
	held := d.login()
	for _, cookies := range []string{held, "telexec=plant; " + held, held + "; telexec=plant", "telexec=; telexec=!!; telexec=AAAA; " + held, over + "; " + held} {
		if a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", cookies); a.status != 200 || !strings.Contains(a.body, `"host":"admin"`) {
			t.Errorf("%s: HTTP %d %s", cookies, a.status, a.body)
		}
		d.audit.take()
		if a := d.form("/logout", nil, "Cookie", cookies); a.status != 303 {
			t.Errorf("%s: signing out: HTTP %d", cookies, a.status)
		}
		if e := d.audit.take(); len(e) != 1 || e[0].Kind != audit.Logout || e[0].Principal != "admin" {
			t.Errorf("%s: audit %+v", cookies, e)
		}
	}
	// That one was good says more than that another never was.
	for _, cookies := range []string{over + "; telexec=plant", "telexec=plant; " + over} {
		a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", cookies)
		if _, reason, _, _ := a.problem(t); a.status != 401 || reason != fault.ReasonTokenExpired {
			t.Errorf("%s: HTTP %d %s", cookies, a.status, a.body)
		}
	}
	if a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", "telexec="); a.status != 401 || d.audit.take() == nil {
		t.Errorf("an empty cookie: HTTP %d", a.status)
	}
}

func TestOwnPathsAreLimited(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Read: 0.1}})
	})
	if a := d.do("GET", "/openapi.json", ""); a.status != 200 {
		t.Fatalf("HTTP %d", a.status)
	}
	if a := d.do("GET", "/metrics", ""); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("HTTP %d", a.status)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Principal != "admin" || e[0].Method != "GET /metrics" {
		t.Errorf("audit %+v", e)
	}
}

func TestACookieEnds(t *testing.T) {
	expiry := time.Now().Add(time.Hour)
	revoked := false
	who := authenticator(func(access.Credentials) (access.Principal, error) {
		if revoked {
			return access.Principal{}, fault.New(fault.Unauthenticated, fault.ReasonTokenRevoked, "it was taken back")
		}
		return access.Principal{Name: "robot", Expiry: expiry}, nil
	})
	var md metadata.MD
	t.Run("with its token", func(t *testing.T) {
		d := open(t, asking(&md), func(o *gateway.Options) { o.Authenticator = who })
		a := d.form("/login", url.Values{"token": {token}})
		if c := a.cookie(t); c.MaxAge > 3600 || c.MaxAge < 3500 {
			t.Errorf("cookie for %d s", c.MaxAge)
		}
		held := d.login()
		if a := d.do("GET", "/", "", "Authorization", "", "Cookie", held, "Accept", html); a.status != 200 {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
		revoked = true
		a = d.do("GET", statusPath, "", "Authorization", "", "Cookie", held)
		if _, reason, _, _ := a.problem(t); a.status != 401 || reason != fault.ReasonTokenRevoked {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
		if a := d.do("GET", "/", "", "Authorization", "", "Cookie", held, "Accept", html); a.status != 303 || a.header.Get("Location") != "/login" {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
		if e := d.audit.take(); len(e) != 2 || e[0].Reason != fault.ReasonTokenRevoked || e[0].Origin != "web" || e[1].Method != "GET /" {
			t.Errorf("audit %+v", e)
		}
	})
	t.Run("by itself", func(t *testing.T) {
		d := open(t, &service{}, func(o *gateway.Options) { o.SessionLifetime = 0 })
		a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", d.login())
		if _, reason, hint, _ := a.problem(t); a.status != 401 || reason != fault.ReasonTokenExpired || !strings.Contains(hint, "/login") {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
	})
	t.Run("when it was not made here", func(t *testing.T) {
		d := open(t, &service{})
		held := d.login()
		for _, value := range []string{held[:len(held)-2], "telexec=AAAA", "telexec=!!", held + "AA"} {
			a := d.do("GET", statusPath, "", "Authorization", "", "Cookie", value)
			if _, reason, _, _ := a.problem(t); a.status != 401 || reason != fault.ReasonBadCredentials {
				t.Errorf("%s: HTTP %d %s", value, a.status, a.body)
			}
		}
		// No way in, but always a way out.
		if a := d.form("/logout", nil, "Cookie", "telexec=AAAA"); a.status != 303 || a.cookie(t).MaxAge != -1 {
			t.Errorf("HTTP %d %s", a.status, a.body)
		}
	})
}

// TestACookieIsNotForPagesOfOthers: not for those that may not call, and not for
// those that may, with a token of their own.
func TestACookieIsNotForPagesOfOthers(t *testing.T) {
	var md metadata.MD
	d := open(t, asking(&md))
	held := d.login()
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
	for name, c := range map[string]struct {
		method, path string
		header       []string
		status       int
	}{
		"own page":               {"GET", statusPath, []string{"Origin", d.url, "Sec-Fetch-Site", "same-origin"}, 200},
		"typed":                  {"GET", statusPath, []string{"Sec-Fetch-Site", "none"}, 200},
		"another port":           {"GET", statusPath, []string{"Sec-Fetch-Site", "same-site"}, 401},
		"another site":           {"GET", statusPath, []string{"Sec-Fetch-Site", "cross-site"}, 401},
		"allowed page":           {"GET", statusPath, []string{"Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site"}, 401},
		"allowed page posts":     {"POST", "/v1/commands", []string{"Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site"}, 401},
		"allowed, old browser":   {"GET", statusPath, []string{"Origin", "https://ops.example"}, 401},
		"foreign page":           {"POST", "/v1/commands", []string{"Origin", "https://evil.example"}, 403},
		"foreign, old browser":   {"POST", "/v1/commands", []string{"Origin", "null"}, 403},
		"WebSocket, own page":    {"GET", statusPath, append([]string{"Origin", d.url}, upgrade...), 200},
		"WebSocket, foreign":     {"GET", statusPath, append([]string{"Origin", "https://evil.example"}, upgrade...), 403},
		"WebSocket, another":     {"GET", statusPath, append([]string{"Origin", "http://localhost:1"}, upgrade...), 403},
		"WebSocket, sandbox":     {"GET", statusPath, append([]string{"Origin", "null"}, upgrade...), 403},
		"WebSocket, rebound":     {"GET", statusPath, append([]string{"Origin", "http://evil.example", "Host", "evil.example"}, upgrade...), 403},
		"login by foreign":       {"POST", "/login", []string{"Origin", "https://evil.example"}, 403},
		"login by allowed":       {"POST", "/login", []string{"Origin", "https://ops.example"}, 403},
		"login by another":       {"POST", "/login", []string{"Sec-Fetch-Site", "same-site"}, 403},
		"logout by foreign":      {"POST", "/logout", []string{"Origin", "https://evil.example"}, 403},
		"logout by allowed":      {"POST", "/logout", []string{"Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"login under their name": {"GET", "/login", []string{"Host", "evil.example"}, 403},
	} {
		a := d.do(c.method, c.path, "", append([]string{"Authorization", "", "Cookie", held}, c.header...)...)
		if a.status != c.status || len(a.header.Values("Set-Cookie")) != 0 {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
		if a.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: may use the cookie", name)
		}
	}
	a := d.do("OPTIONS", statusPath, "", "Authorization", "", "Origin", "https://ops.example", "Access-Control-Request-Method", "POST")
	if a.status != 204 || a.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: HTTP %d %v", a.status, a.header)
	}
}
