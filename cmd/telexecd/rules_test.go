package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/config"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/telemetry"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// write puts a configuration into a file, and gives the file.
func write(t *testing.T, dir, text string) string {
	t.Helper()
	file := filepath.Join(dir, "telexec.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// dial gives a connection to the service, and the administrator's context.
func (s *service) dial(t *testing.T) (*grpc.ClientConn, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:"+s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	token, err := os.ReadFile(filepath.Join(s.data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	return conn, withToken(t.Context(), strings.TrimSpace(string(token)))
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// TestReload is the life of a policy: from the file into what Execute answers, and
// into the audit.
func TestReload(t *testing.T) {
	home := t.TempDir()
	// Nobody answers there; that a command was accepted is enough.
	hosts := "ssh_config: none\nhosts: [{name: web1, address: " + sshtest.ClosedPort(t) + ", user: nobody}]\n"
	denied := hosts + "policy:\n  default: deny\n  rules:\n    - {name: look, effect: allow, match: {programs: [uptime]}}\n"
	file := write(t, home, denied)
	s := start(t, settings(home), "--config", file, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0")
	conn, ctx := s.dial(t)
	// try gives the reason why id is not run, or that it is.
	try := func() string {
		t.Helper()
		r, err := telexecv1.NewCommandServiceClient(conn).Execute(ctx, &telexecv1.ExecuteRequest{Host: "web1", Command: "id", Wait: durationpb.New(0)})
		if err == nil {
			return "accepted by " + r.GetCommand().GetPolicyRule()
		}
		return status.Convert(err).Message()
	}
	// told gives what the audit tells of policies, newest first.
	told := func() (details []string) {
		t.Helper()
		page, err := telexecv1.NewAdminServiceClient(conn).ListAuditEntries(ctx, &telexecv1.ListAuditEntriesRequest{Kinds: []string{string(audit.PolicyLoaded)}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEntries() {
			if e.GetSubject() != file || e.GetTime() == nil {
				t.Errorf("%v", e)
			}
			details = append(details, e.GetDetail())
		}
		return details
	}
	before := "default deny, 1 rules: look"
	if got := try(); !strings.Contains(got, "policy refuses") {
		t.Errorf("before: %s", got)
	}
	if got := told(); len(got) != 1 || got[0] != before {
		t.Errorf("the audit tells %q", got)
	}

	// A file with a mistake changes nothing, whoever finds it, and the log has its line.
	for mistake, says := range map[string]string{
		"policy:\n  default: allow\n  rules:\n    - {name: bad, effect: alow}\n":                                                               "6: policy.rules[0].effect",
		"policy:\n  default: allow\n  rules:\n    - {name: a, effect: deny}\n    - {name: b, effect: allow, match: {commands: ['ls | id']}}\n": "line 7",
		"policy:\n  default: allow\n  ruels: []\n":                                                                                             "5: policy.ruels",
	} {
		from := len(s.log.String())
		write(t, home, hosts+mistake)
		s.hangups <- syscall.SIGHUP
		s.log.await(t, from, "not reloaded")
		if line := s.log.String()[from:]; !strings.Contains(line, says) || !strings.Contains(line, file) {
			t.Errorf("no %q in: %s", says, line)
		}
		if got := try(); !strings.Contains(got, "policy refuses") {
			t.Errorf("after a mistake: %s", got)
		}
	}
	from := len(s.log.String())
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.hangups <- syscall.SIGHUP
	s.log.await(t, from, "not reloaded")
	if got := told(); len(got) != 1 {
		t.Errorf("the audit tells %q", got)
	}

	// A good one is in force at once, for what is asked for from then on.
	from = len(s.log.String())
	write(t, home, hosts+"limits: {max_commands: 3}\nlog: {level: debug}\npolicy:\n  default: deny\n  rules:\n"+
		"    - {name: look, effect: allow, match: {programs: [uptime]}}\n    - {name: who, effect: allow, match: {programs: [id]}}\n")
	s.hangups <- syscall.SIGHUP
	s.log.await(t, from, "need a restart")
	line := s.log.String()[from:]
	for _, want := range []string{`"msg":"the policy was reloaded"`, `"rules":2`, `"settings":"log.level, limits.max_commands"`} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if strings.Contains(line, "policy.rules,") {
		t.Errorf("what was reloaded is said to need a restart: %s", line)
	}
	if got := try(); got != "accepted by who" {
		t.Errorf("after: %s", got)
	}
	if got := told(); len(got) != 2 || got[0] != "default deny, 2 rules: look, who" || got[1] != before {
		t.Errorf("the audit tells %q", got)
	}

	// And back again: the other settings are as they were at the start.
	from = len(s.log.String())
	write(t, home, denied)
	s.hangups <- syscall.SIGHUP
	s.log.await(t, from, "the policy was reloaded")
	if got := try(); !strings.Contains(got, "policy refuses") {
		t.Errorf("back: %s", got)
	}
	if line := s.log.String()[from:]; strings.Contains(line, "restart") {
		t.Errorf("nothing needs a restart: %s", line)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

// notary is an audit that can refuse.
type notary struct {
	told []audit.Entry
	fail error
}

func (n *notary) Record(_ context.Context, told ...audit.Entry) error {
	if n.fail == nil {
		n.told = append(n.told, told...)
	}
	return n.fail
}

// Rules that nobody could look up later are not put in force.
func TestNoAuditNoReload(t *testing.T) {
	n, used, typing := &notary{fail: errors.New("disk full")}, 0, 0
	var out bytes.Buffer
	r := reloading{
		load: func() (config.Config, error) { return config.Config{Policy: config.Policy{Default: "deny"}}, nil },
		use:  func(*policy.Policy) { used++ }, typing: func(...access.Role) { typing++ }, audit: n, log: telemetry.NewLogger(&out, slog.LevelInfo, telemetry.FormatJSON),
	}
	if err := r.reload(t.Context()); err == nil || used+typing != 0 || r.cfg.Policy.Default != "" {
		t.Errorf("%v, used %d times", err, used)
	}
	n.fail = nil
	if err := r.reload(t.Context()); err != nil || used != 1 || r.cfg.Policy.Default != "deny" || len(n.told) != 1 {
		t.Errorf("%v, used %d times, told %v", err, used, n.told)
	}
	r.load = func() (config.Config, error) { return config.Config{}, errors.New("gone") }
	if err := r.reload(t.Context()); err == nil || used != 1 {
		t.Errorf("%v, used %d times", err, used)
	}
}

// Who may type follows the policy that is in force, or what the file says of it now.
func TestReloadedTyping(t *testing.T) {
	home := t.TempDir()
	const before = "ssh_config: none\n"
	file := write(t, home, before)
	load := func() (config.Config, error) {
		return config.Load(config.Flags{Config: file}, settings(home))
	}
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	rights, err := newRights(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log := newOutput()
	r := reloading{load: load, use: func(*policy.Policy) {}, typing: rights.SetTyping, audit: &notary{}, log: telemetry.NewLogger(log, slog.LevelInfo, telemetry.FormatJSON), cfg: cfg}
	ann := access.Caller{Principal: access.Principal{Name: "ann", Roles: []access.Role{access.RoleOperator}}}
	own := access.Thing{What: "session", ID: "1", Owner: "ann", Host: "web1"}
	for _, step := range []struct {
		config string
		may    bool
	}{
		{"policy: {default: deny}\n", false},
		{"policy: {default: deny}\nsessions: {typing_roles: [operator]}\n", true},
		{"policy: {default: nonsense}\n", true},
		{"policy: {rules: [{name: a, effect: allow, match: {programs: [ls]}}]}\n", false},
		{"", true},
	} {
		write(t, home, before+step.config)
		if err := r.reload(t.Context()); (err != nil) != strings.Contains(step.config, "nonsense") {
			t.Error(err)
		}
		if err := rights.MayType(ann, own); (err == nil) != step.may || err != nil && fault.ReasonOf(err) != fault.ReasonTypingNotAllowed {
			t.Errorf("%q: %v", step.config, err)
		}
	}
	if text := log.String(); strings.Contains(text, "restart") || !strings.Contains(text, `"typing_roles":"admin"`) {
		t.Errorf("the log has %s", text)
	}
}

func TestReloadingEndsWithTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- (&reloading{}).run(ctx, nil) }() // no signals at all
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestCheck(t *testing.T) {
	const policyOf = "policy: {default: deny, rules: [{name: a, effect: allow, match: {programs: [ls]}}]}\n"
	cert, key, _ := certificate(t, t.TempDir())
	there := strings.NewReplacer("CERT", cert, "KEY", key)
	for name, c := range map[string]struct {
		config string
		says   []string // of the error; none: it is right
		out    string
	}{
		"nothing":       {"", nil, "0 hosts, 0 rules, default allow"},
		"right":         {"ssh_config: none\nhosts: [{name: web1, address: 192.0.2.1}]\n" + policyOf, nil, "1 hosts, 1 rules, default deny"},
		"no setting":    {"grcp_addr: x\n", []string{"telexec.yaml:1", "grpc_addr"}, ""},
		"two mistakes":  {"policy:\n  default: no\n  rules: [{name: a, effect: b}]\n", []string{"telexec.yaml:2", "telexec.yaml:3"}, ""},
		"rules":         {"policy:\n  rules:\n    - {name: a, effect: allow, match: {commands: ['ls; id']}}\n    - {name: b, effect: deny, match: {programs: ['a b']}}\n", []string{"telexec.yaml", "line 3", "line 4"}, ""},
		"hosts":         {"ssh_config: none\nhosts: [{name: a, proxy_jump: a}]\n", []string{"a"}, ""},
		"TLS":           {"tls: {cert_file: /dev/null, key_file: /dev/null}\n", []string{"/dev/null"}, ""},
		"a name":        {"tls: {cert_file: CERT, key_file: KEY, client_ca_file: CERT}\nauth: {client_certificates: {roles: {'a*b': [viewer]}}}\n", []string{"a*b"}, ""},
		"a warning":     {"policy: {rules: [{name: all, effect: allow, match: {programs: [find]}}]}\n", nil, "1 rules"},
		"another's key": {"auth: {jwt: [{name: corp, issuer: i, audience: a, public_key_file: KEY, roles: {x: [viewer]}}]}\n", []string{"auth.jwt[0]", "private key"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			out, log := newOutput(), newOutput()
			err := run(t.Context(), env{Stdout: out, Stderr: log, Getenv: settings(home)}, []string{"--check", "--config", write(t, home, there.Replace(c.config))})
			if (err == nil) != (c.says == nil) || err != nil && exitCode(err) != 1 {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
			if err == nil != strings.HasPrefix(out.String(), "the configuration is right: ") || !strings.Contains(out.String(), c.out) {
				t.Errorf("said %q", out)
			}
			if (name == "a warning") != strings.HasPrefix(log.String(), "warning: ") {
				t.Errorf("warned %q", log)
			}
			// Nothing is made: it may be run as another user, beside a service that runs.
			if left, _ := os.ReadDir(home); len(left) != 1 {
				t.Errorf("it left %v", left)
			}
		})
	}
}
