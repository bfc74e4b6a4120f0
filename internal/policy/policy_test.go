package policy_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/fault"
	. "github.com/telexec/telexec/internal/policy"
)

func line(l string) Request { return Request{Line: l} }

// expect decides lines and compares the effect and the rule.
type expect struct {
	q      Request
	effect Effect
	rule   string
}

func (e expect) check(t *testing.T, p *Policy) Decision {
	t.Helper()
	d := p.Decide(e.q)
	if d.Effect != e.effect || d.Rule != e.rule {
		t.Errorf("%q %q is %s by %q, want %s by %q (%s)", e.q.Line, e.q.Argv, d.Effect, d.Rule, e.effect, e.rule, d.Reason)
	}
	if d.Reason == "" {
		t.Errorf("%q: no reason", e.q.Line)
	}
	return d
}

func TestEverySimpleCommandIsDecided(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "list", Effect: Allow, Match: Match{Programs: []string{"ls"}}},
		{Name: "up", Effect: Allow, Match: Match{Programs: []string{"uptime"}}},
		{Name: "apt", Effect: RequireApproval, Match: Match{Programs: []string{"apt", "apt-get"}}},
		{Name: "boot", Effect: RequireApproval, Match: Match{Programs: []string{"reboot"}}, Approval: Gate{Count: 2, Roles: []string{"admin", "approver"}, Timeout: time.Minute, AllowSelf: true}},
		{Name: "halt", Effect: RequireApproval, Match: Match{Programs: []string{"halt"}}, Approval: Gate{Roles: []string{"admin"}}},
	}})
	for _, e := range []expect{
		{line("ls && uptime"), Allow, "list"},
		{line("apt update"), RequireApproval, "apt"},
		{line("ls; apt update"), RequireApproval, "apt"},
		{line("apt update; rm -rf /"), Deny, "default"},
		{line("apt update; reboot"), RequireApproval, "boot"},
		{line("reboot; apt update"), RequireApproval, "boot"},
		{line("apt update; halt"), Deny, "halt"}, // no role is enough for both
		{line("reboot; halt"), RequireApproval, "boot"},
		{line("apt update; halt; ls"), Deny, "halt"},
		{line("$(x)"), Deny, "default"}, // it may be apt, but it may be anything
		{Request{Argv: []string{"ls", "; id"}}, Allow, "list"},
		{Request{Argv: []string{"ls; id"}}, Deny, "default"},
		{Request{Argv: []string{"A=b", "ls"}}, Deny, "default"},
		{Request{Argv: []string{"sh", "-c", "ls; id"}}, Deny, "default"},
		{Request{Argv: []string{"sh", "-c", "ls; uptime"}}, Allow, "list"},
		{line("# nothing"), Deny, "default"},
	} {
		e.check(t, p)
	}
	d := p.Decide(line("apt update; reboot"))
	if d.Gate.Count != 2 || d.Gate.Timeout != time.Minute || d.Gate.AllowSelf || !slices.Equal(d.Gate.Roles, []string{"approver"}) {
		t.Errorf("the gate is %+v", d.Gate)
	}
	if d := p.Decide(line("apt update")); d.Gate.Count != 1 || d.Gate.Timeout != time.Hour || !slices.Equal(d.Gate.Roles, []string{"approver"}) {
		t.Errorf("a gate without anything is %+v", d.Gate)
	}
	d = p.Decide(line(`ls "$x" < in; rm x >out`))
	if len(d.Commands) != 2 || d.Commands[0].Effect != Allow || d.Commands[0].Unknown == "" || d.Commands[0].Reads[0] != "in" ||
		d.Commands[1].Effect != Deny || d.Commands[1].Writes[0] != "out" || !slices.Equal(d.Commands[1].Words, []string{"rm", "x"}) || d.Commands[1].Unknown != "" {
		t.Errorf("judged %+v", d.Commands)
	}
	for text, want := range map[string]string{
		"rm x":                               `"rm x"`,
		"rm x > out":                         `which writes "out"`,
		"PATH=/x ls":                         "PATH",
		"ls; $x":                             "computed at run time",
		"ls && uptime":                       `rule "list", rule "up"`,
		"apt update":                         "1 from approver within 1h",
		"ls '":                               "POSIX",
		"rm \x7f" + strings.Repeat("x", 300): "control",
	} {
		if d := p.Decide(line(text)); !strings.Contains(d.Reason, want) || len(d.Reason) > 600 {
			t.Errorf("%q: %q does not say %q", text, d.Reason, want)
		}
	}
}

