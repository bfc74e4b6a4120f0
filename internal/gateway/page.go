package gateway

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

// The pages for people. They need no script and nothing from elsewhere, and say
// so to the browser, which then runs nothing that somebody has smuggled in.
var (
	//go:embed pages/style.css
	style string
	//go:embed pages/login.html
	loginHTML string

	styleTag  = template.FuncMap{"style": func() template.HTML { return template.HTML("<style>" + style + "</style>") }}
	loginPage = template.Must(template.New("login").Funcs(styleTag).Parse(loginHTML))

	// contentPolicy is the Content-Security-Policy of all pages (CSP level 3).
	contentPolicy = "default-src 'none'; style-src 'sha256-" + sumOf(style) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// writePage answers with a page.
func writePage(w http.ResponseWriter, status int, page *template.Template, facts any) {
	var text bytes.Buffer
	if err := page.Execute(&text, facts); err != nil { // a page that its own facts do not fit
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer: with that a browser tells no Origin when a form is sent, and
	// the doorman would refuse it.
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // a browser that went away
}

// wantsPage reports whether somebody reads with a browser: RFC 9110 §12.5.1.
func wantsPage(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	for _, accepted := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accepted, ",") {
			kind, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(kind), "text/html") {
				return true
			}
		}
	}
	return false
}
