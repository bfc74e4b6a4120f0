package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nowhere is an address on which nothing listens: port 1 of loopback.
const nowhere = "127.0.0.1:1"

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// process is one run of the program, over real pipes.
type process struct {
	stdin  *os.File // to write to
	stdout *os.File // to read from
	stderr *lines
	stop   context.CancelFunc // as a signal does
	code   chan int           // gets the exit code
}

// start runs the program. What is left of it at the end of the test is stopped.
func start(t *testing.T, env map[string]string, args ...string) *process {
	t.Helper()
	inR, inW := pipes(t)
	outR, outW := pipes(t)
	ctx, stop := context.WithCancel(t.Context())
	p := &process{stdin: inW, stdout: outR, stderr: newLines(), stop: stop, code: make(chan int, 1)}
	var wg sync.WaitGroup
	wg.Go(func() {
		p.code <- run(ctx, Env{Stdin: inR, Stdout: outW, Stderr: p.stderr, Getenv: func(name string) string { return env[name] }}, args)
		outW.Close()
	})
	t.Cleanup(func() {
		stop()
		inW.Close()
		outR.Close()
		wg.Wait()
		if t.Failed() {
			t.Logf("standard error:\n%s", p.stderr)
		}
	})
	return p
}

func pipes(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// exit waits for the end of the program.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case code := <-p.code:
		return code
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return 0
	}
}

// lines is a writer whose content can be waited for.
type lines struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{} // closed, and made anew, by every write
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// after waits for prefix and gives what follows it on its line.
func (l *lines) after(t *testing.T, prefix string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		text, changed := l.b.String(), l.changed
		l.mu.Unlock()
		if _, rest, ok := strings.Cut(text, prefix); ok {
			if line, _, ok := strings.Cut(rest, "\n"); ok {
				return line
			}
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no %q in %q", prefix, text)
		}
	}
}

// forService is the environment of a user of e.
func forService(e *testenv.Env) map[string]string {
	return map[string]string{"TELEXEC_SERVER": e.GRPCAddr, "TELEXEC_TOKEN": e.Token.Reveal()}
}