func TestConditionsOnTheRequest(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "host", Effect: Allow, Match: Match{Hosts: []string{"web*", "db?"}, Programs: []string{"ls"}}},
		{Name: "label", Effect: Allow, Match: Match{Labels: map[string]string{"env": "prod*", "tier": "*"}, Programs: []string{"ls"}}},
		{Name: "who", Effect: Allow, Match: Match{Principals: []string{"ci-*"}, Programs: []string{"ls"}}},
		{Name: "role", Effect: Allow, Match: Match{Roles: []string{"operator", "admin"}, Programs: []string{"ls"}}},
		{Name: "door", Effect: Allow, Match: Match{Origins: []string{"mcp", "cli"}, Programs: []string{"ls"}}},
		{Name: "all", Effect: Allow, Match: Match{Hosts: []string{"dev*"}, Principals: []string{"bob"}, Programs: []string{"ls"}}},
	}})
	for _, e := range []expect{
		{Request{Line: "ls"}, Deny, "default"},
		{Request{Line: "ls", Host: "web1"}, Allow, "host"},
		{Request{Line: "ls", Host: "db1"}, Allow, "host"},
		{Request{Line: "ls", Host: "db12"}, Deny, "default"},
		{Request{Line: "ls", Labels: map[string]string{"env": "production"}}, Deny, "default"},
		{Request{Line: "ls", Labels: map[string]string{"env": "production", "tier": ""}}, Allow, "label"},
		{Request{Line: "ls", Labels: map[string]string{"env": "dev", "tier": "1"}}, Deny, "default"},
		{Request{Line: "ls", Principal: "ci-7"}, Allow, "who"},
		{Request{Line: "ls", Roles: []string{"viewer", "admin"}}, Allow, "role"},
		{Request{Line: "ls", Origin: "cli"}, Allow, "door"},
		{Request{Line: "ls", Origin: "web"}, Deny, "default"},
		{Request{Line: "ls", Host: "dev1"}, Deny, "default"},
		{Request{Line: "ls", Host: "dev1", Principal: "bob"}, Allow, "all"},
	} {
		e.check(t, p)
	}
}

