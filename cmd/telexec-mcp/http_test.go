package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/telexec/telexec/internal/test/testenv"
	"github.com/telexec/telexec/pkg/client"
)

// served starts the program as an HTTP server and gives its URL, which ends in
// /mcp. The user's own token in the environment must not be used for others.
func served(t *testing.T, e *testenv.Env, args ...string) (*process, string) {
	t.Helper()
	p := start(t, forService(e), append([]string{"--http", "0"}, args...)...)
	return p, p.stderr.after(t, "telexec-mcp: serving MCP on ")
}

// caller is an HTTP client that shows a token.
type caller struct {
	token string
	http.Transport
}

func (c *caller) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+c.token)
	return c.Transport.RoundTrip(r)
}

// over gives the transport of a caller.
func over(t *testing.T, url, token string) *mcp.StreamableClientTransport {
	c := &caller{token: token}
	t.Cleanup(c.CloseIdleConnections)
	return &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: c}, MaxRetries: -1}
}

// answer is a response with its body.
type answer struct {
	*http.Response
	text string
}

// ask sends a request with these headers (name, value, …) over a connection of
// its own.
func ask(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{resp, string(b)}
}

const listTools = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`

func TestHTTP(t *testing.T) {
	e := testenv.Start(t)
	_, url := served(t, e, "--http-allow-origin", "https://app.example.com")
	base := strings.TrimSuffix(url, "/mcp")
	bearer := "Bearer " + e.Token.Reveal()

	t.Run("a client", func(t *testing.T) {
		session := connect(t, over(t, url, e.Token.Reveal()))
		r, err := session.CallTool(t.Context(), &mcp.CallToolParams{
			Name: "execute_command", Arguments: map[string]any{"host": e.Host, "command": "echo hello", "wait_seconds": 30},
		})
		if err != nil || r.IsError || !strings.Contains(text(r), "hello") {
			t.Errorf("%v, %v", r, err)
		}
	})
	t.Run("a client of an older protocol", func(t *testing.T) {
		initialize, _, _ := strings.Cut(hello, "\n")
		if a := ask(t, "POST", url, initialize, "Authorization", bearer); a.StatusCode != 200 || !strings.Contains(a.text, `"protocolVersion":"2025-06-18"`) {
			t.Errorf("%s: %s", a.Status, a.text)
		}
		a := ask(t, "POST", url, callLine(2, "list_hosts", "{}"), "Authorization", bearer, "Mcp-Protocol-Version", "2025-06-18")
		if a.StatusCode != 200 || !strings.Contains(a.text, e.Host) {
			t.Errorf("%s: %s", a.Status, a.text)
		}
	})
	// Each caller is who he says, also where they call at the same time.
	t.Run("callers with their own tokens", func(t *testing.T) {
		var wg sync.WaitGroup
		for token, want := range map[string]int{e.Token.Reveal(): 200, "wrong": 401} {
			wg.Go(func() {
				for range 20 {
					if a := ask(t, "POST", url, callLine(1, "list_hosts", "{}"), "Authorization", "Bearer "+token); a.StatusCode != want {
						t.Errorf("%s, want %d: %s", a.Status, want, a.text)
					}
				}
			})
		}
		wg.Wait()
	})
	for _, tt := range []struct {
		name      string
		method    string
		url, body string
		headers   []string
		code      int
		text      string
		want      []string // headers
	}{
		{"no token", "POST", url, listTools, nil, 401, "a telexec token is needed", []string{"WWW-Authenticate", "Bearer"}},
		{"no bearer", "POST", url, listTools, []string{"Authorization", "Basic eDp5"}, 401, "a telexec token is needed", []string{"WWW-Authenticate", "Bearer"}},
		{"a wrong token", "POST", url, listTools, []string{"Authorization", "Bearer wrong"}, 401, "does not know this token", []string{"WWW-Authenticate", `Bearer error="invalid_token"`}},
		{"the right token", "POST", url, listTools, []string{"Authorization", bearer}, 200, "list_hosts", nil},
		{"the scheme in lower case", "POST", url, listTools, []string{"Authorization", "bearer " + e.Token.Reveal()}, 200, "list_hosts", nil},

		{"a web page", "POST", url, listTools, []string{"Authorization", bearer, "Origin", "https://evil.example.com"}, 403, "--http-allow-origin", []string{"Access-Control-Allow-Origin", ""}},
		{"a web page of nowhere", "POST", url, listTools, []string{"Authorization", bearer, "Origin", "null"}, 403, "--http-allow-origin", nil},
		{"an origin that begins like an allowed one", "POST", url, listTools, []string{"Authorization", bearer, "Origin", "https://app.example.com.evil.org"}, 403, "", nil},
		{"an allowed host with another scheme", "POST", url, listTools, []string{"Authorization", bearer, "Origin", "http://app.example.com"}, 403, "", nil},
		{"an allowed origin", "POST", url, listTools, []string{"Authorization", bearer, "Origin", "https://app.example.com"}, 200, "list_hosts",
			[]string{"Access-Control-Allow-Origin", "https://app.example.com", "Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate, Retry-After", "Vary", "Origin"}},
		{"an allowed origin without a token", "POST", url, listTools, []string{"Origin", "https://app.example.com"}, 401, "", []string{"Access-Control-Allow-Origin", "https://app.example.com"}},
		{"the server's own origin", "POST", url, listTools, []string{"Authorization", bearer, "Origin", base}, 200, "", nil},
		{"the server's own address over TLS", "POST", url, listTools, []string{"Authorization", bearer, "Origin", strings.Replace(base, "http:", "https:", 1)}, 403, "", nil},
		{"a name that was bent to loopback", "POST", url, listTools, []string{"Authorization", bearer, "Host", "evil.example.com"}, 403, "invalid Host header", nil},
		{"its web page", "POST", url, listTools, []string{"Authorization", bearer, "Host", "evil.example.com", "Origin", "http://evil.example.com"}, 403, "--http-allow-origin", nil},

		{"a preflight", "OPTIONS", url, "", []string{"Origin", "https://app.example.com", "Access-Control-Request-Method", "POST"}, 204, "", []string{
			"Access-Control-Allow-Origin", "https://app.example.com", "Access-Control-Allow-Methods", "POST, GET, DELETE", "Access-Control-Max-Age", "600",
			"Access-Control-Allow-Headers", "Authorization, Content-Type, Accept, Last-Event-ID, Mcp-Protocol-Version, Mcp-Session-Id, Mcp-Method, Mcp-Name"}},
		{"a preflight from elsewhere", "OPTIONS", url, "", []string{"Origin", "https://evil.example.com", "Access-Control-Request-Method", "POST"}, 403, "", []string{"Access-Control-Allow-Origin", ""}},
		{"OPTIONS that is no preflight", "OPTIONS", url, "", []string{"Origin", "https://app.example.com"}, 401, "", nil},

		{"health", "GET", base + "/healthz", "", nil, 200, "ok\n", nil},
		{"health for a web page", "GET", base + "/healthz", "", []string{"Origin", "https://evil.example.com"}, 403, "", nil},
		{"another path", "GET", base + "/", "", nil, 404, "", nil},
		{"a path below", "POST", url + "/x", listTools, []string{"Authorization", bearer}, 404, "", nil},
		{"GET, which a stateless server does not have", "GET", url, "", []string{"Authorization", bearer}, 405, "", []string{"Allow", "POST"}},
		{"a small batch", "POST", url, "[" + listTools + "]", []string{"Authorization", bearer}, 200, "list_hosts", nil},
		{"a large batch", "POST", url, " [" + strings.Repeat(listTools+",", 16) + listTools + "]", []string{"Authorization", bearer}, 400, "a batch may hold 16", nil},
		{"half a batch", "POST", url, "[" + listTools, []string{"Authorization", bearer}, 400, "", nil},
		{"too much", "POST", url, strings.Repeat(" ", maxBody+1), []string{"Authorization", bearer}, 413, fmt.Sprint(maxBody), nil},
		{"too much about a task", "POST", url, strings.Repeat(" ", maxBody+1), []string{"Authorization", bearer, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tasks/get"}, 413, "a request may have", nil},
		{"no JSON about a task", "POST", url, "hello", []string{"Authorization", bearer, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tasks/get"}, 400, "malformed", nil},
		{"no JSON", "POST", url, "hello", []string{"Authorization", bearer}, 400, "malformed", nil},
		{"too many headers", "POST", url, listTools, []string{"X", strings.Repeat("x", 2*maxHeader)}, 431, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := ask(t, tt.method, tt.url, tt.body, tt.headers...)
			if a.StatusCode != tt.code || !strings.Contains(a.text, tt.text) {
				t.Errorf("%s, want %d %q: %s", a.Status, tt.code, tt.text, a.text)
			}
			for i := 0; i+1 < len(tt.want); i += 2 {
				if got := a.Header.Get(tt.want[i]); got != tt.want[i+1] {
					t.Errorf("%s: %q, want %q", tt.want[i], got, tt.want[i+1])
				}
			}
		})
	}
	// From protocol 2026-07-28 on the header must name the task that the body does.
	for _, tt := range []struct {
		name, version, method, header, params string
		refused                               bool
	}{
		{"the same", "2026-07-28", "tasks/get", "A", `{"taskId":"A"}`, false},
		{"another", "2026-07-28", "tasks/get", "B", `{"taskId":"A"}`, true},
		{"another, cancelled", "2026-07-28", "tasks/cancel", "B", `{"taskId":"A"}`, true},
		{"none", "2026-07-28", "tasks/update", "", `{"taskId":"A"}`, true},
		{"a field that looks like it", "2026-07-28", "tasks/get", "B", `{"taskId":"A","TASKID":"B"}`, true},
		{"no task in the body", "2026-07-28", "tasks/get", "A", `{}`, false},
		{"no object", "2026-07-28", "tasks/get", "A", `[1]`, false},
		{"an older protocol", "2025-11-25", "tasks/get", "", `{"taskId":"A"}`, false},
		{"another method", "2026-07-28", "tasks/list", "", `{"taskId":"A"}`, false},
	} {
		t.Run("Mcp-Name: "+tt.name, func(t *testing.T) {
			body := fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":%q,"params":%s}`, tt.method, tt.params)
			a := ask(t, "POST", url, body, "Authorization", bearer, "Mcp-Protocol-Version", tt.version, "Mcp-Method", tt.method, "Mcp-Name", tt.header)
			var doc struct {
				ID    int
				Error struct {
					Code    int
					Message string
				}
			}
			_ = json.Unmarshal([]byte(a.text), &doc)
			ours := strings.Contains(doc.Error.Message, "Mcp-Name")
			if ours != tt.refused || tt.refused && (a.StatusCode != 400 || doc.ID != 7 || doc.Error.Code != -32020) {
				t.Errorf("%s: %s", a.Status, a.text)
			}
		})
	}
}