// running waits until a command of the service runs, and gives it.
func running(t *testing.T, e *testenv.Env) *telexecv1.Command {
	t.Helper()
	timeout := time.After(patience)
	for tick := time.Tick(20 * time.Millisecond); ; {
		list, err := e.Commands().ListCommands(t.Context(), &telexecv1.ListCommandsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if c := list.GetCommands(); len(c) > 0 && c[0].GetState() == telexecv1.CommandState_COMMAND_STATE_RUNNING {
			return c[0]
		}
		select {
		case <-tick:
		case <-timeout:
			t.Fatal("no command runs")
		}
	}
}

// goesOn fails the test unless the command still runs, and cancels it.
func goesOn(t *testing.T, e *testenv.Env, cmd *telexecv1.Command) {
	t.Helper()
	status, err := e.Commands().GetStatus(t.Context(), &telexecv1.GetStatusRequest{CommandId: cmd.GetId()})
	if err != nil || status.GetCommand().GetState() != telexecv1.CommandState_COMMAND_STATE_RUNNING {
		t.Errorf("the command: %v, %v", status, err)
	}
	if _, err := e.Commands().Cancel(t.Context(), &telexecv1.CancelRequest{CommandId: cmd.GetId()}); err != nil {
		t.Error(err)
	}
}

// connect gives a session of an SDK client.
func connect(t *testing.T, transport mcp.Transport) *mcp.ClientSession {
	t.Helper()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// text is all the text of a result.
func text(r *mcp.CallToolResult) string {
	var b strings.Builder
	for _, c := range r.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			b.WriteString(t.Text + "\n")
		}
	}
	return b.String()
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   string
		code   int
		stdout string // a part
		stderr string // a part
	}{
		{"--help", 0, `"mcpServers": {`, ""},
		{"-h", 0, "Usage: telexec-mcp [flags]", ""},
		{"--version", 0, "telexec-mcp ", ""},
		{"", 0, "", ""}, // its input ends at once
		{"--token-file " + file, 0, "", ""},
		{"--token abc --toolsets observe,hosts --read-only --host-allow web*,db1 --host-allow x?", 0, "", ""},
		{"--nope", 2, "", "telexec-mcp: unknown flag --nope\n  See telexec-mcp --help\n"},
		{"serve", 2, "", "unexpected argument serve"},
		{"--log-level loud", 2, "", "--log-level"},
		{"--toolsets observe,nothing", 2, "", "nothing"},
		{"--toolsets=", 2, "", "need a value"}, // a variable that is not set must not open everything
		{"--host-allow=", 2, "", "need a value"},
		{"--toolsets control --read-only", 2, "", "offers nothing"},
		{"--host-allow [", 2, "", "["},
		{"--server ftp://x", 2, "", "unknown scheme"},
		{"--server example.com:1", 2, "", "--insecure"},
		{"--ca-file /does/not/exist", 2, "", "CA file"},
		{"--token-file /does/not/exist", 1, "", "cannot read the token file"},
		{"--http 0 --token x", 2, "", "every caller shows his own token"},
		{"--http 0 --token-file x", 2, "", "every caller shows his own token"},
		{"--http-insecure", 2, "", "need --http"},
		{"--http-allow-origin https://a", 2, "", "need --http"},
		{"--tls-cert x --tls-key x", 2, "", "need --http"},
		{"--http 0 --tls-cert x", 2, "", "need each other"},
		{"--http 0 --tls-cert x --tls-key x", 1, "", "cannot use --tls-cert and --tls-key"},
		{"--http localhost", 2, "", "cannot serve on"},
		{"--http 1:2:3", 2, "", "cannot serve on"},
		{"--http 127.0.0.1:", 2, "", "cannot serve on"},
		{"--http 0.0.0.0:0", 2, "", "plain text"},
		{"--http [::]:0", 2, "", "--http-insecure"},
		{"--http example.com:80", 2, "", "plain text"},
		{"--http 192.0.2.1:1 --http-insecure", 1, "", "cannot serve"},
		{"--http 0 --http-allow-origin *", 2, "", "is no origin"},
		{"--http 0 --http-allow-origin null", 2, "", "is no origin"},
		{"--http 0 --http-allow-origin https://a.example/", 2, "", "is no origin"},
		{"--http 0 --http-allow-origin https://A.example", 2, "", "lower case"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			env := map[string]string{"TELEXEC_SERVER": nowhere}
			code := run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Getenv: func(name string) string { return env[name] }}, strings.Fields(tt.args))
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("code %d, want %d\nstdout: %s\nstderr: %s", code, tt.code, stdout.String(), stderr.String())
			}
			if tt.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr: %s", stderr.String())
			}
		})
	}
}

// Nobody reads the help or the version to its end.
func TestHelpIntoNothing(t *testing.T) {
	for _, arg := range []string{"--help", "--version"} {
		r, w := pipes(t)
		r.Close()
		var stderr bytes.Buffer
		if code := run(t.Context(), Env{Stdout: w, Stderr: &stderr, Getenv: os.Getenv}, []string{arg}); code != 1 || stderr.Len() == 0 {
			t.Errorf("%s: code %d, %q", arg, code, stderr.String())
		}
	}
}

// The token of this user's own service is found without a word.
func TestTokenOfThisUser(t *testing.T) {
	e := testenv.Start(t, testenv.WithoutHosts())
	state := t.TempDir()
	if err := os.Symlink(e.DataDir, filepath.Join(state, "telexec")); err != nil {
		t.Fatal(err)
	}
	p := start(t, map[string]string{"XDG_STATE_HOME": state}, "--server", e.GRPCAddr)
	session := connect(t, &mcp.IOTransport{Reader: p.stdout, Writer: p.stdin})
	r, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "list_hosts"})
	if err != nil || r.IsError {
		t.Errorf("%v, %v", r, err)
	}
}

// A token that cannot be read is told: without it every call would be refused,
// and nobody would know why.
func TestTokenThatCannotBeRead(t *testing.T) {
	state := t.TempDir()
	if err := os.MkdirAll(filepath.Join(state, "telexec", "admin.token"), 0o700); err != nil { // no file: root cannot read it either
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	env := map[string]string{"XDG_STATE_HOME": state}
	code := run(t.Context(), Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr, Getenv: func(name string) string { return env[name] }}, nil)
	if code != 0 || !strings.Contains(stderr.String(), "admin.token") {
		t.Errorf("code %d, %q", code, stderr.String())
	}
}

// certificate writes a certificate for 127.0.0.1 and its key.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil) // of the standard library's own, for tests
	defer s.Close()
	cert := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return certFile, keyFile, roots
}