func TestProgramsAndCommands(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "path", Effect: Allow, Match: Match{Programs: []string{"/opt/app/bin/*", "./deploy"}}},
		{Name: "glob", Effect: Allow, Match: Match{Programs: []string{"zfs*", "?q"}}},
		{Name: "unit", Effect: Allow, Match: Match{Commands: []string{"systemctl restart nginx", "systemctl status *", "journalctl -u * -n ?"}}},
		{Name: "args", Effect: Allow, Match: Match{Programs: []string{"tail"}, Args: []string{"-n", "[0-9]", "20", "/var/log/*"}}},
		{Name: "dot", Effect: Allow, Match: Match{Programs: []string{"."}}},
		{Name: "any", Effect: Allow, Match: Match{Programs: []string{"busybox", "sudo", "find", "cd"}}},
	}})
	for _, e := range []expect{
		{line("/opt/app/bin/run"), Allow, "path"},
		{line("/opt/app/bin/x/run"), Deny, "default"},
		{line("/opt/app/bin/../run"), Deny, "default"},
		{line("./deploy"), Allow, "path"},
		{line("cd /tmp; ./deploy"), Deny, "default"},
		{Request{Line: "./deploy", Directory: "/tmp"}, Deny, "default"},
		{Request{Line: "/opt/app/bin/run", Directory: "/tmp"}, Allow, "path"},
		{line("zfs-list"), Allow, "glob"},
		{line("/usr/sbin/zfs"), Allow, "glob"},
		{line("/usr/sbin/x/zfs"), Deny, "default"},
		{line("jq"), Allow, "glob"},
		{line("systemctl restart nginx"), Allow, "unit"},
		{line("/bin/systemctl restart nginx"), Allow, "unit"},
		{line("systemctl restart nginx ssh"), Deny, "default"},
		{line("systemctl restart"), Deny, "default"},
		{line("systemctl status"), Allow, "unit"},
		{line("systemctl status a b $x"), Allow, "unit"},
		{line("systemctl $x"), Deny, "default"},
		{line(`systemctl restart "$x"`), Deny, "default"},
		{line("systemctl restart nginx $x"), Deny, "default"},
		{line("systemctl status < x"), Deny, "default"},
		{line("systemctl status < /dev/null"), Allow, "unit"},
		{line("journalctl -u nginx -n 5"), Allow, "unit"},
		{line("journalctl -u nginx -n 50"), Deny, "default"},
		{line("tail -n 20 /var/log/syslog"), Allow, "args"},
		{line("tail"), Allow, "args"},
		{line("tail /etc/passwd"), Deny, "default"},
		{line("tail $x"), Deny, "default"},
		{line("tail < /var/log/x"), Allow, "args"},
		{line("tail < /etc/shadow"), Deny, "default"},
		{line("echo x | xargs tail"), Deny, "default"},
		{line("echo x | xargs systemctl status"), Deny, "default"}, // echo
		{line("xargs systemctl status"), Allow, "unit"},
		{line("xargs systemctl restart"), Deny, "default"},
		{line("xargs systemctl restart nginx"), Deny, "default"},
		{line(". /etc/profile"), Allow, "dot"},
		{line("source /etc/profile"), Deny, "default"},
		{line("busybox tail"), Allow, "any"},
		{line("busybox id"), Deny, "default"},
		{line("busybox sh -c tail"), Allow, "any"},
		{line("busybox --install"), Deny, "default"},
		{line("sudo -n -u root tail"), Allow, "any"},
		{line("sudo X=1 tail"), Deny, "default"},
		{line("sudo x=1 tail"), Allow, "any"},
		{line("sudo -l"), Allow, "any"},
		{line("sudo -s"), Deny, "default"},
		{line("find . -fprint x"), Deny, "default"},
		{line("find . -exec tail {} +"), Deny, "default"}, // which files is not known
		{line("find . -exec systemctl status {} +"), Allow, "any"},
	} {
		e.check(t, p)
	}
	// A pattern with a wildcard does not mean programs that run any text.
	star := newPolicy(t, Rules{Default: Deny, Rules: []Rule{{Name: "star", Effect: Allow, Match: Match{Programs: []string{"*"}}}}})
	for _, e := range []expect{
		{line("anything goes"), Allow, "star"},
		{line(". /tmp/x"), Deny, "default"},
		{line("$x"), Deny, "default"},
		{line("strace id"), Deny, "default"},
		{line("./x"), Deny, "default"},
		{line("x() { ls; }"), Deny, "default"},
	} {
		e.check(t, star)
	}
}

