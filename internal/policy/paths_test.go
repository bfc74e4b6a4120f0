package policy_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/telexec/telexec/internal/policy"
)

func TestArgumentsLeadNowhereElse(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "no-etc", Effect: Deny, Match: Match{Programs: []string{"cat"}, Args: []string{"/etc/*"}}},
		{Name: "logs", Effect: Allow, Match: Match{Programs: []string{"cat"}, Args: []string{"/var/log/*", "--file=/srv/*"}}},
		{Name: "tails", Effect: Allow, Match: Match{Commands: []string{"tail /var/log/*", "ls *", "head ../log/*"}}},
	}})
	for l, want := range map[string]Effect{
		"cat /var/log/a": Allow, "cat /var/log/a/b..c": Allow, "cat < /var/log/a": Allow, "tail /var/log/a": Allow, "ls /var/log/../x": Allow, "head ../log/x": Allow,
		"cat /var/log/../../etc/shadow": Deny, "cat /var/log/..": Deny, "cat --file=/srv/../etc/x": Deny, "cat < /var/log/../x": Deny, "tail /var/log/../../etc/shadow": Deny,
		"cat /etc/../etc/shadow": Deny,
	} {
		if d := p.Decide(line(l)); d.Effect != want {
			t.Errorf("%q is %s by %s", l, d.Effect, d.Rule)
		}
	}
	if d := p.Decide(line("cat /etc/../etc/shadow")); d.Rule != "no-etc" {
		t.Errorf("denied by %s", d.Rule)
	}
}

func TestDenyListsReadPaths(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "no-rm", Effect: Deny, Match: Match{Programs: []string{"rm"}}},
		{Name: "no-etc", Effect: Deny, Match: Match{Writes: []string{"/etc/**"}}},
	}})
	for _, l := range []string{"/bin/./rm x", "//bin/rm x", "/usr/bin/../bin/rm x", "echo > /etc/./x", "echo > /etc/../etc/x", "echo >//etc/x/y", "jobs -x rm x"} {
		if d := p.Decide(line(l)); d.Effect != Deny {
			t.Errorf("%q is %s", l, d.Effect)
		}
	}
	for _, l := range []string{"/bin/./ls", "./rm x", "echo > /tmp//x", "/usr//bin/printf '%d' x"} {
		if d := p.Decide(line(l)); d.Effect != Allow {
			t.Errorf("%q is %s: %s", l, d.Effect, d.Reason)
		}
	}
}

