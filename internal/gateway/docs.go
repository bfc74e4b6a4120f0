package gateway

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

// The API page is Swagger UI over /openapi.json. Its files are copies of those of
// the npm package (tools/apipage.sh), so that a browser fetches nothing from
// elsewhere. It calls as any page of this server does: with the cookie of the
// browser, or with a token that somebody has entered into it.

//go:embed pages/docs.html pages/docs.js pages/docs.css pages/swagger-ui
var docsFiles embed.FS

// docsPolicy is the Content-Security-Policy of the API page. Swagger UI sets style
// attributes and draws with data: images; scripts are files of this server alone.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"

// docsFile is one file of the API page. Its fields do not change.
type docsFile struct {
	contentType string
	text        []byte
	packed      bool // text is compressed by gzip
	tag         string
}

// docs has the files of the API page, by path.
var docs = map[string]docsFile{
	"/docs":                                  readDocs("pages/docs.html", "text/html; charset=utf-8"),
	"/docs/docs.js":                          readDocs("pages/docs.js", "text/javascript; charset=utf-8"),
	"/docs/docs.css":                         readDocs("pages/docs.css", "text/css; charset=utf-8"),
	"/docs/swagger-ui.css":                   readDocs("pages/swagger-ui/swagger-ui.css.gz", "text/css; charset=utf-8"),
	"/docs/swagger-ui-bundle.js":             readDocs("pages/swagger-ui/swagger-ui-bundle.js.gz", "text/javascript; charset=utf-8"),
	"/docs/swagger-ui-bundle.js.LICENSE.txt": readDocs("pages/swagger-ui/swagger-ui-bundle.js.LICENSE.txt", "text/plain; charset=utf-8"),
}

func readDocs(name, contentType string) docsFile {
	text, err := docsFiles.ReadFile(name)
	if err != nil {
		panic("gateway: " + err.Error()) // a file that is embedded above
	}
	sum := sha256.Sum256(text)
	return docsFile{contentType, text, path.Ext(name) == ".gz", base64.RawURLEncoding.EncodeToString(sum[:12])}
}

// readsDocs gives the file of the API page that a request asks for.
func readsDocs(r *http.Request) (docsFile, bool) {
	file, ok := docs[r.URL.Path]
	return file, ok && reads(r, r.URL.Path)
}

// ServeHTTP answers with the file, or with 304 where the browser has it. It may be
// kept, but is asked for anew each time, so that a page and its script are always
// of one version, and nobody sees them who is not signed in.
func (f docsFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Content-Security-Policy", docsPolicy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	text, tag := f.text, f.tag
	if f.packed {
		h.Add("Vary", "Accept-Encoding")
		if takesGzip(r) {
			h.Set("Content-Encoding", "gzip")
			tag += "-gzip"
		} else if plain, err := unpack(text); err == nil { // it is, a test unpacks all
			text = plain
		}
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// takesGzip reports whether an answer may be compressed (RFC 9110 §12.5.3).
func takesGzip(r *http.Request) bool {
	for _, accepted := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(accepted, ",") {
			coding, weight, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				q := strings.TrimRight(strings.ToLower(strings.ReplaceAll(weight, " ", "")), "0")
				return q != "q=" && q != "q=0." && q != "q=."
			}
		}
	}
	return false
}