func TestRestrictingRules(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "rm", Effect: Deny, Match: Match{Programs: []string{"rm"}, Args: []string{"-rf", "-fr", "/*"}}},
		{Name: "etc", Effect: Deny, Match: Match{Writes: []string{"/etc/**"}}},
		{Name: "preload", Effect: Deny, Match: Match{Variables: []string{"LD_*"}}},
		{Name: "boot", Effect: RequireApproval, Match: Match{Commands: []string{"systemctl reboot", "shutdown *"}}},
		{Name: "unit", Effect: RequireApproval, Match: Match{Programs: []string{"service"}, Args: []string{"nginx", "restart"}}},
		{Name: "opt", Effect: RequireApproval, Match: Match{Writes: []string{"/opt/*"}}},
	}})
	for _, e := range []expect{
		{line("ls"), Allow, "default"},
		{line("rm x"), Allow, "default"},
		{line("rm -v -rf x"), Deny, "rm"},
		{line("rm x /etc"), Deny, "rm"},
		{line("rm $x"), Deny, "rm"},
		{line("xargs rm"), Deny, "rm"},
		{line("rm < /x"), Deny, "rm"},
		{line("$x -rf y"), Deny, "rm"},
		{line("if"), Deny, "rm"},
		{line("echo x > /etc/a/b"), Deny, "etc"},
		{line("echo x > /tmp/a"), Allow, "default"},
		{line(`echo x > "$x"`), Deny, "etc"},
		{line("LD_PRELOAD=x ls"), Deny, "preload"},
		{Request{Line: "ls", EnvNames: []string{"LD_AUDIT"}}, Deny, "preload"},
		{Request{Line: "ls", EnvNames: []string{"FOO"}}, Allow, "default"},
		{line("systemctl reboot"), RequireApproval, "boot"},
		{line("systemctl reboot < x"), RequireApproval, "boot"},
		{line(`systemctl "$x"`), RequireApproval, "boot"},
		{line("systemctl reboot now"), Allow, "default"},
		{line("xargs systemctl"), RequireApproval, "boot"},
		{line("shutdown"), RequireApproval, "boot"},
		{line("service nginx restart"), RequireApproval, "unit"},
		{line("service nginx stop"), RequireApproval, "unit"}, // one of its words
		{line("service ssh stop"), Allow, "default"},
		{line("service"), RequireApproval, "unit"},
		{line("echo x > /opt/x"), RequireApproval, "opt"},
		{line("echo x > /opt/x > /tmp/y"), RequireApproval, "opt"},
	} {
		e.check(t, p)
	}
	// What may be denied is not put before an approver.
	strict := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "unit", Effect: RequireApproval, Match: Match{Programs: []string{"service"}, Args: []string{"nginx", "restart"}}},
		{Name: "cmd", Effect: RequireApproval, Match: Match{Commands: []string{"apt update"}}},
	}})
	for _, e := range []expect{
		{line("service nginx restart"), RequireApproval, "unit"},
		{line("service nginx stop"), Deny, "default"},
		{line("service $x"), Deny, "default"},
		{line("apt update < x"), Deny, "default"},
		{line("$x"), Deny, "default"},
	} {
		e.check(t, strict)
	}
	ask := newPolicy(t, Rules{Default: RequireApproval, DefaultApproval: Gate{Count: 3, AllowSelf: true}})
	if d := (expect{line("$x"), RequireApproval, "default"}).check(t, ask); d.Gate.Count != 3 || !d.Gate.AllowSelf {
		t.Errorf("the gate of the default is %+v", d.Gate)
	}
}

func TestAnAllowRuleWithoutConditionsOnTheCommand(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "dev", Effect: Allow, Match: Match{Hosts: []string{"dev*"}, Roles: []string{"admin"}}},
		{Name: "nothing", Effect: Deny, Match: Match{}},
	}})
	for _, text := range []string{"ls", "$x", "if", "PATH=/x; ls > /etc/passwd", "x() { id; }; x", "echo $'\\''"} {
		expect{Request{Line: text, Host: "dev1", Roles: []string{"admin"}}, Allow, "dev"}.check(t, p)
		expect{Request{Line: text, Host: "web", Roles: []string{"admin"}}, Deny, "nothing"}.check(t, p)
	}
}