// A service that is away is no fault of the token.
func TestHTTPWithoutService(t *testing.T) {
	e := testenv.Start(t, testenv.WithoutHosts())
	p, url := served(t, e)
	bearer := "Bearer " + e.Token.Reveal()
	list := func() answer { return ask(t, "POST", url, listTools, "Authorization", bearer) }
	if a := list(); a.StatusCode != 200 {
		t.Fatalf("%s: %s", a.Status, a.text)
	}
	e.Stop()
	a := list()
	if a.StatusCode != 503 || a.Header.Get("Retry-After") != "5" || !strings.Contains(a.text, "cannot be reached") || strings.Count(a.text, "\n") != 1 {
		t.Errorf("%s: %s", a.Status, a.text)
	}
	if strings.Contains(a.text, e.GRPCAddr) {
		t.Errorf("where the service is is told to whoever asks: %s", a.text)
	}
	if a := ask(t, "GET", strings.TrimSuffix(url, "/mcp")+"/healthz", ""); a.StatusCode != 200 {
		t.Errorf("health: %s", a.Status)
	}
	if !strings.Contains(p.stderr.String(), "a caller cannot be verified") {
		t.Errorf("not logged: %q", p.stderr)
	}
	e.Restart()
	for deadline := time.Now().Add(patience); ; {
		if a := list(); a.StatusCode == 200 {
			break
		} else if a.StatusCode != 503 || time.Now().After(deadline) {
			t.Fatalf("%s: %s", a.Status, a.text)
		}
	}
}

