// Package testenv starts the whole of telexec for a test: real sshd hosts and a
// real telexecd in a process of its own, on free ports of loopback.
//
//	env := testenv.Start(t)
//	r, err := env.Commands().Execute(t.Context(), &telexecv1.ExecuteRequest{Host: env.Host, Command: "uptime"})
//
// The hosts are "root1" (where the test runs as root) and "web1" (a plain user),
// each with sshd's MaxSessions of 10; more come with options. The service is
// stopped at the end of the test, gracefully unless the test killed it, and must
// then end without an error. Its log is shown when the test fails.
//
// It is a child process so that a test can kill it as a machine does. Its
// coverage is counted all the same, see Build.
package testenv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/secret"
	"github.com/telexec/telexec/internal/test/sshtest"
)

const (
	startLimit = 30 * time.Second
	stopLimit  = 30 * time.Second
)

// Option changes what Start makes.
type Option func(*options)

type options struct {
	program    string
	config     string
	hosts      []inventory.Host
	maxPerHost int
	noHosts    bool
}

// WithConfig adds top-level settings to the configuration file, as YAML.
func WithConfig(yaml string) Option { return func(o *options) { o.config += yaml + "\n" } }

// WithHosts adds hosts to those that there are.
func WithHosts(hosts ...inventory.Host) Option {
	return func(o *options) { o.hosts = append(o.hosts, hosts...) }
}

// WithMaxCommands sets how many commands may run at once on each host; without
// it, 10.
func WithMaxCommands(n int) Option { return func(o *options) { o.maxPerHost = n } }

// WithProgram runs another telexecd than the one of this tree.
func WithProgram(file string) Option { return func(o *options) { o.program = file } }

// WithoutHosts leaves out the hosts root1 and web1.
func WithoutHosts() Option { return func(o *options) { o.noHosts = true } }

// Env is a running service with its hosts. Its methods are for the one goroutine
// of the test, but for the clients, which may be shared.
type Env struct {
	Host    string                     // a host that is always there: "web1"
	Servers map[string]*sshtest.Server // the sshd behind each host that Start made

	GRPCAddr, HTTPAddr string // the same after a Restart
	Token              secret.Text
	TokenFile          string
	Dir                string // of this environment; removed at the end
	DataDir            string
	ConfigFile         string

	t       testing.TB
	program string
	hosts   string // their part of the configuration
	log     logBuffer
	process *process // nil while the service is stopped
	dialed  sync.Once
	conn    *grpc.ClientConn // written by dialed
	client  *http.Client
}

// process is one run of telexecd.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended; err is set then
	err    error
}

// Start makes hosts and service, and returns when the service is ready.
func Start(t testing.TB, opts ...Option) *Env {
	t.Helper()
	o := options{maxPerHost: 10}
	for _, f := range opts {
		f(&o)
	}
	if o.program == "" {
		o.program = Build(t, "telexecd")
	}
	e := &Env{
		t: t, Host: "web1", Servers: make(map[string]*sshtest.Server),
		program: o.program, Dir: t.TempDir(), client: &http.Client{Transport: &http.Transport{}},
	}
	e.DataDir = filepath.Join(e.Dir, "data")
	e.ConfigFile = filepath.Join(e.Dir, "telexec.yaml")
	e.TokenFile = filepath.Join(e.DataDir, "admin.token")
	if !o.noHosts {
		e.Servers["web1"] = sshtest.Start(t, sshtest.Options{User: sshtest.PlainUser(t), MaxSessions: 10})
		if os.Getuid() == 0 {
			e.Servers["root1"] = sshtest.Start(t, sshtest.Options{MaxSessions: 10})
		}
	}
	for name, s := range e.Servers {
		h := s.Host(name)
		h.MaxCommands = o.maxPerHost
		o.hosts = append(o.hosts, h)
	}
	if len(o.hosts) > 0 {
		e.hosts = "hosts:\n"
	}
	for _, h := range o.hosts {
		e.hosts += hostYAML(h)
	}
	e.Configure(o.config)
	e.GRPCAddr, e.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0"
	t.Cleanup(e.cleanUp)
	e.start()
	return e
}