func TestWritesAndVariables(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "log", Effect: Allow, Match: Match{Programs: []string{"echo", "cd", "exec"}, Writes: []string{"/tmp/*", "/var/log/app/**", "out.txt"}}},
		{Name: "git", Effect: Allow, Match: Match{Programs: []string{"git"}, Variables: []string{"GIT_*", "PAGER"}}},
		{Name: "ls", Effect: Allow, Match: Match{Programs: []string{"ls"}}},
	}})
	for _, e := range []expect{
		{line("echo x"), Allow, "log"},
		{line("echo x > /tmp/a"), Allow, "log"},
		{line("echo x >> /tmp/a 2> /dev/null"), Allow, "log"},
		{line("echo x > /tmp/a/b"), Deny, "default"},
		{line("echo x > /tmp/../etc/passwd"), Deny, "default"},
		{line("echo x > /tmp/.."), Deny, "default"},
		{line("echo x > /tmp//a"), Deny, "default"},
		{line("echo x > /var/log/app/a/b"), Allow, "log"},
		{line("echo x > /var/log/app/../b"), Deny, "default"},
		{line("echo x > out.txt"), Allow, "log"},
		{line("cd /etc; echo x > out.txt"), Deny, "default"},
		{line("echo x > /tmp/$x"), Deny, "default"},
		{line("echo x > ''"), Deny, "default"},
		{line("exec > /tmp/x"), Allow, "log"},
		{line("exec > /x"), Deny, "default"},
		{line("ls > /tmp/a"), Deny, "default"},
		{line("eval 'ls' > /tmp/a"), Deny, "default"},
		{line("eval '' > /tmp/a"), Deny, "default"},
		{line("export x=1 > /a"), Deny, "default"},
		{line("GIT_DIR=x git log"), Allow, "git"},
		{line("GIT_DIR=x PAGER=y git log"), Allow, "git"},
		{line("GIT_DIR=x PATH=y git log"), Deny, "default"},
		{line("GIT_DIR=x git log; ls"), Deny, "default"}, // for the whole request
		{Request{Line: "git log", EnvNames: []string{"PAGER", "LANG"}}, Allow, "git"},
		{Request{Line: "ls", EnvNames: []string{"LC_ALL", "TERM"}}, Allow, "ls"},
		{Request{Line: "ls", EnvNames: []string{"PATH"}}, Deny, "default"},
		{Request{Line: "ls", EnvNames: []string{"BASH_FUNC_ls%%"}}, Deny, "default"},
		{line("env PATH=x ls"), Deny, "default"},
		{line("env -u PATH ls"), Deny, "default"},
		{line("unset x; ls"), Allow, "ls"},
		{line("unset PATH; ls"), Deny, "default"},
	} {
		e.check(t, p)
	}
}

func TestActionTypes(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny,
		ActionTypes: map[string][]string{"package_update": {"apt update", "apt upgrade *"}, "look": {"ls *"}},
		Rules: []Rule{
			{Name: "update", Effect: Allow, Match: Match{ActionTypes: []string{"package_update"}}},
			{Name: "ls", Effect: Allow, Match: Match{Programs: []string{"ls", "sudo"}}},
		}})
	for _, e := range []expect{
		{Request{Line: "apt update", ActionType: "package_update"}, Allow, "update"},
		{Request{Line: "apt update && apt upgrade -y", ActionType: "package_update"}, Allow, "update"},
		{Request{Line: "apt update"}, Deny, "default"},
		{Request{Line: "apt update", ActionType: "else"}, Deny, "default"},
		{Request{Line: "ls", ActionType: "else"}, Allow, "ls"},
		{Request{Line: "apt update; ls", ActionType: "package_update"}, Deny, "action_types"},
		{Request{Line: "apt update; $x", ActionType: "package_update"}, Deny, "action_types"},
		{Request{Line: "apt update", ActionType: "look"}, Deny, "action_types"},
		{Request{Line: "if", ActionType: "look"}, Deny, "action_types"},
		{Request{Line: "# nothing", ActionType: "look"}, Deny, "action_types"},
		{Request{Line: "ls < x", ActionType: "look"}, Deny, "action_types"},
		{Request{Line: "xargs ls", ActionType: "look"}, Deny, "action_types"},
		{Request{Line: "sudo apt update", ActionType: "package_update"}, Allow, "ls"},
		{Request{Line: "apt update", Sudo: true, ActionType: "package_update"}, Allow, "ls"},
		{Request{Line: "apt update > /x", ActionType: "package_update"}, Deny, "default"},
	} {
		e.check(t, p)
	}
}

