package gateway_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/gateway"
)

const uiPage = `<!doctype html><script type="module" src="/assets/index-abc.js"></script>`

var (
	uiScript = strings.Repeat("console.log(1);\n", 100)
	uiFiles  = fstest.MapFS{
		"index.html":          {Data: []byte(uiPage)},
		"assets/index-abc.js": {Data: []byte(uiScript)},
		"assets/x-1.css":      {Data: []byte("a{}")},
		"assets/icon-2.svg":   {Data: []byte("<svg/>")},
	}
)

func TestTheUIIsServed(t *testing.T) {
	d := open(t, &service{})
	for _, path := range []string{"/", "/?run=1", "/commands/" + anID, "/commands/" + anID + "?at=17", "/sessions", "/sessions/build", "/sessions/" + anID + "/replay", "/tasks", "/tasks/" + anID, "/approvals", "/hosts", "/audit"} {
		a := d.do("GET", path, "", "Accept", html)
		if a.status != 200 || a.body != uiPage || a.header.Get("Content-Type") != "text/html; charset=utf-8" || a.header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("%s: HTTP %d %v %s", path, a.status, a.header, a.body)
		}
		policy := a.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy has no %s: %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || a.header.Get("X-Frame-Options") != "DENY" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, a.header)
		}
		if again := d.do("GET", path, "", "Accept", html, "If-None-Match", a.header.Get("ETag")); again.status != 304 || again.body != "" {
			t.Errorf("%s again: HTTP %d %s", path, again.status, again.body)
		}
		if head := d.do("HEAD", path, "", "Accept", html); head.status != 200 || head.body != "" {
			t.Errorf("HEAD %s: HTTP %d %s", path, head.status, head.body)
		}
		// A program that asks is told that there is no such path, as of any other.
		if a := d.do("GET", path, "", "Accept", "application/json"); a.status != 404 {
			t.Errorf("%s, for a program: HTTP %d %s", path, a.status, a.body)
		}
	}
	for path, contentType := range map[string]string{
		"/assets/index-abc.js": "text/javascript; charset=utf-8", "/assets/x-1.css": "text/css; charset=utf-8", "/assets/icon-2.svg": "image/svg+xml",
	} {
		a := d.do("GET", path, "")
		if a.status != 200 || a.header.Get("Content-Type") != contentType || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: HTTP %d %v", path, a.status, a.header)
		}
	}
	packed := d.do("GET", "/assets/index-abc.js", "", "Accept-Encoding", "gzip")
	z, err := gzip.NewReader(bytes.NewReader([]byte(packed.body)))
	if err != nil || packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("Vary") == "" {
		t.Fatalf("%v, %v", err, packed.header)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != uiScript {
		t.Errorf("%v, %q", err, text)
	}
	if plain := d.do("GET", "/assets/index-abc.js", "", "Accept-Encoding", "identity"); plain.body != uiScript {
		t.Errorf("%q", plain.body)
	}
}

func TestTheUIIsForThoseWhoAreSignedIn(t *testing.T) {
	d := open(t, &service{})
	for path, next := range map[string]string{
		"/": "", "/hosts": "/hosts", "/commands/" + anID + "?at=17": "/commands/" + anID + "?at=17", "/?state=failed&host=a+b": "/?state=failed&host=a+b",
	} {
		want := "/login"
		if next != "" {
			want += "?" + url.Values{"next": {next}}.Encode()
		}
		if a := d.do("GET", path, "", "Authorization", "", "Accept", html); a.status != 303 || a.header.Get("Location") != want {
			t.Errorf("%s: HTTP %d %v", path, a.status, a.header)
		}
	}
	if e := d.audit.take(); len(e) != 0 {
		t.Errorf("nobody was refused: %+v", e)
	}
	if a := d.do("GET", "/assets/index-abc.js", "", "Authorization", ""); a.status != 401 || strings.Contains(a.body, "console") {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
	if e := d.audit.take(); len(e) != 1 || e[0].Method != "GET /assets/{file}" {
		t.Errorf("audit %+v", e)
	}
}

// TestWhatIsNotThere: a browser is shown a page that says so, but nothing that a
// program may ask for looks like a page.
func TestWhatIsNotThere(t *testing.T) {
	d := open(t, &service{})
	if a := d.do("GET", "/nowhere", "", "Accept", html); a.status != 404 || a.body != uiPage || a.header.Get("Content-Security-Policy") == "" {
		t.Errorf("HTTP %d %v %s", a.status, a.header, a.body)
	}
	for _, path := range []string{"/v1/nowhere", "/api/nowhere", "/assets/nowhere.js", "/assets/", "/assets/../index.html", "/index.html/x"} {
		a := d.do("GET", path, "", "Accept", "application/json")
		if a.status != 404 || strings.Contains(a.body, "doctype") {
			t.Errorf("%s: HTTP %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/v1/nowhere", "/assets/nowhere.js"} {
		if a := d.do("GET", path, "", "Accept", html); a.status != 404 || strings.Contains(a.body, "doctype") {
			t.Errorf("%s: HTTP %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/hosts", "/commands/" + anID, "/assets/index-abc.js"} {
		if a := d.do("POST", path, "{}", "Accept", html, "Content-Type", "application/json"); a.status/100 != 4 || strings.Contains(a.body, "doctype") {
			t.Errorf("POST %s: HTTP %d %s", path, a.status, a.body)
		}
	}
	bare := open(t, &service{}, func(o *gateway.Options) { o.UI = nil })
	if a := bare.do("GET", "/", "", "Accept", html); a.status != 404 {
		t.Errorf("without a UI: HTTP %d %s", a.status, a.body)
	}
}

// TestAPageLoadIsWithinTheLimits: the default limits let everybody load the page
// many times over.
func TestAPageLoadIsWithinTheLimits(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Read: 2}}) // twenty at once
	})
	for i := range 20 {
		if a := d.do("GET", "/assets/index-abc.js", ""); a.status != 200 {
			t.Fatalf("request %d: HTTP %d %s", i, a.status, a.body)
		}
	}
	if a := d.do("GET", "/assets/index-abc.js", ""); a.status != 429 {
		t.Errorf("HTTP %d", a.status)
	}
}
