package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
)

// The web UI is one page, which finds out from its path what to show, and calls
// REST and the WebSocket as any page of this server may. It is served to whoever is
// signed in, like all else here.

// uiPolicy is the Content-Security-Policy of the page. Nothing but its files may
// run or style it, and no script may write markup: what hosts and commands say
// comes in as text alone.
const uiPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// uiRules are the paths of the page and its files, as the audit names them.
var uiRules = []struct {
	rule string
	path *regexp.Regexp
}{
	{"/", regexp.MustCompile(`^/$`)},
	{"/commands/{command_id}", regexp.MustCompile(`^/commands/[^/]+$`)},
	{"/sessions", regexp.MustCompile(`^/sessions$`)},
	{"/sessions/{session}", regexp.MustCompile(`^/sessions/[^/]+$`)},
	{"/sessions/{session}/replay", regexp.MustCompile(`^/sessions/[^/]+/replay$`)},
	{"/tasks", regexp.MustCompile(`^/tasks$`)},
	{"/tasks/{task_id}", regexp.MustCompile(`^/tasks/[^/]+$`)},
	{"/approvals", regexp.MustCompile(`^/approvals$`)},
	{"/hosts", regexp.MustCompile(`^/hosts$`)},
	{"/audit", regexp.MustCompile(`^/audit$`)},
	{assetRule, regexp.MustCompile(`^/assets/[^/]+$`)},
}

const assetRule = "/assets/{file}"

// uiRule gives the rule that a path is by; empty where it is none of the UI's.
func uiRule(urlPath string) string {
	for _, r := range uiRules {
		if r.path.MatchString(urlPath) {
			return r.rule
		}
	}
	return ""
}

// asksForUI reports whether a browser asks for one of the pages.
func asksForUI(r *http.Request) bool {
	rule := uiRule(r.URL.Path)
	return rule != "" && rule != assetRule && wantsPage(r)
}

// uiTypes are the types of the files, by the ends of their names: those of the
// system may be anything.
var uiTypes = map[string]string{
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".txt":   "text/plain; charset=utf-8",
	".woff2": "font/woff2",
}

// uiFile is one file of the UI. Its fields do not change.
type uiFile struct {
	contentType string
	text        []byte
	tag         string
	gzip        func() []byte // the text compressed, once somebody wants it so
}

// readUI reads index.html and assets/; of no files it gives none.
func readUI(files fs.FS) (map[string]uiFile, error) {
	ui := make(map[string]uiFile)
	if files == nil {
		return ui, nil
	}
	read := func(urlPath, name string) error {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("the web UI: %w", err)
		}
		contentType, ok := uiTypes[path.Ext(name)]
		if !ok {
			return fmt.Errorf("the web UI: %s is of no type that is known here", name)
		}
		sum := sha256.Sum256(text)
		ui[urlPath] = uiFile{contentType, text, base64.RawURLEncoding.EncodeToString(sum[:12]), sync.OnceValue(func() []byte { return pack(text) })}
		return nil
	}
	if err := read("/", "index.html"); err != nil {
		return nil, err
	}
	assets, err := fs.Glob(files, "assets/*")
	if err != nil {
		return nil, fmt.Errorf("the web UI: %w", err)
	}
	for _, name := range assets {
		if err := read("/"+name, name); err != nil {
			return nil, err
		}
	}
	return ui, nil
}

func pack(text []byte) []byte {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // the level is one of its own
	_, _ = z.Write(text)                                       // a buffer takes all
	_ = z.Close()
	return packed.Bytes()
}

// serveUI answers for the pages and files of the UI, and reports whether it did.
// Where a browser asks for a page that nobody has, the UI says so.
func (g *Gateway) serveUI(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || len(g.ui) == 0 {
		return false
	}
	h := w.Header()
	if file, ok := g.ui[r.URL.Path]; ok && r.URL.Path != "/" {
		// The name says what is in it, for ever.
		h.Set("Cache-Control", "private, max-age=31536000, immutable")
		file.serve(w, r)
		return true
	}
	there := asksForUI(r)
	if !wantsPage(r) || !there && g.answersElse(r.URL.Path) {
		return false
	}
	page := g.ui["/"]
	h.Set("Content-Security-Policy", uiPolicy)
	h.Set("X-Frame-Options", "DENY")
	// The login and the logout need an Origin (writePage).
	h.Set("Referrer-Policy", "same-origin")
	if there {
		// Looked up anew each time: it names the assets of its version.
		h.Set("Cache-Control", "private, no-cache")
		page.serve(w, r)
		return true
	}
	h.Set("Content-Type", page.contentType)
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write(page.text) // a browser that went away
	return true
}

// answersElse reports whether something else than a page is behind a path, or would
// be if it were spelled right.
func (g *Gateway) answersElse(urlPath string) bool {
	for _, programs := range []string{"/v1/", "/api/", "/assets/"} {
		if strings.HasPrefix(urlPath, programs) {
			return true
		}
	}
	return len(g.allowed(urlPath)) > 0
}

func (f uiFile) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Add("Vary", "Accept-Encoding")
	text, tag := f.text, f.tag
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		text, tag = f.gzip(), tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}