func TestSudoAndForeignShells(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "ls", Effect: Allow, Match: Match{Programs: []string{"ls", "echo", "show"}}},
		{Name: "sudo", Effect: Allow, Match: Match{Commands: []string{"sudo -u app *"}}},
	}})
	for _, e := range []expect{
		{Request{Line: "ls", Sudo: true}, Deny, "default"},
		{Request{Line: "ls", Sudo: true, SudoUser: "root"}, Deny, "default"},
		{Request{Line: "ls", Sudo: true, SudoUser: "app"}, Allow, "sudo"},
		{Request{Line: "sudo -u app ls"}, Allow, "sudo"},
		{Request{Line: "sudo ls"}, Deny, "default"},
		{Request{Line: "ls -l /tmp", LoginShell: true}, Allow, "ls"},
		{Request{Line: "  echo\tx=1 ", LoginShell: true}, Allow, "ls"},
		{Request{Line: "ls; echo", LoginShell: true}, Deny, "default"},
		{Request{Line: "echo 'x'", LoginShell: true}, Deny, "default"},
		{Request{Line: "echo $x", LoginShell: true}, Deny, "default"},
		{Request{Line: "echo =ls", LoginShell: true}, Deny, "default"},
		{Request{Line: "not ls", LoginShell: true}, Deny, "default"},
		{Request{Line: "ls\nid", LoginShell: true}, Deny, "default"},
		{Request{Line: "show version", RawShell: true}, Allow, "ls"},
		{Request{Line: "show version | x", RawShell: true}, Deny, "default"},
		{Request{Argv: []string{"show", "a b"}, RawShell: true}, Deny, "default"},
		{Request{Argv: []string{"ls", "a'b"}, LoginShell: true}, Deny, "default"},
		{Request{Argv: []string{"ls", "a"}, LoginShell: true}, Allow, "ls"},
		{Request{Line: "", RawShell: true}, Deny, "default"},
	} {
		e.check(t, p)
	}
}

func TestNewTellsEveryMistake(t *testing.T) {
	_, err := New(Rules{
		Default:         "maybe",
		DefaultApproval: Gate{Count: 1},
		ActionTypes:     map[string][]string{"empty": nil, "bad": {"   ", "ls; id"}, " ": {"ls"}},
		Rules: []Rule{
			{Name: "a", Effect: "alow", Match: Match{Hosts: []string{""}}, Line: 7},
			{Name: "a", Effect: Allow, Match: Match{Roles: []string{"oprator"}, Origins: []string{"smtp"}}, Line: 9},
			{Effect: Deny, Match: Match{Programs: []string{"rm -rf"}}},
			{Name: "default", Effect: Deny, Match: Match{Labels: map[string]string{"": "x"}}},
			{Name: "who", Effect: Allow, Match: Match{Hosts: []string{"x\x01"}}, Approval: Gate{Roles: []string{"boss"}}, Line: 20},
			{Name: "how", Effect: RequireApproval, Match: Match{ActionTypes: []string{"none"}, Writes: []string{"/tmp/../x"}}, Approval: Gate{Count: -1, Timeout: -1}, Line: 25},
			{Name: "step", Effect: Deny, Match: Match{Programs: []string{"ls"}}},
			{Name: "all", Effect: Deny, Line: 30},
			{Name: "late", Effect: Allow, Match: Match{Programs: []string{"ls"}}, Line: 33},
		},
	})
	e := fault.From(err)
	if e == nil || e.Kind != fault.Invalid || e.Reason != fault.ReasonBadConfig || e.Hint == "" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []struct{ path, text string }{
		{"policy.default", `the default: "maybe" is no effect`},
		{"policy.default_approval", "says who approves"},
		{"policy.action_types.empty", "no commands"},
		{"policy.action_types.bad", "is empty"},
		{"policy.action_types.bad", "shell grammar"},
		{"policy.action_types. ", "needs a name"},
		{"policy.rules[0].effect", `rule "a" (line 7): "alow" is no effect (allow, deny, require_approval); did you mean allow?`},
		{"policy.rules[0].match.hosts", "a pattern is empty"},
		{"policy.rules[1].name", `rule "a" (line 9) has the name of rule 1`},
		{"policy.rules[1].match.roles", "did you mean operator?"},
		{"policy.rules[1].match.origins", `"smtp" is no origin`},
		{"policy.rules[2].name", "rule 3 has no name"},
		{"policy.rules[2].match.programs", "has a blank in it"},
		{"policy.rules[3].name", "stands for something else"},
		{"policy.rules[3].match.labels", "a label needs a name"},
		{"policy.rules[4].match.hosts", "not text"},
		{"policy.rules[4].approval", "says who approves"},
		{"policy.rules[4].approval.roles", `"boss" is no role`},
		{"policy.rules[5].approval.count", "-1 people cannot approve"},
		{"policy.rules[5].approval.timeout", "negative"},
		{"policy.rules[5].match.action_types", `nobody defines the action type "none"`},
		{"policy.rules[5].match.writes", ".. in it"},
		{"policy.rules[6].name", "stands for something else"},
		{"policy.rules[8]", `rule "late" (line 33) is never reached, since rule "all" (line 30)`},
	} {
		if !slices.ContainsFunc(e.Fields, func(f fault.Field) bool { return f.Path == want.path && strings.Contains(f.Message, want.text) }) {
			t.Errorf("%s: nothing says %q", want.path, want.text)
		}
	}
	if len(e.Fields) != 24 || t.Failed() {
		for _, f := range e.Fields {
			t.Log(f.Path, f.Message)
		}
		t.Errorf("%d problems, want 24", len(e.Fields))
	}
}

