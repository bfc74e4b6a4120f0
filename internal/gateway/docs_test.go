package gateway_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/gateway"
)

// What /docs is made of, with the type of each file and how it begins.
var docsFiles = []struct{ path, kind, begins string }{
	{"/docs", "text/html; charset=utf-8", "<!doctype html>"},
	{"/docs/docs.js", "text/javascript; charset=utf-8", `"use strict";`},
	{"/docs/docs.css", "text/css; charset=utf-8", ":root"},
	{"/docs/swagger-ui.css", "text/css; charset=utf-8", ".swagger-ui"},
	{"/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8", "/*! For license information please see swagger-ui-bundle.js.LICENSE.txt */"},
	{"/docs/swagger-ui-bundle.js.LICENSE.txt", "text/plain; charset=utf-8", "/*"},
}

func TestTheAPIPage(t *testing.T) {
	d := open(t, &service{})
	const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
	for _, f := range docsFiles {
		a := d.do("GET", f.path, "", "Accept-Encoding", "identity")
		h := a.header
		if a.status != 200 || !strings.HasPrefix(strings.TrimSpace(a.body), f.begins) {
			t.Errorf("%s: HTTP %d, begins with %.80q", f.path, a.status, a.body)
		}
		if h.Get("Content-Type") != f.kind || h.Get("Content-Security-Policy") != policy || h.Get("X-Frame-Options") != "DENY" ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "same-origin" || h.Get("Content-Encoding") != "" ||
			h.Get("Cache-Control") != "private, no-cache" || h.Get("ETag") == "" {
			t.Errorf("%s: %v", f.path, h)
		}
		if again := d.do("GET", f.path, "", "Accept-Encoding", "identity", "If-None-Match", h.Get("ETag")); again.status != 304 || again.body != "" {
			t.Errorf("%s, which the browser has: HTTP %d with %d bytes", f.path, again.status, len(again.body))
		}
		if head := d.do("HEAD", f.path, "", "Accept-Encoding", "identity"); head.status != 200 || head.header.Get("ETag") != h.Get("ETag") {
			t.Errorf("HEAD %s: HTTP %d %v", f.path, head.status, head.header)
		}
		if put := d.do("PUT", f.path, ""); put.status != 405 || put.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("PUT %s: HTTP %d, Allow %q", f.path, put.status, put.header.Get("Allow"))
		}
	}
	// The policy of this page is for this page alone.
	for _, path := range []string{"/login", "/openapi.json", "/docs/", "/docs/index.html"} {
		if a := d.do("GET", path, "", "Accept", html); a.header.Get("Content-Security-Policy") == policy {
			t.Errorf("%s has the policy of /docs", path)
		}
	}
}

// TestTheAPIPageNeedsNothingFromElsewhere: it names files of this server alone, all
// of which are there, and has no script of its own in it.
func TestTheAPIPageNeedsNothingFromElsewhere(t *testing.T) {
	d := open(t, &service{})
	page := d.do("GET", "/docs", "").body
	named := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(page, -1)
	if len(named) < 6 {
		t.Fatalf("found %d names only", len(named))
	}
	for _, n := range named {
		if n[1] == "data:," || n[1] == "/" { // an icon that is none; the UI, which this service is without
			continue
		}
		if a := d.do("GET", n[1], "", "Accept", html); !strings.HasPrefix(n[1], "/") || strings.HasPrefix(n[1], "//") || a.status != 200 {
			t.Errorf("%s: HTTP %d", n[1], a.status)
		}
	}
	if regexp.MustCompile(`<script[^>]*>[^<]|<style| style=| on[a-z]+=`).MatchString(page) {
		t.Errorf("the page has a script or style in it:\n%s", page)
	}
	own := d.do("GET", "/docs/docs.js", "").body + d.do("GET", "/docs/docs.css", "").body
	if strings.Contains(own, "//"+"unpkg") || strings.Contains(own, "http:") || strings.Contains(own, "https:") {
		t.Error("its own files name other servers")
	}
	if !strings.Contains(own, "validatorUrl: null") {
		t.Error("the page would send the document to a validator")
	}
}

func TestTheAPIPageIsSentCompressed(t *testing.T) {
	d := open(t, &service{})
	const path = "/docs/swagger-ui-bundle.js"
	plain := d.do("GET", path, "", "Accept-Encoding", "identity")
	packed := d.do("GET", path, "", "Accept-Encoding", "br;q=1.0, GZIP;q=0.5")
	if packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("ETag") == plain.header.Get("ETag") {
		t.Fatalf("%v", packed.header)
	}
	z, err := gzip.NewReader(bytes.NewReader([]byte(packed.body)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != plain.body {
		t.Errorf("%d bytes unpacked, %d sent plain: %v", len(text), len(plain.body), err)
	}
	for accepted, want := range map[string]string{
		"gzip": "gzip", "deflate, gzip;q=0.001": "gzip", "gzip;q=1": "gzip",
		"": "", "br": "", "gzip;q=0": "", "gzip; q=0.000": "", "notgzip": "",
	} {
		a := d.do("HEAD", path, "", "Accept-Encoding", accepted)
		if got := a.header.Get("Content-Encoding"); got != want || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Accept-Encoding") {
			t.Errorf("Accept-Encoding %q: %q %v", accepted, got, a.header)
		}
	}
}

// TestTheAPIPageIsForWhoIsSignedIn: a browser is sent to the login, and comes back.
func TestTheAPIPageIsForWhoIsSignedIn(t *testing.T) {
	d := open(t, &service{})
	a := d.do("GET", "/docs", "", "Authorization", "", "Accept", html)
	if a.status != 303 || a.header.Get("Location") != "/login?next=%2Fdocs" || d.audit.take() != nil {
		t.Errorf("HTTP %d to %q", a.status, a.header.Get("Location"))
	}
	if a := d.do("GET", "/docs", "", "Authorization", "", "Cookie", d.login(), "Accept", html); a.status != 200 {
		t.Errorf("with a cookie: HTTP %d %s", a.status, a.body)
	}
	for i, f := range docsFiles {
		if i%3 == 0 { // of so many refusals the audit of one service tells one by one
			d = open(t, &service{})
		}
		if a := d.do("GET", f.path, "", "Authorization", ""); a.status != 401 {
			t.Errorf("%s: HTTP %d", f.path, a.status)
		}
		if e := d.audit.take(); len(e) != 1 || e[0].Method != "GET "+f.path {
			t.Errorf("%s: audit %+v", f.path, e)
		}
	}
}

func TestTheAPIPageIsLimited(t *testing.T) {
	d := open(t, &service{}, func(o *gateway.Options) {
		o.Limiter = access.NewLimiter(access.Settings{Principal: access.Limits{Read: 0.1}})
	})
	if a := d.do("GET", "/docs", ""); a.status != 200 {
		t.Fatalf("HTTP %d", a.status)
	}
	if a := d.do("GET", "/docs/docs.js", ""); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("HTTP %d %v", a.status, a.header)
	}
}
