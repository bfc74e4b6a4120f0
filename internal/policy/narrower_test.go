package policy_test

import (
	"testing"

	. "github.com/telexec/telexec/internal/policy"
)

func TestNarrower(t *testing.T) {
	for _, c := range []struct {
		old, new Request
		want     bool
	}{
		{line("ls"), line("ls"), true},
		{line("ls  -l"), line("ls -l"), true},
		{line("ls"), line("ls -l"), false},
		{line("ls; date"), line("date"), true},
		{line("ls; date; df"), line("ls; df"), true},
		{line("ls; date"), line("date; ls"), false},
		{line("ls && date"), line("ls"), true},
		{line("ls && date"), line("date"), false},
		{line("ls && date"), line("ls; date"), false},
		{line("test -f x && rm x"), line("rm x"), false},
		{line("cd /x; rm y"), line("rm y"), false},
		{line("cd /x; rm y; ls"), line("cd /x; rm y"), true},
		{line("ls | grep x"), line("ls | grep x"), true},
		{line("ls | grep x"), line("ls"), false},
		{line("echo x > a"), line("echo x > a"), true},
		{line("echo x > a"), line("echo x > b"), false},
		{line("echo x > a"), line("echo x"), false},
		{line("ls $x"), line("ls $x"), false},
		{line("$x"), line("$x"), false},
		{line("cat <<E\nx\nE"), line("cat <<E\ny\nE"), false},
		{line("PATH=x ls"), line("PATH=y ls"), false},
		{line("ls; date"), line("ls; id"), false},
		{line("ls"), line("'"), false},
		{line("ls"), line(""), false},
		{Request{Line: "ls", Host: "a"}, Request{Line: "ls", Host: "b"}, false},
		{Request{Line: "ls", Directory: "/a"}, Request{Line: "ls", Directory: "/b"}, false},
		{Request{Line: "ls", Sudo: true}, Request{Line: "ls"}, true},
		{Request{Line: "ls"}, Request{Line: "ls", Sudo: true}, false},
		{Request{Line: "ls", Sudo: true, SudoUser: "a"}, Request{Line: "ls", Sudo: true, SudoUser: "b"}, false},
		{Request{Line: "ls", LoginShell: true}, Request{Line: "ls"}, true},
		{Request{Line: "ls"}, Request{Line: "ls", LoginShell: true}, false},
		{Request{Line: "ls", EnvNames: []string{"A", "B"}}, Request{Line: "ls", EnvNames: []string{"B", "A"}}, true},
		{Request{Line: "ls", EnvNames: []string{"A"}}, Request{Line: "ls"}, false},
		{Request{Argv: []string{"ls", "a b"}}, Request{Argv: []string{"ls", "a b"}}, true},
		{Request{Argv: []string{"ls", "a b"}}, Request{Argv: []string{"ls", "a", "b"}}, false},
		{Request{Argv: []string{"ls", "a"}}, line("ls a"), true},
		{line("sudo -u app rm x; ls"), line("rm x"), false},
		{line("sudo -u app rm x; ls"), line("sudo -u app rm x"), true},
		{line("chroot /jail rm x"), line("rm x"), false},
		{line("busybox rm x"), line("rm x"), false},
		{line("find . -exec rm x \\;"), line("rm x"), false},
		{line("timeout 5 rm x"), line("rm x"), false},
		{line("exec ls; rm x"), line("ls; rm x"), false},
		{line("exec ls; rm x"), line("rm x"), false},
		{line("command exit; rm x"), line("rm x"), false},
		{line("env -i ./deploy"), line("./deploy"), false},
		{line("target=staging ./deploy"), line("target=prod ./deploy"), false},
		{line("env target=staging ./deploy"), line("env target=prod ./deploy"), false},
		{line("export target=staging; ./deploy"), line("./deploy"), false},
		{Request{Line: "ls", Sudo: true, SudoUser: "nobody"}, line("ls"), false},
	} {
		if got := Narrower(c.old, c.new); got != c.want {
			t.Errorf("%+v → %+v: %v", c.old, c.new, got)
		}
	}
}