func TestWarnings(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "sh", Effect: Allow, Match: Match{Programs: []string{"ls", "bash"}}, Line: 3},
		{Name: "py", Effect: Allow, Match: Match{Programs: []string{"/usr/bin/py*"}}},
		{Name: "fine", Effect: Allow, Match: Match{Programs: []string{"tar"}, Args: []string{"tf", "*.tar"}}},
		{Name: "fine2", Effect: RequireApproval, Match: Match{Programs: []string{"*"}}},
		{Name: "fine3", Effect: Allow, Match: Match{Commands: []string{"git status"}}},
	}})
	w := p.Warnings()
	if len(w) != 2 || !strings.Contains(w[0], `rule "sh" (line 3) allows bash`) || !strings.Contains(w[1], "such as python") {
		t.Errorf("warnings %q", w)
	}
}

// A last * of a pattern does not let through as whom else something runs.
func TestUsersStayWhoTheyAre(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "look", Effect: Allow, Match: Match{Programs: []string{"ls", "./deploy"}}},
		{Name: "app", Effect: Allow, Match: Match{Commands: []string{"sudo -u app *", "doas -u app *", "runuser -u app *", "ssh h *", "chroot /jail *", "su app -c *"}}},
	}})
	for _, l := range []string{"sudo -u app ls", "sudo -u app -n -- ls", "doas -u app ls", "runuser -u app -- ls", "ssh h ls", "ssh h -t ls", "chroot /jail ls", "su app -c ls",
		"sudo -u app ./deploy"} {
		if d := p.Decide(line(l)); d.Effect != Allow {
			t.Errorf("%q is %s: %s", l, d.Effect, d.Reason)
		}
	}
	for _, l := range []string{"sudo -u app -u root ls", "sudo -u app -uroot ls", "sudo -u app --user=root ls", "sudo -u app -g root ls", "doas -u app -u root ls",
		"runuser -u app -u root ls", "ssh h -l root ls", "ssh h -o User=root ls", "ssh h -p 23 ls", "chroot /jail ./deploy", "ssh h ./deploy", "su app -c ./deploy -"} {
		if d := p.Decide(line(l)); d.Effect != Deny {
			t.Errorf("%q is %s by %s", l, d.Effect, d.Rule)
		}
	}
}

// Of the request's variables only the names are known, so those count of which
// some value does something.
func TestInheritedVariables(t *testing.T) {
	p := lookers(t)
	for _, name := range []string{"LINES", "COLUMNS", "DEBIAN_FRONTEND", "telexec_shell", "telexec_line"} {
		if d := p.Decide(Request{Line: "ls", EnvNames: []string{name}}); d.Effect != Deny {
			t.Errorf("%s is %s", name, d.Effect)
		}
	}
	for l, want := range map[string]Effect{
		"DEBIAN_FRONTEND=noninteractive ls":                    Allow,
		"export DEBIAN_FRONTEND=noninteractive; ls":            Allow,
		"DEBIAN_FRONTEND='Noninteractive; BEGIN{exec 0} #' ls": Deny,
		"env DEBIAN_FRONTEND=\"$x\" ls":                        Deny,
		"telexec_shell=/tmp/x; ls":                             Deny,
	} {
		if d := p.Decide(line(l)); d.Effect != want {
			t.Errorf("%q is %s", l, d.Effect)
		}
	}
}

