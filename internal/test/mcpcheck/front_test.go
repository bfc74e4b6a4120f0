package mcpcheck

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"

	"github.com/telexec/telexec/internal/secret"
)

// front is the reverse proxy between the suite and telexec-mcp. It keeps nothing,
// and serves any number of requests at a time.
type front struct {
	token    secret.Text
	fixtures fixtures
}

// start serves it before a telexec-mcp until the end of the test, and gives the
// address.
func (f *front) start(t *testing.T, adapter string) string {
	t.Helper()
	target, err := url.Parse(adapter)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	srv := httptest.NewServer(&httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // events go on when they come
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			// Host stays what the client sent: it is checked by the server.
			r.Out.Header.Set("Authorization", "Bearer "+f.token.Reveal())
			if r.Out.Body != nil {
				f.translate(t, r.Out)
			}
		},
	})
	t.Cleanup(func() { srv.Close(); transport.CloseIdleConnections() })
	return srv.URL + target.Path
}

// translate changes a request for a fixture into one for what we have in its
// place. All that is not about its name stays as it was sent, also what is wrong
// with it: a header that names something else than the body still does.
func (f *front) translate(t *testing.T, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("the suite's request: %v", err)
	}
	var message, params map[string]json.RawMessage
	if json.Unmarshal(body, &message) == nil && json.Unmarshal(message["params"], &params) == nil {
		was, is := f.fixtures.replace(text(message["method"]), params)
		if was != is {
			message["params"] = raw(params)
			body = raw(message)
		}
		if was != is && r.Header.Get("Mcp-Name") == was {
			r.Header.Set("Mcp-Name", is)
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.Header.Set("Content-Length", strconv.Itoa(len(body)))
}

// text is a JSON string; empty for what is none.
func text(m json.RawMessage) (s string) {
	_ = json.Unmarshal(m, &s)
	return s
}

// raw is the JSON of plain data.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps and strings only
	}
	return b
}