// Configure writes the configuration anew, with these top-level settings as YAML
// in place of those of WithConfig; the hosts stay. It counts from the next start
// on, and what the service reloads from SIGHUP on.
func (e *Env) Configure(yaml string) {
	e.t.Helper()
	if err := os.WriteFile(e.ConfigFile, []byte("ssh_config: none\n"+yaml+"\n"+e.hosts), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// hostYAML gives the entry of a host in the configuration. %q makes strings that
// YAML reads as JSON does.
func hostYAML(h inventory.Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %q\n    address: %q\n    user: %q\n", h.Name, h.Address, h.User)
	for key, files := range map[string][]string{
		"identity_file": h.IdentityFiles, "certificate_file": h.CertificateFiles, "known_hosts_file": h.KnownHostsFiles,
	} {
		if len(files) == 0 {
			continue
		}
		fmt.Fprintf(&b, "    %s:\n", key)
		for _, f := range files {
			fmt.Fprintf(&b, "      - %q\n", f)
		}
	}
	if !h.Passphrase.IsZero() {
		fmt.Fprintf(&b, "    passphrase: %q\n", h.Passphrase.Reveal())
	}
	if h.HostKeyPolicy != "" {
		fmt.Fprintf(&b, "    host_key_policy: %s\n", h.HostKeyPolicy)
	}
	if h.ConnectTimeout > 0 {
		fmt.Fprintf(&b, "    connect_timeout: %s\n", h.ConnectTimeout)
	}
	if h.MaxCommands > 0 {
		fmt.Fprintf(&b, "    max_commands: %d\n", h.MaxCommands)
	}
	if h.NoShell {
		b.WriteString("    shell: none\n")
	}
	if len(h.Labels) > 0 {
		b.WriteString("    labels:\n")
		for _, key := range slices.Sorted(maps.Keys(h.Labels)) {
			fmt.Fprintf(&b, "      %q: %q\n", key, h.Labels[key])
		}
	}
	return b.String()
}

// start runs telexecd and waits until it is ready.
func (e *Env) start() {
	e.t.Helper()
	cmd := exec.Command(e.program, "--config", e.ConfigFile, "--data-dir", e.DataDir,
		"--grpc-addr", e.GRPCAddr, "--http-addr", e.HTTPAddr, "--log-format", "text")
	cmd.Env = e.environment()
	cmd.Stderr = &e.log
	// The service must not outlive a test binary that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	e.process = p
	ready := make(chan string, 1) // one line, or closed
	go func() {
		out := bufio.NewReader(stdout)
		if line, err := out.ReadString('\n'); err == nil {
			ready <- line
		}
		close(ready)
		_, _ = io.Copy(&e.log, out) // to the end, so that it never blocks
		p.err = cmd.Wait()
		close(p.exited)
	}()
	select {
	case line := <-ready:
		for word := range strings.FieldsSeq(line) {
			switch key, value, _ := strings.Cut(word, "="); key {
			case "grpc":
				e.GRPCAddr = value
			case "http":
				e.HTTPAddr = value
			}
		}
		if !strings.HasPrefix(line, "telexecd ready ") {
			e.t.Fatalf("telexecd did not get ready, and said %q", line)
		}
	case <-time.After(startLimit):
		e.t.Fatalf("telexecd is not ready after %v", startLimit)
	}
	token, err := os.ReadFile(e.TokenFile)
	if err != nil {
		e.t.Fatal(err)
	}
	e.Token = secret.New(strings.TrimSpace(string(token)))
}

// Stop ends the service as an operator does, and waits for its end.
func (e *Env) Stop() {
	e.t.Helper()
	if err := e.end(syscall.SIGTERM); err != nil {
		e.t.Errorf("telexecd: %v", err)
	}
}

// Kill ends the service with kill -9.
func (e *Env) Kill() { _ = e.end(syscall.SIGKILL) } // that it was killed is no news

// Signal sends a signal to the service and does not wait.
func (e *Env) Signal(s os.Signal) {
	e.t.Helper()
	if err := e.process.cmd.Process.Signal(s); err != nil {
		e.t.Fatal(err)
	}
}

// Exited waits for the service's own end and gives its exit code.
func (e *Env) Exited() int {
	e.t.Helper()
	p := e.process
	select {
	case <-p.exited:
	case <-time.After(stopLimit):
		e.t.Fatalf("telexecd has not ended after %v", stopLimit)
	}
	e.process = nil
	return p.cmd.ProcessState.ExitCode()
}

// Restart ends the service, if it still runs, and starts it again on the same
// ports and data.
func (e *Env) Restart() {
	e.t.Helper()
	if e.process != nil {
		e.Stop()
	}
	e.start()
}

// Another runs a second telexecd with these arguments until it ends by itself,
// and gives all that it wrote.
func (e *Env) Another(args ...string) (out string, err error) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), startLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.program, args...)
	cmd.Env = e.environment()
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// environment is that of telexecd: nothing of the developer's own settings.
func (e *Env) environment() []string {
	env := []string{"HOME=" + e.Dir, "PATH=" + os.Getenv("PATH"), "GORACE=halt_on_error=0 atexit_sleep_ms=0"}
	if dir := coverDir(); dir != "" {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}

// PID is the process id of the service.
func (e *Env) PID() int { return e.process.cmd.Process.Pid }

// Log is what the service has written so far, but for the line that says that it
// is ready.
func (e *Env) Log() string { return e.log.String() }

func (e *Env) end(s syscall.Signal) error {
	p := e.process
	if p == nil {
		return nil
	}
	e.process = nil
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(stopLimit):
		// Go's answer to it is what every goroutine was doing, in the log.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.exited:
		case <-time.After(stopLimit):
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		return fmt.Errorf("it had not ended after %v and was killed", stopLimit)
	}
}