// A Policy is shared by all who ask.
func TestConcurrentDecisions(t *testing.T) {
	p := lookers(t)
	lines := corpus(t, "honest.txt")
	var want []string
	for _, l := range lines {
		want = append(want, p.Decide(line(l)).Reason)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i, l := range lines {
				if got := p.Decide(line(l)).Reason; got != want[i] {
					t.Errorf("%q: %s, before %s", l, got, want[i])
				}
			}
		})
	}
	wg.Wait()
}

// Whatever the length and however deep, the time is bounded and the parser does
// not run out of stack.
func TestHostileTexts(t *testing.T) {
	p := lookers(t)
	const n = 110_000
	for name, text := range map[string]string{
		"brackets":      strings.Repeat("(", n),
		"many files":    strings.Repeat("{ ", 1000) + strings.Repeat("ls;", 990) + strings.Repeat("}"+strings.Repeat(" >x", 16)+";", 1000),
		"files in text": "sh -c '" + strings.Repeat("ls;", 990) + "'" + strings.Repeat(" >x", 16),
		"substitutions": strings.Repeat("$(", n/2),
		"backquotes":    strings.Repeat("`", n),
		"braces":        strings.Repeat("{ ", n/2),
		"ifs":           strings.Repeat("if ", n/3),
		"ifs, masked":   strings.Repeat("if echo fi\n", n/11),
		"nots":          strings.Repeat("! ", n/2),
		"whiles":        strings.Repeat("while ", n/6),
		"expansions":    strings.Repeat("${x:-", n/5),
		"quotes":        strings.Repeat(`"$x"`, n/4),
		"pipes":         strings.Repeat("ls|", n/3) + "ls",
		"ands":          strings.Repeat("ls&&", n/4) + "ls",
		"lines":         strings.Repeat("ls\n", n/3),
		"here":          "cat " + strings.Repeat("<<a ", n/4) + "\n",
		"heres":         strings.Repeat("cat <<a\na\n", n/10),
		"redirections":  "ls " + strings.Repeat(">/dev/null ", n/11),
		"arithmetic":    "echo $((" + strings.Repeat("(", n) + "1))",
		"sum":           "echo $((" + strings.Repeat("1+", n/2) + "1))",
		"words":         "ls" + strings.Repeat(" x", n/2),
		"one word":      "ls " + strings.Repeat("x", n),
		"stars":         "ls " + strings.Repeat("*", n),
		"assignments":   strings.Repeat("a=1 ", n/4) + "ls",
		"variables": func() string {
			var b strings.Builder
			for i := range n / 12 {
				b.WriteString("A" + strings.Repeat("x", i%7) + string(rune('A'+i%26)) + "=1 ")
			}
			return b.String() + "ls"
		}(),
		"cases":    strings.Repeat("case x in x) ", n/13),
		"nested":   "echo " + strings.Repeat("$(echo ", 900) + strings.Repeat(")", 900),
		"nested 2": strings.Repeat("(", 1900) + "ls" + strings.Repeat(")", 1900),
		"evals":    strings.Repeat("eval ", n/5) + "ls",
		"envs":     strings.Repeat("env ", n/4) + "ls",
		"nices":    strings.Repeat("nice ", 15) + "ls",
		"sh":       strings.Repeat("sh -c ", n/6) + "ls",
		"find":     "find . " + strings.Repeat("-exec ls {} + ", n/14),
		"escapes":  strings.Repeat(`\`, n),
		"too long": strings.Repeat("ls ", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			d := p.Decide(line(text))
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("took %s", took)
			}
			_ = d
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	p := lookers(b)
	for name, text := range map[string]string{
		"short": "ls -la /var/log", "pipe": "cat /etc/hosts | grep -v '^#' | head -n 3", "sh": "sh -c 'ls; date'",
		"long": "grep x " + strings.Repeat("/var/log/file.log ", 6000), "hostile": "ls " + strings.Repeat(`"$x"`, 30_000),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p.Decide(Request{Line: text})
			}
		})
	}
}
