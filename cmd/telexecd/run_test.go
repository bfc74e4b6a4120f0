package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/api"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/telemetry"
)

// asProgram in the environment makes the test binary telexecd itself.
const asProgram = "TELEXECD_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// output is where a program under test writes, line by line.
type output struct {
	mu    sync.Mutex
	b     bytes.Buffer
	more  chan struct{} // closed by the next write; nil where nobody waits
	lines chan string   // each complete line of standard output; 16 are more than there are
}

func newOutput() *output { return &output{lines: make(chan string, 16)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if strings.HasSuffix(string(p), "\n") {
		select {
		case o.lines <- string(p):
		default:
		}
	}
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.b.Write(p)
}

// await waits until a text was written behind the first n bytes, and gives how many
// bytes there are then.
func (o *output) await(t *testing.T, n int, text string) int {
	t.Helper()
	tooLong := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		if o.more == nil {
			o.more = make(chan struct{})
		}
		all, more := o.b.String(), o.more
		o.mu.Unlock()
		if strings.Contains(all[n:], text) {
			return len(all)
		}
		select {
		case <-more:
		case <-tooLong:
			t.Fatalf("no %q in %s", text, all[n:])
		}
	}
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// settings is an environment in which nothing of this machine counts.
func settings(home string, pairs ...string) func(string) string {
	env := map[string]string{"HOME": home}
	for i := 0; i < len(pairs); i += 2 {
		env[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return env[name] }
}

// service is a run of the program that got ready.
type service struct {
	grpc, http, data string
	out, log         *output
	hangups          chan os.Signal
	stop             func() error
}

func start(t *testing.T, getenv func(string) string, args ...string) *service {
	t.Helper()
	s := &service{out: newOutput(), log: newOutput(), hangups: make(chan os.Signal, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, env{Stdout: s.out, Stderr: s.log, Getenv: getenv, Hangups: s.hangups}, args) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case line := <-s.out.lines:
		for _, word := range strings.Fields(line) {
			switch key, value, _ := strings.Cut(word, "="); key {
			case "grpc":
				s.grpc = value
			case "http":
				s.http = value
			case "data":
				s.data = value
			}
		}
		if !strings.HasPrefix(line, "telexecd ready grpc=") || s.http == "" {
			t.Fatalf("said %q", line)
		}
	case err := <-ended:
		ended <- err
		t.Fatalf("ended: %v\n%s", err, s.log)
	}
	return s
}

func TestReadyWithDefaultsElsewhere(t *testing.T) {
	home := t.TempDir()
	s := start(t, settings(home, "TELEXEC_GRPC_ADDR", "127.0.0.1:0", "TELEXEC_LOG_LEVEL", "debug"), "--http-addr", "127.0.0.1:0")
	if want := filepath.Join(home, ".local/state/telexec"); s.data != want {
		t.Errorf("data in %s, want %s", s.data, want)
	}
	info, err := os.Stat(filepath.Join(s.data, "admin.token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + s.http + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("readyz: HTTP %d", resp.StatusCode)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if s.out.String() != "telexecd ready grpc="+s.grpc+" http="+s.http+" data="+s.data+"\n" {
		t.Errorf("standard output: %q", s.out)
	}
	if log := s.log.String(); !strings.Contains(log, `"msg":"draining"`) || !strings.Contains(log, `"msg":"stopped","after":"`) ||
		!strings.Contains(log, `"commands_that_go_on":0,"queued":0}`) {
		t.Errorf("log: %s", s.log)
	}
}

// A signal stops the service in order, but for SIGHUP, which has the policy read
// again, also where it was ignored from the start, as nohup does.
func TestSignals(t *testing.T) {
	for _, c := range []struct {
		name    string
		ignored string // by the shell that starts it
		signals []syscall.Signal
		why     string
	}{
		{"INT", "", []syscall.Signal{syscall.SIGINT}, "interrupt signal received"},
		{"TERM", "", []syscall.Signal{syscall.SIGTERM}, "terminated signal received"},
		{"HUP", "", []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}, "terminated signal received"},
		{"nohup", `trap "" HUP; `, []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}, "terminated signal received"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.ignored+`exec "$0" --grpc-addr 127.0.0.1:0 --http-addr 127.0.0.1:0`, os.Args[0])
			cmd.Env = append(os.Environ(), asProgram+"=1", "HOME="+t.TempDir(), "XDG_STATE_HOME=", "XDG_CONFIG_HOME=")
			log := newOutput()
			cmd.Stderr = log
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(out)
			if line, err := said.ReadString('\n'); err != nil || !strings.HasPrefix(line, "telexecd ready ") {
				t.Fatalf("said %q, %v; log: %s", line, err, log)
			}
			for _, s := range c.signals {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				if s == syscall.SIGHUP {
					log.await(t, 0, `"msg":"the policy was reloaded"`)
				}
			}
			_, _ = io.Copy(io.Discard, said)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v", err)
			}
			if s := log.String(); !strings.Contains(s, `"msg":"draining","why":"`+c.why+`"`) || !strings.Contains(s, `"msg":"stopped"`) {
				t.Errorf("log: %s", s)
			}
		})
	}
}

