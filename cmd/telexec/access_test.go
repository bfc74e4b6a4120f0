package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/pkg/client"
)

func TestPolicy(t *testing.T) {
	const allow, deny, ask = telexecv1.PolicyEffect_POLICY_EFFECT_ALLOW, telexecv1.PolicyEffect_POLICY_EFFECT_DENY, telexecv1.PolicyEffect_POLICY_EFFECT_REQUIRE_APPROVAL
	for _, tt := range []struct {
		effect telexecv1.PolicyEffect
		code   int
		line   string
	}{
		{allow, 0, "allow, rule look: it may\n"}, {deny, 1, "deny, rule look: it may\n"}, {ask, 3, "require_approval, rule look: it may\n"},
		{telexecv1.PolicyEffect_POLICY_EFFECT_UNSPECIFIED, 1, "no verdict, rule look: it may\n"},
	} {
		d := &desk{explain: &telexecv1.ExplainPolicyResponse{Effect: tt.effect, Rule: "look", Reason: "it may"}}
		i := d.sit(t)
		i.want(t, i.run(t.Context(), "policy", "test", "web1", "ls"), tt.code, []string{tt.line}, nil)
		i = d.sit(t)
		i.want(t, i.run(t.Context(), "policy", "test", "--json", "web1", "ls"), tt.code, []string{`"rule": "look"`}, nil)
	}

	d := &desk{explain: &telexecv1.ExplainPolicyResponse{
		Effect: ask, Rule: "upgrades", Reason: "apt-get wants a yes", RequiredApprovals: 2, ApproverRoles: []string{"approver"}, ApprovalTimeout: durationpb.New(time.Hour),
		Commands: []*telexecv1.JudgedCommand{
			{Words: []string{"apt-get", "up grade", "it's", ""}, Effect: ask, Rule: "upgrades"},
			{Words: []string{"l\u202es"}, Unknown: "the value of $x", Effect: deny},
			{Effect: allow, Rule: "look"},
		},
	}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "policy", "explain", "--sudo", "-e", "A", "-e", "B=x", "--login", "--action-type", "deploy", "--as", "ann", "--role", "operator",
		"--origin", "mcp", "-C", "/srv/deploy", "web1", "--", "apt-get", "upgrade"), 3, []string{
		"Verdict   require_approval\n", "Rule      upgrades\n", "Why       apt-get wants a yes\n", "Approval  by 2 approvers, within 1 h\n",
		"Command   apt-get [up grade] it's []\n          require_approval: rule upgrades\n",
		"Command   l\\u202es\n", "          deny: rule default\n          not known: the value of $x\n", "Command   (no program)\n",
	}, nil)
	req := last[*telexecv1.ExplainPolicyRequest](t, d)
	if !slices.Equal(req.GetArgv(), []string{"apt-get", "upgrade"}) || req.GetSudo().GetUser() != "root" || !slices.Equal(req.GetEnvNames(), []string{"A", "B"}) ||
		!req.GetLoginShell() || req.GetActionType() != "deploy" || req.GetPrincipal() != "ann" || !slices.Equal(req.GetRoles(), []string{"operator"}) ||
		req.GetOrigin() != telexecv1.Origin_ORIGIN_MCP || req.GetHost() != "web1" ||
		req.GetWorkingDirectory() != "/srv/deploy" {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "policy", "test", "--origin", "window", "web1", "ls"), 125, nil, []string{"no door"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "policy", "test", "web1", "--"), 125, nil, []string{"no command"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "policy", "test", "web1", ""), 125, nil, []string{"is empty", "telexec policy test --help", "!telexec run"})
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "policy", "explain", "web1", "--"), 125, nil, []string{"no command", "telexec policy explain --help", "!telexec run"})
}