// A stop takes no new calls and lets those under way end.
func TestHTTPStop(t *testing.T) {
	e := testenv.Start(t)
	for _, tt := range []struct {
		name string
		wait int // seconds
		cut  bool
	}{{"with time for the answer", 2, false}, {"without", 50, true}} {
		t.Run(tt.name, func(t *testing.T) {
			p, url := served(t, e)
			session := connect(t, over(t, url, e.Token.Reveal()))
			type result struct {
				*mcp.CallToolResult
				err error
			}
			got := make(chan result, 1)
			go func() {
				r, err := session.CallTool(t.Context(), &mcp.CallToolParams{
					Name: "execute_command", Arguments: map[string]any{"host": e.Host, "command": "sleep 600", "wait_seconds": tt.wait},
				})
				got <- result{r, err}
			}()
			cmd := running(t, e)
			p.stop()
			if code := p.exit(t); code != 0 {
				t.Errorf("code %d", code)
			}
			if r := <-got; (r.err != nil) != tt.cut {
				t.Errorf("the call: %v, %v", r.CallToolResult, r.err)
			}
			if resp, err := http.Get(url); err == nil {
				resp.Body.Close()
				t.Error("it still listens")
			}
			goesOn(t, e, cmd)
		})
	}
}

func TestHTTPS(t *testing.T) {
	e := testenv.Start(t, testenv.WithoutHosts())
	certFile, keyFile, roots := certificate(t)
	// With TLS also other machines may call, without further words.
	_, url := served(t, e, "--http", "0.0.0.0:0", "--tls-cert", certFile, "--tls-key", keyFile)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "https://["), "]")
	if !strings.HasPrefix(url, "https://") {
		t.Fatal(url)
	}
	url = "https://127.0.0.1" + port
	transport := over(t, url, e.Token.Reveal())
	transport.HTTPClient.Transport.(*caller).TLSClientConfig = &tls.Config{RootCAs: roots}
	session := connect(t, transport)
	if tools, err := session.ListTools(t.Context(), nil); err != nil || len(tools.Tools) == 0 {
		t.Errorf("tools %v, %v", tools, err)
	}
}