func (e *Env) cleanUp() {
	if e.conn != nil {
		e.conn.Close()
	}
	e.client.CloseIdleConnections()
	if err := e.end(syscall.SIGTERM); err != nil {
		e.t.Errorf("telexecd: %v", err)
	}
	if strings.Contains(e.log.String(), "WARNING: DATA RACE") {
		e.t.Error("the race detector has found something in telexecd")
	}
	if e.t.Failed() {
		e.t.Logf("telexecd's log:\n%s", e.log.String())
	}
}

// Conn is a connection to the gRPC port that carries the token. It lasts over
// restarts.
func (e *Env) Conn() *grpc.ClientConn {
	e.t.Helper()
	e.dialed.Do(func() { e.conn = e.Dial(bearer{e.Token}) })
	return e.conn
}

// Dial makes another connection to the gRPC port; credentials may be nil for
// none. The caller closes it.
func (e *Env) Dial(credentials interface {
	GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error)
	RequireTransportSecurity() bool
}) *grpc.ClientConn {
	e.t.Helper()
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32 << 20))}
	if credentials != nil {
		opts = append(opts, grpc.WithPerRPCCredentials(credentials))
	}
	conn, err := grpc.NewClient("passthrough:"+e.GRPCAddr, opts...)
	if err != nil {
		e.t.Fatal(err)
	}
	return conn
}

// bearer sends a token with every call.
type bearer struct{ token secret.Text }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// Commands is a client of CommandService.
func (e *Env) Commands() telexecv1.CommandServiceClient {
	return telexecv1.NewCommandServiceClient(e.Conn())
}

// Hosts is a client of HostService.
func (e *Env) Hosts() telexecv1.HostServiceClient { return telexecv1.NewHostServiceClient(e.Conn()) }

// Admin is a client of AdminService.
func (e *Env) Admin() telexecv1.AdminServiceClient { return telexecv1.NewAdminServiceClient(e.Conn()) }

// REST sends a request to the HTTP port, with the token unless the headers
// (name, value, …) set another Authorization. The caller closes the body.
func (e *Env) REST(ctx context.Context, method, path, body string, headers ...string) *http.Response {
	e.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+e.HTTPAddr+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.Token.Reveal())
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := e.client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp
}

// logBuffer keeps what is written to it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