func TestWhatGoesOnIsTold(t *testing.T) {
	for want, l := range map[string]listed{
		`"level":"INFO","msg":"stopped","after":"2s","commands_that_go_on":2,"queued":1}`: {running: 2, queued: 1},
		`"level":"ERROR","msg":"stopped; what is left cannot be told","after":"2s","err`:  {err: errors.New("gone")},
	} {
		var out bytes.Buffer
		tellStopped(t.Context(), telemetry.NewLogger(&out, slog.LevelInfo, telemetry.FormatJSON), l, 2*time.Second)
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
}

// listed is a list of commands of which only the number counts.
type listed struct {
	running, queued int
	err             error
}

func (l listed) List(_ context.Context, _ access.Caller, f command.Filter) ([]engine.Snapshot, error) {
	if slices.Contains(f.States, command.Running) {
		return make([]engine.Snapshot, l.running), l.err
	}
	return make([]engine.Snapshot, l.queued), l.err
}

// The example is to be copied and started from.
func TestTheExampleStarts(t *testing.T) {
	text, err := os.ReadFile("../../docs/telexec.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	config := filepath.Join(home, "telexec.yaml")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, settings(home), "--config", config, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
}

func TestWhatStopsAStart(t *testing.T) {
	home := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("file", "")
	wide := filepath.Join(home, "wide")
	if err := os.Mkdir(wide, 0o700); err != nil {
		t.Fatal(err)
	}
	token := write("wide/admin.token", strings.Repeat("ab", 32))
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	free := []string{"--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"}
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"unknown flag":   {[]string{"--nonsense"}, 2, []string{"--nonsense", "--help"}},
		"an argument":    {[]string{"serve"}, 2, []string{"serve", "--help"}},
		"bad address":    {[]string{"--grpc-addr", "nowhere"}, 1, []string{"--grpc-addr", "nowhere"}},
		"no such name":   {[]string{"--grpc-addr", "no-such-name.invalid:1"}, 1, []string{"grpc_addr", "no-such-name.invalid"}},
		"port taken":     {[]string{"--grpc-addr", taken.Addr().String(), "--http-addr", "127.0.0.1:0"}, 1, []string{taken.Addr().String(), "in use", "--grpc-addr"}},
		"other taken":    {[]string{"--grpc-addr", "127.0.0.1:0", "--http-addr", taken.Addr().String()}, 1, []string{taken.Addr().String(), "--http-addr"}},
		"open to all":    {[]string{"--grpc-addr", "0.0.0.0:0", "--http-addr", "127.0.0.1:0"}, 1, []string{"grpc_addr", "tls.cert_file", "insecure_listen"}},
		"open unnamed":   {[]string{"--grpc-addr", "127.0.0.1:0", "--http-addr", ":0"}, 1, []string{"http_addr", "insecure_listen"}},
		"no config":      {[]string{"--config", filepath.Join(home, "none.yaml")}, 1, []string{"none.yaml"}},
		"bad config":     {[]string{"--config", write("bad.yaml", "grcp_addr: x\n")}, 1, []string{"bad.yaml", "grcp_addr", "grpc_addr"}},
		"bad host":       {append([]string{"--config", write("host.yaml", "ssh_config: none\nhosts: [{name: a, proxy_jump: a}]\n")}, free...), 1, []string{"a"}},
		"bad TLS":        {append([]string{"--config", write("tls.yaml", "tls: {cert_file: "+file+", key_file: "+file+"}\n")}, free...), 1, []string{"TLS", file}},
		"data is a file": {append([]string{"--data-dir", file}, free...), 1, []string{file, "--data-dir"}},
		"token is open":  {append([]string{"--data-dir", wide}, free...), 1, []string{"admin.token", "0644"}},
		"no database":    {append([]string{"--config", write("db.yaml", "store: {sqlite_file: "+home+"}\n")}, free...), 1, []string{"store cannot be opened"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if !strings.Contains(strings.Join(args, " "), "--data-dir") {
				args = append(args[:len(args):len(args)], "--data-dir", filepath.Join(home, "data"))
			}
			out := newOutput()
			err := run(t.Context(), env{Stdout: out, Stderr: newOutput(), Getenv: settings(home)}, args)
			if err == nil || exitCode(err) != c.code {
				t.Fatalf("exit code %d: %v", exitCode(err), err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			if out.String() != "" {
				t.Errorf("said %q", out)
			}
		})
	}
}

func TestVersionAndHelp(t *testing.T) {
	for args, want := range map[string]string{"--version": "telexecd ", "--help": "--grpc-addr"} {
		out := newOutput()
		if err := run(t.Context(), env{Stdout: out, Stderr: out, Getenv: settings(t.TempDir())}, []string{args}); err != nil || exitCode(err) != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
}

func TestInsecureListenIsForThoseWhoAsk(t *testing.T) {
	home := t.TempDir()
	config := filepath.Join(home, "c.yaml")
	if err := os.WriteFile(config, []byte("insecure_listen: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, settings(home), "--config", config, "--grpc-addr", "0.0.0.0:0", "--http-addr", "127.0.0.1:0")
}

// certificate writes a self-signed certificate for 127.0.0.1.
func certificate(t *testing.T, dir string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600)); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

func TestTLSOnBothPorts(t *testing.T) {
	home := t.TempDir()
	cert, key, pool := certificate(t, home)
	config := filepath.Join(home, "c.yaml")
	if err := os.WriteFile(config, []byte("tls: {cert_file: "+cert+", key_file: "+key+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, settings(home), "--config", config, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	token, err := os.ReadFile(filepath.Join(s.data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))

	conn, err := grpc.NewClient("passthrough:"+s.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	info, err := telexecv1.NewAdminServiceClient(conn).GetServerInfo(
		metadata.AppendToOutgoingContext(t.Context(), "authorization", bearer), &telexecv1.GetServerInfoRequest{})
	if err != nil || info.GetStore() != "sqlite" || info.GetPrincipal() != "admin" {
		t.Errorf("%v, %v", info, err)
	}

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.http+"/v1/server", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", bearer)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || resp.ProtoMajor != 2 || !strings.Contains(string(body), "sqlite") {
		t.Errorf("HTTP/%d %d %s", resp.ProtoMajor, resp.StatusCode, body)
	}
	plain, err := net.Dial("tcp", s.http)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	io.WriteString(plain, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if b, _ := io.ReadAll(plain); !strings.Contains(string(b), "400") {
		t.Errorf("plain text is answered: %q", b)
	}
}

func TestAPartThatFailsStopsAll(t *testing.T) {
	eng, err := engine.New(engine.Options{Journal: failing{}, Limits: engine.Limits{MaxCommands: 1, MaxQueued: 1, QueueTimeout: time.Second, DrainTimeout: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	known := []<-chan struct{}{eng.Ready()}
	if readiness(eng, known)(t.Context()) == nil {
		t.Error("ready before recovery")
	}
	door := func(ctx context.Context) error { <-ctx.Done(); return nil }
	told, beside := []bool{}, false
	err = runAll(t.Context(), eng, known, door, door, []part{{"something", func(ctx context.Context) error { beside = true; return door(ctx) }}}, func(s bool) error { told = append(told, s); return nil })
	if fault.ReasonOf(err) != fault.ReasonStoreUnavailable || len(told) != 1 || told[0] || !beside {
		t.Errorf("%v, told %v", err, told)
	}
	err = guarded("gRPC", func() error { panic("oh no") })()
	if err == nil || !strings.Contains(err.Error(), "panic in gRPC: oh no") {
		t.Errorf("%v", err)
	}
}

// failing is a store that is gone before anything else is asked of it.
type failing struct{ engine.Journal }

func (failing) List(context.Context, command.Filter) ([]command.Command, error) {
	return nil, fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "gone")
}

func TestEveryKindOfEventHasItsWord(t *testing.T) {
	for k := engine.EventCommand; k <= engine.EventEnded; k++ {
		if _, ok := kinds[k]; !ok {
			t.Errorf("engine's event %d has no word in api", k)
		}
	}
	if len(kinds) != int(api.EventEnded)+1 {
		t.Errorf("%d words", len(kinds))
	}
}