// A line that only the service finds empty is told with the help of the command that
// was called.
func TestEmptyCommandOfTheService(t *testing.T) {
	for path, want := range map[string]string{"telexec policy test": "telexec policy test --help has examples", "": "telexec run --help has examples"} {
		var b bytes.Buffer
		a := &app{path: path, out: &printer{stderr: &b}}
		if code := a.report(&client.Error{Reason: "EMPTY_COMMAND", Message: "there is no command"}); code != 125 || !strings.Contains(b.String(), want) {
			t.Errorf("%q: exit code %d, %s", path, code, b.String())
		}
	}
}

func TestTokenCreate(t *testing.T) {
	d := &desk{}
	i := d.sit(t)
	code := i.run(t.Context(), "token", "create", "ci", "--role", "operator", "--role", "viewer", "--expires", "30d", "--start-rate", "0.5", "--open-streams", "3")
	i.want(t, code, 0, nil, []string{"telexec: the key of ci (operator, viewer) is good until ", "shown this once"})
	if i.stdout.String() != "tx_s3cret\n" || strings.Contains(i.stderr.String(), "s3cret") {
		t.Errorf("stdout %q, stderr %q", i.stdout.String(), i.stderr.String())
	}
	req := last[*telexecv1.CreateTokenRequest](t, d)
	if req.GetLifetime().AsDuration() != 720*time.Hour || req.GetLimits().GetStartsPerSecond() != 0.5 || req.GetLimits().GetOpenStreams() != 3 || len(req.GetRoles()) != 2 {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "create", "ci", "--role", "viewer", "--json"), 0, []string{`"secret": "tx_s3cret"`}, nil)
	if req := last[*telexecv1.CreateTokenRequest](t, d); req.GetLimits() != nil || req.GetLifetime() != nil {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "create", "ci"), 125, nil, []string{"--role"})
	for _, bad := range []string{"soon", "0d", "-1h", "0s"} {
		i = d.sit(t)
		i.want(t, i.run(t.Context(), "token", "create", "ci", "--role", "viewer", "--expires="+bad), 125, nil, []string{"cannot read the time"})
	}
}

// A token that nobody gets is told to be lost.
func TestTokenThatCannotBeWritten(t *testing.T) {
	i := (&desk{}).sit(t)
	code := run(t.Context(), Env{
		Stdout: brokenWriter{}, Stderr: &i.stderr, Getenv: func(name string) string { return i.env[name] },
	}, []string{"token", "create", "ci", "--role", "viewer"})
	i.want(t, code, 125, nil, []string{"is lost", "telexec token revoke ci"})
}

// Who does not wait for the answer is told what may have been done.
func TestInterruptedInDoubt(t *testing.T) {
	for _, tt := range []struct {
		args   string
		signal os.Signal
		code   int
		want   []string
	}{
		{"token create ci --role viewer", os.Interrupt, 130, []string{"telexec: interrupted before the service answered\n", "The key ci may have been made", "revoke ci"}},
		{"token create ci --role viewer --json", syscall.SIGTERM, 143, []string{`"in_doubt":"true"`, "The key ci may have been made"}},
		{"approve --yes " + someID, syscall.SIGTERM, 143, []string{"telexec: interrupted before the service answered\n", "Whether it was decided is not known"}},
		{"reject --reason no --json " + someID, os.Interrupt, 130, []string{`"in_doubt":"true"`, "Whether it was decided is not known"}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			d := &desk{approvals: []*telexecv1.Approval{waiting(someID, "apt upgrade")}, came: make(chan struct{})}
			i := d.sit(t)
			i.signals = make(chan os.Signal, 1)
			code := make(chan int)
			go func() { code <- i.run(t.Context(), strings.Fields(tt.args)...) }()
			<-d.came
			i.signals <- tt.signal
			i.want(t, <-code, tt.code, nil, tt.want)
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestTokenListAndRevoke(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	d := &desk{tokens: []*telexecv1.Token{
		{Principal: "a", Roles: []string{"viewer", "approver"}, Id: "k1", CreatedBy: "admin", CreateTime: at(-time.Hour - time.Second)},
		{Principal: "b", ExpireTime: at(73 * time.Hour), LastUseTime: at(-2*time.Hour - time.Second)},
		{Principal: "c", ExpireTime: at(-2*time.Minute - time.Second)},
		{Principal: "d", ExpireTime: at(time.Hour), RevokeTime: at(-3*time.Minute - time.Second)},
	}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "token", "list", "--all"), 0, []string{
		"PRINCIPAL  ROLES", "a          viewer,approver  good               admin    1 h ago  -          k1\n", "good for 3 days", "2 h ago", "expired 2 min ago", "revoked 3 min ago",
	}, nil)
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "list", "--json"), 0, []string{`"principal":"a"`, `"principal":"d"`}, nil)
	if req := last[*telexecv1.ListTokensRequest](t, d); req.GetIncludeInactive() || req.GetPageSize() != 1000 {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "list", "--json", "--all"), 0, nil, nil)
	if req := last[*telexecv1.ListTokensRequest](t, d); !req.GetIncludeInactive() {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "revoke", "a"), 0, nil, nil)
	if req := last[*telexecv1.RevokeTokenRequest](t, d); req.GetPrincipal() != "a" {
		t.Errorf("%v", req)
	}
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "token", "revoke", "a", "--json"), 0, []string{`"principal": "a"`}, nil)
	i = d.sit(t)
	if i.run(t.Context(), completeCommand, "token", "revoke", ""); i.stdout.String() != "a\nb\nc\n" {
		t.Errorf("completion: %q", i.stdout.String())
	}
}