// A path is the same one however it is written and from wherever it is named.
func TestRestrictingRulesFollowPaths(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "shadow", Effect: Deny, Match: Match{Args: []string{"/etc/shadow", "-f/etc/shadow"}}},
		{Name: "keys", Effect: Deny, Match: Match{Programs: []string{"dd", "cp"}, Args: []string{"of=/srv/keys/*", "--target-directory=/srv/keys"}}},
		{Name: "etc", Effect: Deny, Match: Match{Writes: []string{"/etc/**", "**/.profile"}}},
		{Name: "rm", Effect: Deny, Match: Match{Programs: []string{"rm"}}},
		{Name: "tool", Effect: Deny, Match: Match{Programs: []string{"/opt/app/wipe"}}},
		{Name: "stop", Effect: Deny, Match: Match{Commands: []string{"touch /run/stop"}}},
		{Name: "boot", Effect: RequireApproval, Match: Match{Writes: []string{"/boot/*"}}},
	}})
	for _, e := range []expect{
		{line("cat /etc/shadow"), Deny, "shadow"},
		{line("cat /etc//shadow"), Deny, "shadow"},
		{line("cat //etc/shadow"), Deny, "shadow"},
		{line("cat /etc/./shadow"), Deny, "shadow"},
		{line("cat /etc/shadow/"), Deny, "shadow"},
		{line("cat /etc/../etc/shadow"), Deny, "shadow"},
		{line("cat < /etc/./shadow"), Deny, "shadow"},
		{line("grep -f/etc//shadow x"), Deny, "shadow"},
		{line("cat < /etc/shadow"), Deny, "shadow"},
		{line("cd /etc; cat shadow"), Deny, "shadow"},
		{line("cd /etc; cat ./shadow"), Deny, "shadow"},
		{line("cd /etc; cat < shadow"), Deny, "shadow"},
		{line("cd /; cat etc/shadow"), Deny, "shadow"},
		{line("cd /; cd etc; cat shadow"), Deny, "shadow"},
		{line("cd /usr/lib/..; cat ../etc/shadow"), Deny, "shadow"},
		{line("cd x; cat ../../../etc/shadow"), Deny, "shadow"},
		{line("cat ../../etc/shadow"), Deny, "shadow"},
		{line("cat x/../../../etc//shadow"), Deny, "shadow"},
		{line("cat < ../../etc/shadow"), Deny, "shadow"},
		{line("pushd /etc; cat shadow"), Deny, "shadow"},
		{line("cd -P /etc; cat shadow"), Deny, "shadow"},
		{line("cd; cat shadow"), Deny, "shadow"},
		{line("popd; cat shadow"), Deny, "shadow"},
		{line("CDPATH=/ ; cd etc; cat shadow"), Deny, "shadow"},
		{line("sh -c 'cd /etc; cat shadow'"), Deny, "shadow"},
		{line("command cd /etc; cat shadow"), Deny, "shadow"},
		{line("while cat shadow; do cd /etc; done"), Deny, "shadow"},
		{line("ssh h cat shadow"), Deny, "shadow"},
		{line("find . -execdir cat shadow \\;"), Deny, "shadow"},
		{Request{Line: "cat shadow", Directory: "/etc"}, Deny, "shadow"},
		{Request{Argv: []string{"cat", "./shadow"}, Directory: "/etc/"}, Deny, "shadow"},
		{Request{Line: "cat ../shadow", Directory: "/etc/ssh"}, Deny, "shadow"},
		{Request{Line: "cat shadow", Directory: "~root"}, Deny, "shadow"},
		{line("cp --target-directory=/srv/./keys x"), Deny, "keys"},
		{line("cd /srv; dd if=x of=keys/a"), Deny, "keys"},
		{line("dd if=x of=/srv/x/../keys/a"), Deny, "keys"},
		{line("dd if=x of=../../srv/keys/a"), Deny, "keys"},

		{line("cd /etc; echo x > passwd"), Deny, "etc"},
		{line("echo x > ../../etc/passwd"), Deny, "etc"},
		{line("cd /; echo x >> etc/passwd"), Deny, "etc"},
		{line("cd ..; echo x > etc/passwd"), Deny, "etc"},
		{line("echo x > .profile"), Deny, "etc"},
		{line("cd /x; echo x > ./.profile"), Deny, "etc"},
		{line("cd sub && find . -fprint ../../../etc/x"), Deny, "etc"},
		{line("chroot /x sh -c 'echo x > passwd'"), Deny, "etc"},

		{line("cd /bin; ./rm x"), Deny, "rm"},
		{line("cd /usr; bin/rm x"), Deny, "rm"},
		{line("cd /usr/lib; ../bin/./rm x"), Deny, "rm"},
		{line("../../bin/rm x"), Deny, "rm"},
		{line("../../../usr/local/bin/rm x"), Deny, "rm"},
		{line("cd ..; ../bin/rm x"), Deny, "rm"},
		{Request{Line: "./rm x", Directory: "/usr/bin"}, Deny, "rm"},
		{line("cd /opt; app/wipe"), Deny, "tool"},
		{line("../../opt/app/wipe"), Deny, "tool"},

		{line("touch /run//stop"), Deny, "stop"},
		{line("cd /run; touch stop"), Deny, "stop"},
		{line("touch ../../run/stop"), Deny, "stop"},

		{line("cd /boot; echo x > grub"), RequireApproval, "boot"},
		{line("tee < x > ./../../boot/grub"), Deny, "etc"}, // for all that is known, in /etc
	} {
		e.check(t, p)
	}
	// What cannot be one of those paths is not stopped.
	for _, q := range []Request{
		line("cat shadow"), line("cat ./shadow"), line("cat etc/shadow"), line("cat /etc/shadow-"), line("cat < shadow"),
		line("cd /srv/app && ls -l && cat x shadow"), line("cd /srv/app && make > build.log"), line("cd sub && grep -r x . | head"), line("cd sub; cat a/shadow/b"),
		line("cd /tmp; echo hello world"), line("ls ../x"), line("cat ../shadow.txt"), line("cd ../src && make"), line("cd sub && ls ..x"),
		line("echo x > passwd"), line("echo x > sub/../passwd"), line("cd /tmp; echo x > passwd"), line("echo x > etc/passwd"),
		line("./rm x"), line("cd /tmp; ./rm x"), line("cd /srv; tools/rm x"), line("../tools/rm x"), line("cd /tmp; ./sh x"), line("./watch x"),
		line("cd /srv; touch stop"), line("cd sub; touch run/stop"), line("dd of=keys/a"), line("dd of=/srv/keys2/a"),
		line("cd .."), line("cd ../.. && make"), line("cd -- sub && cd ../x && make"),
		{Line: "cat shadow", Directory: "/srv"}, {Line: "echo x > a/passwd", Directory: "/srv/app"}, {Line: "./rm x", Directory: "/srv"},
	} {
		if d := p.Decide(q); d.Effect != Allow {
			t.Errorf("%q in %q is %s: %s", q.Line, q.Directory, d.Effect, d.Reason)
		}
	}
}

