package sshexec

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/test/sshtest"
)

func TestShortcut(t *testing.T) {
	for _, c := range []struct {
		spec    command.Spec
		name    string
		builtin bool
	}{
		{spec: command.Spec{Line: "uptime"}, name: "uptime"},
		{spec: command.Spec{Line: "  systemctl restart nginx.service "}, name: "systemctl"},
		{spec: command.Spec{Line: "/bin/ls -l /tmp"}, name: "/bin/ls"},
		{spec: command.Spec{Line: "true"}, name: "true", builtin: true},
		{spec: command.Spec{Line: "exit 3"}, name: "exit", builtin: true},
		{spec: command.Spec{Line: "exit"}},
		{spec: command.Spec{Line: "exit x"}},
		{spec: command.Spec{Line: "exit 256"}},
		{spec: command.Spec{Line: "exit -1"}},
		{spec: command.Spec{Line: "exit 1 2"}},
		{spec: command.Spec{Line: "pwd"}, name: "pwd", builtin: true},
		{spec: command.Spec{Line: "pwd -P"}},
		{spec: command.Spec{Line: "printf -v x"}},
		{spec: command.Spec{Line: "cd /tmp"}},
		{spec: command.Spec{Line: "exec ls"}},
		{spec: command.Spec{Line: "time ls"}},
		{spec: command.Spec{Line: "A=b ls"}},
		{spec: command.Spec{Line: "ls *"}},
		{spec: command.Spec{Line: "ls ~"}},
		{spec: command.Spec{Line: "ls | wc"}},
		{spec: command.Spec{Line: "ls; ls"}},
		{spec: command.Spec{Line: "ls\nls"}},
		{spec: command.Spec{Line: "ls\tx"}},
		{spec: command.Spec{Line: "echo $HOME"}},
		{spec: command.Spec{Line: "echo 'a'"}},
		{spec: command.Spec{Line: "ls # all"}},
		{spec: command.Spec{Line: "-x"}},
		{spec: command.Spec{Line: "+x"}},
		{spec: command.Spec{Line: "%1"}},
		{spec: command.Spec{Line: " "}},
		{spec: command.Spec{Line: "uptime", LoginShell: true}},
		{spec: command.Spec{Line: "uptime", Env: map[string]string{"PWD": "/"}}},
		{spec: command.Spec{Argv: []string{"ls", "a b", "$x", "it's"}}, name: "ls"},
		{spec: command.Spec{Argv: []string{"echo", "-n", "*"}}, name: "echo", builtin: true},
		{spec: command.Spec{Argv: []string{"my prog"}}},
		{spec: command.Spec{Argv: []string{"eval", "x"}}},
		{spec: command.Spec{Argv: []string{""}}},
	} {
		if name, builtin := shortcut(&c.spec); name != c.name || builtin != c.builtin {
			t.Errorf("%q %q: %q, %v, want %q, %v", c.spec.Line, c.spec.Argv, name, builtin, c.name, c.builtin)
		}
	}
}

// asSh gives, for each shell here, a path that makes it be sh.
func asSh(t testing.TB) map[string]string {
	paths := map[string]string{}
	for _, shell := range []string{"dash", "bash", "busybox", "ksh", "mksh", "zsh"} {
		program, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("no %s here", shell)
			continue
		}
		paths[shell] = filepath.Join(t.TempDir(), "sh")
		if err := os.Symlink(program, paths[shell]); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// outcome is all that can be seen of a command.
type outcome struct{ stdout, stderr, state string }

// both runs a command with its shortcut and without, where sh stands for
// /bin/sh; with direct the shell is the login shell as well.
func both(t testing.TB, spec *command.Spec, sh string, direct bool) (short, long outcome) {
	t.Helper()
	name, builtin := shortcut(spec)
	if name == "" {
		t.Fatalf("%q takes no shortcut", spec.CommandLine())
	}
	if builtin {
		name = "-" + name
	}
	program := startProgram("NONCE", "id", spec, direct)
	without := strings.Replace(program, "telexec_short="+expression(name), "telexec_short=", 1)
	if without == program {
		t.Fatal("the program has no shortcut")
	}
	run := func(program string) outcome {
		cmd := exec.Command(sh, "-c", strings.ReplaceAll(program, "/bin/sh", sh))
		if direct {
			cmd.Args[0] = "sh" // as sshd names it
		}
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "SHELL=" + sh, "SSH_CLIENT=127.0.0.1 1 2", "IFS=x", "OPTIND=7", "PWD=/no", "BASH_FUNC_hostid%%=() { echo function; }"}
		cmd.Stdin = strings.NewReader("input\n")
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		g, before, after, ok := findGreeting("NONCE", []byte(stderr.String()))
		if !ok || len(before) > 0 || g.refused != "" {
			t.Fatalf("%q: no greeting: %q", spec.CommandLine(), stderr.String())
		}
		return outcome{stdout.String(), string(after), cmd.ProcessState.String()}
	}
	return run(program), run(without)
}