func TestServerTellsWhoYouAre(t *testing.T) {
	d := &desk{info: &telexecv1.GetServerInfoResponse{
		Principal: "ann", Roles: []string{"operator", "approver"}, CredentialsExpireTime: timestamppb.New(time.Now().Add(50 * time.Hour)),
	}}
	i := d.sit(t)
	i.want(t, i.run(t.Context(), "server"), 0, []string{"You are   ann (operator, approver)\n", "          until ", "(2 days left)\n"}, nil)
	d.info.Roles, d.info.CredentialsExpireTime = nil, nil
	i = d.sit(t)
	i.want(t, i.run(t.Context(), "server"), 0, []string{"You are   ann\n", "!until"}, nil)
}

func TestSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values")
	if err := os.WriteFile(file, []byte("first value\r\n\n second \nthird"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := Env{Getenv: func(name string) string { return map[string]string{"HERE": "of here"}[name] }}
	for _, tt := range []struct {
		name   string
		c      runCmd
		env    map[string]string
		secret []string
		redact []string
		err    string
	}{
		{"none", runCmd{}, nil, nil, nil, ""},
		{"from here", runCmd{SecretEnv: []string{"HERE", "HERE"}}, map[string]string{"HERE": "of here"}, []string{"HERE"}, nil, ""},
		{"as given", runCmd{SecretEnv: []string{"HERE"}, Env: []string{"HERE=given"}}, map[string]string{"HERE": "given"}, []string{"HERE"}, nil, ""},
		{"not set", runCmd{SecretEnv: []string{"THERE"}}, nil, nil, nil, "--secret-env THERE: the variable is empty"},
		{"a value where all can see it", runCmd{SecretEnv: []string{"A=hunter2"}}, nil, nil, nil, "takes the name of a variable alone"},
		{"a file", runCmd{RedactFile: file}, nil, nil, []string{"first value", " second ", "third"}, ""},
		{"an empty file", runCmd{RedactFile: empty}, nil, nil, nil, "holds no value"},
		{"no file", runCmd{RedactFile: file + "x"}, nil, nil, nil, "cannot read the values"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.Host, tt.c.Command = "web1", []string{"true"}
			req, err := tt.c.request(env)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || !slices.Equal(req.GetSecretEnv(), tt.secret) || !slices.Equal(req.GetRedact(), tt.redact) || len(req.GetEnv()) != len(tt.env) {
				t.Fatal(req, err)
			}
			for name, value := range tt.env {
				if req.GetEnv()[name] != value {
					t.Errorf("%s is %q", name, req.GetEnv()[name])
				}
			}
		})
	}
}