// What may be denied is not put before an approver, and what is allowed for one
// path is not for another way to it.
func TestPathsMakeNoRuleWider(t *testing.T) {
	p := newPolicy(t, Rules{Default: Deny, Rules: []Rule{
		{Name: "ask", Effect: RequireApproval, Match: Match{Programs: []string{"tee"}, Args: []string{"/srv/*"}}},
		{Name: "run", Effect: RequireApproval, Match: Match{Programs: []string{"reboot"}}},
		{Name: "look", Effect: Allow, Match: Match{Programs: []string{"cat"}, Args: []string{"/srv/a", "/var/log/*"}}},
		{Name: "say", Effect: Allow, Match: Match{Programs: []string{"echo", "cd"}, Writes: []string{"/srv/**", "**/out"}}},
		{Name: "tool", Effect: Allow, Match: Match{Programs: []string{"/srv/bin/*"}}},
		{Name: "whole", Effect: Allow, Match: Match{Commands: []string{"touch /srv/x"}}},
	}})
	for _, e := range []expect{
		{line("cat /srv/a"), Allow, "look"},
		{line("tee /srv/a"), RequireApproval, "ask"},
		{line("touch /srv/x"), Allow, "whole"},
	} {
		e.check(t, p)
	}
	for _, l := range []string{"cat /srv//a", "cat < /srv/./a", "cd /srv; cat a", "cat ../../srv/a", "cd /srv; echo x > a", "echo x > ../../srv/a", "echo x > out", "cd /srv/bin; ./x",
		"../../srv/bin/x", "/srv/./bin/x", "cd /srv; tee a", "tee ../../srv/a", "cd /sbin; ./reboot", "touch /srv//x", "cd /srv; touch x", "touch ../../srv/x"} {
		if d := p.Decide(line(l)); d.Effect != Deny {
			t.Errorf("%q is %s by %s", l, d.Effect, d.Rule)
		}
	}
	if d := p.Decide(Request{Line: "cat a", Directory: "/srv"}); d.Effect != Deny {
		t.Errorf("in a directory: %s by %s", d.Effect, d.Rule)
	}
}

// A program that runs others is not past a rule for those by another path.
func TestProgramsThatRunOthersByAnyPath(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "no-rm", Effect: Deny, Match: Match{Programs: []string{"rm"}}},
	}})
	for _, l := range []string{"//bin/sh -c 'rm x'", "/bin/./env rm x", "/usr/bin/../bin/find . -exec rm x \\;", "cd /bin; ./sh -c 'rm x'", "cd /usr; bin/strace rm x",
		"../../bin/busybox rm x", "./env rm x; cd /bin", "/usr//bin/tini rm x"} {
		if d := p.Decide(line(l)); d.Effect != Deny {
			t.Errorf("%q is %s: %s", l, d.Effect, d.Reason)
		}
	}
	for _, l := range []string{"./watch rm x", "cd /srv/app; ./script rm", "/opt/bin/env x", "bin/sh rm", "//bin/ls rm"} {
		if d := p.Decide(line(l)); d.Effect != Allow {
			t.Errorf("%q is %s: %s", l, d.Effect, d.Reason)
		}
	}
}

// However many places a line may be in, and whatever it names from there.
func TestPathsTakeBoundedTime(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "args", Effect: Deny, Match: Match{Args: []string{"/etc/*a*b*c", "*/shadow", "of=/srv/*/*", "/**/x?y", "/a/b/c"}}},
		{Name: "writes", Effect: Deny, Match: Match{Writes: []string{"/etc/**/*a*b*", "**/k", "/srv/**/a/**"}, Programs: []string{"rm", "/opt/**/x", "?m"}}},
		{Name: "commands", Effect: RequireApproval, Match: Match{Commands: []string{"cat /etc/*a /b* *", "touch /a*b*c"}}},
	}})
	const n = 100_000
	cds := "cd /a; cd b; cd ../c; "
	for name, text := range map[string]string{
		"words":     cds + "cat" + strings.Repeat(" ../x", n/5),
		"options":   cds + "cat" + strings.Repeat(" of=../x/a", n/10),
		"one word":  cds + "cat ../" + strings.Repeat("a/", n/2),
		"one file":  cds + "cat > ../" + strings.Repeat("ab/", n/3),
		"ups":       cds + "cat " + strings.Repeat("../", n/3),
		"programs":  cds + strings.Repeat("../x/rm;", 900),
		"files":     cds + strings.Repeat("cat >../a >../b >../c >../d;", 900),
		"changes":   strings.Repeat("cd a;", 900) + "cat" + strings.Repeat(" x", n/4),
		"changes 2": strings.Repeat("cd "+strings.Repeat("a/", 50)+";", 900),
	} {
		start := time.Now()
		p.Decide(line(text))
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("%s: took %s", name, took)
		} else {
			t.Log(name, took)
		}
	}
}

// Honest lines also go past rules that restrict what they do not touch.
func TestHonestCommandsRunBesideDenyLists(t *testing.T) {
	p := newPolicy(t, Rules{Default: Allow, Rules: []Rule{
		{Name: "etc", Effect: Deny, Match: Match{Writes: []string{"/etc/**"}}},
		{Name: "rm", Effect: Deny, Match: Match{Programs: []string{"rm", "/opt/**"}}},
		{Name: "shadow", Effect: Deny, Match: Match{Args: []string{"/etc/shadow"}, Programs: []string{"dd", "tee", "df", "cd"}}},
	}})
	for _, l := range corpus(t, "honest.txt") {
		if d := p.Decide(line(l)); d.Effect != Allow {
			t.Errorf("%q is %s: %s", l, d.Effect, d.Reason)
		}
	}
}