// What takes the shortcut comes out as it does without, to the letter, in every
// shell that is /bin/sh somewhere.
func TestShortcutChangesNothing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain": "echo script $0 $*\n", "mine": "#!/bin/dash\nread x; echo $0 $* $x; exit 9\n",
		"bashful": "#!/bin/bash\necho $SHLVL\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var specs []command.Spec
	for _, line := range []string{
		"true", "false", "true x", "exit 7", "exit 0", "echo", "echo a b -n", "echo -n a", "echo -e a", "pwd",
		"sh -c exit", "env", "uname -s", "  uname   -s  ", "hostid", "sleep 0", "head -n 1", "/bin/false", "./plain a b", "plain a", "./mine a b", "./bashful", "no-such-program x", "./no-such x", "/no/such", "/etc/passwd", "/etc", "etc", "./", "/", "a:b", "@", ",", "_",
		"ls --no-such-option", "tty",
	} {
		specs = append(specs, command.Spec{Line: line, WorkingDirectory: dir})
	}
	for _, line := range []string{"pwd", "env"} {
		specs = append(specs, command.Spec{Line: line}, command.Spec{Line: line, WorkingDirectory: link})
	}
	specs = append(specs,
		command.Spec{Argv: append([]string{"echo"}, nasty...)},
		command.Spec{Argv: append([]string{"/usr/bin/printf", "<%s>"}, nasty...)},
		command.Spec{Argv: []string{"env", "A=b c", "sh", "-c", `echo "$A"`}},
	)
	for shell, sh := range asSh(t) {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			for _, spec := range specs {
				for _, direct := range []bool{false, true} {
					if short, long := both(t, &spec, sh, direct); short != long {
						t.Errorf("%q in %q, direct %v:\n%+v, read by a shell\n%+v", spec.CommandLine(), spec.WorkingDirectory, direct, short, long)
					}
				}
			}
		})
	}
}

// A signal is told as it was, whatever the shell would have made of it.
func TestShortcutTellsTheSignal(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dies")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nkill -TERM $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for shell, sh := range asSh(t) {
		if short, _ := both(t, &command.Spec{Line: file}, sh, false); shell == "dash" && short != (outcome{state: "signal: terminated"}) {
			t.Errorf("%s: %+v", shell, short)
		}
	}
}

// A login shell that is not /bin/sh leaves the line to it.
func TestShortcutNotInAnotherShell(t *testing.T) {
	program := startProgram("NONCE", "id", &command.Spec{Argv: []string{"echo", `a\tb`}}, true)
	for shell, sh := range asSh(t) {
		cmd := exec.Command(sh, "-c", program)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SHELL=" + sh}
		got, err := cmd.Output()
		want, _ := exec.Command("/bin/sh", "-c", `echo 'a\tb'`).Output()
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %q, %v, want what /bin/sh says: %q", shell, got, err, want)
		}
	}
}

// Over a real server, with a terminal and a directory; a semicolon behind the
// line makes a shell read it.
func TestShortcutOnAHost(t *testing.T) {
	h := start(t, sshtest.Options{User: sshtest.PlainUser(t)})
	for _, line := range []string{"true", "exit 7", "echo a b", "pwd", "tty", "uname -s", "no-such-program x"} {
		for _, pty := range []*command.Pty{nil, {}} {
			short := command.Spec{Line: line, Pty: pty, WorkingDirectory: "/usr"}
			long := short
			long.Line += ";"
			out1, err1, exit1 := h.line(short)
			out2, err2, exit2 := h.line(long)
			// The two take turns on the terminals there are.
			if line == "tty" && pty != nil {
				out1, out2 = out1[:min(8, len(out1))], out2[:min(8, len(out2))]
			}
			if out1 != out2 || err1 != err2 || code(exit1) != code(exit2) {
				t.Errorf("%q: %q, %q, %s; read by a shell %q, %q, %s", line, out1, err1, code(exit1), out2, err2, code(exit2))
			}
		}
	}
}

// Whatever a program is given comes through the shortcut as through a shell.
func FuzzShortcut(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, "a b")
	}
	shells := asSh(f)
	for shell := range shells {
		if shell != "dash" && shell != "busybox" {
			delete(shells, shell) // where no shortcut is taken
		}
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a+b, "\x00") || len(a+b) > 10_000 {
			return
		}
		specs := []command.Spec{{Argv: []string{"/usr/bin/printf", "<%s>", a, b}}, {Argv: []string{"echo", a, b}}}
		if plainWords(a) {
			specs = append(specs, command.Spec{Line: "echo " + a}, command.Spec{Line: "env printf %s, " + a})
		}
		for _, spec := range specs {
			for shell, sh := range shells {
				if short, long := both(t, &spec, sh, false); short != long {
					t.Errorf("%s: %q: %+v, read by a shell %+v", shell, spec.CommandLine(), short, long)
				}
			}
		}
	})
}