// One word of what a shell is told, and something else happens.
func TestNarrowerComparesAllOfACommand(t *testing.T) {
	for _, c := range []struct{ old, new string }{
		// The operator, the file descriptor, what it is, and the order of them.
		{"echo x >> y", "echo x > y"},
		{"echo x > y", "echo x >> y"},
		{"echo x > y", "echo x >| y"},
		{"cat x <> y; ls", "cat x > y"},
		{"sh 3< x; id", "sh < x"},
		{"cat 3< x; id", "cat < x"},
		{"cat 0< x; id", "cat 3< x"},
		{"echo x 2> y", "echo x > y"},
		{"echo x 2> y; ls", "echo x 1> y"},
		{"sh < /dev/null; ls", "sh"},
		{"sh; ls", "sh < /dev/null"},
		{"make > /dev/null; ls", "make"},
		{"make 2> /dev/null; ls", "make > /dev/null"},
		{"make > x 2>&1; ls", "make > x"},
		{"make > x 2>&1; ls", "make 2>&1 > x"},
		{"make > x >&2; ls", "make > x"},
		{"make 2>&1; ls", "make 2>&-"},
		{"sh <&-; ls", "sh"},
		{"sh <&-; ls", "sh <&0"},
		{"cat < x < y; ls", "cat < y < x"},
		{"cat < x > y; ls", "cat < y > x"},
		{"exec > x; ls; id", "exec 2> x; ls"},
		{"export LANG=C > x; ls", "export LANG=C >> x"},

		// Documents, also those of a text in the text.
		{"cat <<E\nx\nE\nls", "cat <<E\ny\nE"},
		{"cat <<E\nx\nE\nls", "cat"},
		{"sh -c sh <<E\nls\nE\nls", "sh -c sh <<E\nid\nE"},
		{"eval sh <<E\nls\nE\nls", "eval sh"},
		{"sh -c 'sh <<E\nls\nE'; ls", "sh -c 'sh <<E\nid\nE'"},

		// Assignments, harmless ones too.
		{"COLUMNS=5 ls; id", "COLUMNS=7 ls"},
		{"COLUMNS=5 ls; id", "ls"},
		{"ls; id", "COLUMNS=5 ls"},
		{"DEBIAN_FRONTEND=noninteractive apt upgrade; id", "DEBIAN_FRONTEND=readline apt upgrade"},
		{"COLUMNS=5; ls; id", "ls"},
		{"ls; id", "COLUMNS=5; ls"},
		{"env COLUMNS=5 ls; id", "env COLUMNS=7 ls"},
		{"export COLUMNS=5; ls; id", "export COLUMNS=7; ls"},
		{"LANG=C ls; id", "LANG=de ls"},

		// What stands around a command.
		{"ls & id", "ls; id"},
		{"ls; id", "ls &"},
		{"ls & id", "ls"},
		{"ls; id &", "ls; id"},
		{"! ls; id", "ls"},
		{"ls; id", "! ls"},
		{"! ls && id", "ls && id"},
		{"ls | id", "ls; id"},
		{"ls | id", "ls || id"},
		{"ls || id", "ls && id"},
		{"ls || id", "id"},
		{"ls; id", "ls | id"},
		{"(cd /x; ls); id", "cd /x; ls; id"},
		{"(exit); id", "exit; id"},
		{"{ ls; id; } > x", "ls; id"},
		{"{ ls; id; } > x", "{ ls; id; } >> x"},
		{"(ls; id) 2> x", "(ls; id) > x"},
		{"if ls; then id; fi", "ls; id"},
		{"if ls; then id; fi", "if id; then ls; fi"},
		{"if ls; then id; else w; fi", "if ls; then w; else id; fi"},
		{"while ls; do id; done", "until ls; do id; done"},
		{"while ls; do id; done", "ls; id"},
		{"for f in a b; do ls; done", "ls"},
		{"for f in a b; do ls; done", "for f in a b c; do ls; done"},
		{"case a in a) ls;; esac; id", "ls; id"},
		{"case a in b) ls;; esac", "case a in a) ls;; esac"},
		{"case ${x?} in *) ;; esac; id", "id"},
		{"case ${x?} in *) ;; esac; ls; id", "ls"},
		{"ls; id", "time ls"},
		{"time ls; id", "ls"},
		{"ls; id", "time; ls"},
		{"(ls)", "ls"},
		{"f() { ls; }; f; id", "f"},

		// What a shell does at its end, or to what follows.
		{"trap 'rm x' EXIT; ls; trap - EXIT", "trap 'rm x' EXIT; ls"},
		{"trap 'rm x' EXIT; ls; exec id", "trap 'rm x' EXIT; ls"},
		{"ls; trap 'rm x' EXIT; df; trap - EXIT", "trap 'rm x' EXIT; df"},
		{"command trap 'rm x' EXIT; ls; command trap - EXIT", "command trap 'rm x' EXIT; ls"},
		{". ./traps; ls; . ./none", ". ./traps; ls"},
		{"bye; rm x", "rm x"},
		{"newgrp x; rm y", "rm y"},
	} {
		if Narrower(line(c.old), line(c.new)) {
			t.Errorf("%q → %q", c.old, c.new)
		}
	}
	for _, c := range []struct{ old, new string }{
		{"echo x >> y; ls", "echo x >> y"},
		{"ls; echo x >> y 2>&1", "echo x >>y 2>&1"},
		{"make > /dev/null 2>&1; ls", "make >/dev/null 2>&1"},
		{"{ ls; id; } > x", "{ ls; id; } > x"},
		{"COLUMNS=5 ls", "COLUMNS=5 ls"},
		{"time ls", "time ls"},
		{"trap 'rm x' EXIT; ls", "trap 'rm x' EXIT; ls"},
		{"case a in a) ls;; esac", "case a in a) ls;; esac"},
	} {
		if !Narrower(line(c.old), line(c.new)) {
			t.Errorf("%q → %q is not", c.old, c.new)
		}
	}
}

// The first of two takes the input, and without it the second gets it.
func TestNarrowerLeavesTheInputWhereItGoes(t *testing.T) {
	for _, c := range []struct {
		old, new string
		want     bool
	}{
		{"cat; sh", "sh", false},
		{"cat; ls; sh", "cat; sh", false},
		{"cat; sh", "cat", true},
		{"cat; sh", "cat; sh", true},
		{"cat; sh", "cat  ;sh", true},
	} {
		if got := Narrower(Request{Line: c.old, Input: true}, Request{Line: c.new, Input: true}); got != c.want {
			t.Errorf("with input: %q → %q: %v", c.old, c.new, got)
		}
	}
	if !Narrower(line("cat; sh"), line("sh")) {
		t.Error("without input nothing is taken from anybody")
	}
	if Narrower(line("sh"), Request{Line: "sh", Input: true}) {
		t.Error("it has input now")
	}
}