func TestListenAddr(t *testing.T) {
	for _, tt := range []struct {
		o    httpOptions
		want string
	}{
		{httpOptions{Addr: "7090"}, "127.0.0.1:7090"},
		{httpOptions{Addr: ":7090"}, "127.0.0.1:7090"},
		{httpOptions{Addr: "127.0.0.5:7090"}, "127.0.0.5:7090"},
		{httpOptions{Addr: "localhost:7090"}, "localhost:7090"},
		{httpOptions{Addr: "[::1]:7090"}, "[::1]:7090"},
		{httpOptions{Addr: "0.0.0.0:7090", Insecure: true}, "0.0.0.0:7090"},
		{httpOptions{Addr: "[::]:7090", Cert: "c", Key: "k"}, "[::]:7090"},
	} {
		if got, err := listenAddr(tt.o); got != tt.want || err != nil {
			t.Errorf("%+v: %q, %v", tt.o, got, err)
		}
	}
}

// What every request costs, in a call of the service, to know whose token it is.
func BenchmarkVerify(b *testing.B) {
	e := testenv.Start(b, testenv.WithoutHosts())
	c, err := client.Dial(client.Options{Server: e.GRPCAddr})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	d := &door{service: c}
	for b.Loop() {
		if info, err := d.verify(b.Context(), client.Token(e.Token.Reveal())); err != nil || info.UserID != "admin" {
			b.Fatalf("%v, %v", info, err)
		}
	}
}
