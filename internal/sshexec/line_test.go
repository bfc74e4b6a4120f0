package sshexec

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/hostshell"
)

// interpreters are the shells here that may stand behind /bin/sh.
func interpreters(t testing.TB) [][]string {
	return installed(t, []string{"sh"}, []string{"dash"}, []string{"bash", "--posix"}, []string{"busybox", "sh"},
		[]string{"mksh"}, []string{"ksh"}, []string{"zsh", "--emulate", "sh"}, []string{"yash", "--posixly-correct"})
}

// loginShells are those here that an account may have.
func loginShells(t testing.TB) [][]string {
	return installed(t, []string{"sh"}, []string{"bash"}, []string{"dash"}, []string{"zsh"}, []string{"busybox", "sh"},
		[]string{"mksh"}, []string{"ksh"}, []string{"yash"}, []string{"fish"}, []string{"tcsh"}, []string{"csh"})
}

func installed(t testing.TB, shells ...[]string) (found [][]string) {
	for _, s := range shells {
		if _, err := exec.LookPath(s[0]); err == nil {
			found = append(found, s)
		} else {
			t.Logf("no %s here", s[0])
		}
	}
	return found
}

var nasty = []string{
	"", "plain", "'", "''", `"`, `\`, `\\`, `\'`, "!", "!!", "a!b", "$HOME", "${x}", "$(id)", "`id`", "$1", "$$", "%s", "%b",
	"\n", "\n\n", "a\n", "\na\n\nb\n\n", "\t", " ", "  a  ", "*", "?", "[a]", "~", "#", ";", "&", "|", "<", ">", "{a,b}", "^a^b",
	`\0101`, `\n`, `\c`, "é€😀", "\xff\xfe", "\x01\x02\x7f\x1b[0m", "é\n\n", "\xff\n", "a\r\nb", `'\''`, `"$x"`, "=", "-n", "@",
}

// What expression makes is the text again in every shell that may be /bin/sh,
// and it is printable and in one line.
func TestExpression(t *testing.T) {
	var program strings.Builder
	program.WriteString(`set -- "${IFS#??}"; set -- "${1%"${1#?}"}"; `)
	var want strings.Builder
	for _, text := range nasty {
		program.WriteString("printf '%s\\0' " + expression(text) + "; ")
		want.WriteString(text + "\x00")
	}
	if !hostshell.Printable(strings.ReplaceAll(program.String(), "\t", "")) {
		t.Error("not printable")
	}
	for _, shell := range interpreters(t) {
		if shell[0] == "yash" {
			continue // takes no bytes that are not characters
		}
		out, err := exec.Command(shell[0], append(shell[1:], "-c", program.String())...).CombinedOutput()
		if err != nil || string(out) != want.String() {
			t.Errorf("%v: %v\n%q, want\n%q", shell, err, out, want.String())
		}
	}
}

// What word makes is one word again for every login shell.
func TestWord(t *testing.T) {
	var words, want strings.Builder
	for _, text := range nasty {
		if plain(text) && !strings.Contains(text, "\n") {
			words.WriteString(" " + hostshell.Word(text))
			want.WriteString(text + "\n")
		}
	}
	for _, shell := range loginShells(t) {
		out, err := exec.Command(shell[0], append(shell[1:], "-c", "exec /bin/sh -c "+hostshell.Word(`printf "%s\n" "$@"`)+" x"+words.String())...).CombinedOutput()
		if err != nil || string(out) != want.String() {
			t.Errorf("%v: %v\n%q, want\n%q", shell, err, out, want.String())
		}
	}
}

// The whole request, through every login shell and with both deliveries: the
// text comes through and the pid told is that of the process started.
func TestRequestInEveryLoginShell(t *testing.T) {
	env := map[string]string{}
	for i, text := range nasty {
		env["V"+itoa(int64(i))] = text
	}
	whole := strings.Join(nasty, "\x00")
	specs := map[bool]*command.Spec{
		false: {Argv: append([]string{"printf", `%s\000`}, nasty...), WorkingDirectory: "/"},
		true:  {Line: "i=0; while [ $i -lt " + itoa(int64(len(nasty))) + ` ]; do eval "printf '%s\000' \"\$V$i\""; i=$((i+1)); done; cat`, Env: env},
	}
	for _, shell := range loginShells(t) {
		for private, spec := range specs {
			line, stdin, ok := request(startProgram("NONCE", "id", spec, false), private, false, false)
			if !ok || private != (stdin != "") {
				t.Fatal(ok, stdin)
			}
			cmd := exec.Command(shell[0], append(shell[1:], "-c", line)...)
			var stdout, stderr strings.Builder
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin+"rest"), &stdout, &stderr
			err := cmd.Run()
			g, before, after, found := findGreeting("NONCE", []byte(stderr.String()))
			want := whole + "\x00"
			if private {
				want += "rest"
			}
			if err != nil || !found || stdout.String() != want || len(before)+len(after) > 0 || g.pid != int64(cmd.Process.Pid) {
				t.Errorf("%v: %v\n%q, want\n%q\n%q", shell, err, stdout.String(), want, stderr.String())
			}
		}
	}
}

// attached.sh runs in every shell that may be /bin/sh, also without /proc.
func TestAttachedInEveryShell(t *testing.T) {
	program := startProgram("NONCE", "id", &command.Spec{Line: "printf '%s ' \"$TELEXEC_ID\"; pwd", WorkingDirectory: "usr/../usr"}, false)
	for _, shell := range interpreters(t) {
		for _, proc := range []string{"/proc", "/nonexistent"} {
			// BusyBox may prefer a ps of its own, which knows no start times.
			ps := exec.Command(shell[0], append(shell[1:], "-c", "ps -o lstart= -p $$")...)
			if proc == "/nonexistent" && ps.Run() != nil {
				t.Logf("%v has a ps without lstart", shell)
				continue
			}
			cmd := exec.Command(shell[0], append(shell[1:], "-c", strings.ReplaceAll(program, "/proc", proc))...)
			cmd.Dir = "/"
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			g, _, rest, ok := findGreeting("NONCE", []byte(stderr.String()))
			if err != nil || !ok || len(rest) > 0 || stdout.String() != "id /usr\n" || g.pid != int64(cmd.Process.Pid) || g.start == "-" || g.boot == "-" == (proc == "/proc") {
				t.Errorf("%v %s: %v, %q, %q, %+v", shell, proc, err, stdout.String(), stderr.String(), g)
			}
		}
	}
}

func TestAttachedIsAPlainWord(t *testing.T) {
	if s := attachedHead + attachedTail; strings.ContainsAny(s, "'\\!\n@") || attachedHead == "" || attachedTail == "" {
		t.Errorf("%q", s)
	}
}

func TestFindGreeting(t *testing.T) {
	const boot = "f00d"
	ok := "telexec:N: started 77 77 77 sh " + boot + " 123\n"
	for _, c := range []struct {
		in, before, after string
		who               identity
		refused           string
		done              bool
	}{
		{in: ok, who: identity{77, 77, 77, boot, "123"}, done: true},
		{in: "chat" + ok + "out", before: "chat", after: "out", who: identity{77, 77, 77, boot, "123"}, done: true},
		{in: ok + ok, after: ok, who: identity{77, 77, 77, boot, "123"}, done: true},
		{in: "telexec:N: started 77 5 6 other - Mon Nov 21\r\nx", after: "x", who: identity{77, 0, 0, "-", "Mon Nov 21"}, done: true},
		{in: "telexec:N: refused pty\n", refused: "pty", done: true},
		{in: "telexec:N: refused directory denied\n", refused: "directory denied", done: true},
		{in: "telexec:N: $x\" " + ok, before: "telexec:N: $x\" ", who: identity{77, 77, 77, boot, "123"}, done: true},
		{in: "telexec:N: " + strings.Repeat("x", 300) + ok, before: "telexec:N: " + strings.Repeat("x", 300), who: identity{77, 77, 77, boot, "123"}, done: true},
		{in: ok[:len(ok)-1]},
		{in: "telexec:M: started 77 77 77 sh f 1\n"},
		{in: "telexec:N: started 1 1 1 sh f 1\n"},
		{in: "telexec:N: started -7 7 7 sh f 1\n"},
		{in: "telexec:N: started 77 77 77 sh f\n"},
		{in: "telexec:N: started 77 77 77 sh  1\n"},
		{in: "telexec:N: started 77 77 x sh f 1\n"},
		{in: "telexec:N: started 77 77 77 fish f 1\n"},
		{in: "telexec:N: refused all\n"},
		{in: "telexec:N: \n"},
		{in: ""},
	} {
		g, before, after, done := findGreeting("N", []byte(c.in))
		if done != c.done || string(before) != c.before || string(after) != c.after || g.identity != c.who || g.refused != c.refused {
			t.Errorf("%q: %+v, %q, %q, %v", c.in, g, before, after, done)
		}
	}
}

func FuzzFindGreeting(f *testing.F) {
	f.Add([]byte("chat telexec:N: started 77 77 77 sh f 123\nout"))
	f.Add([]byte("telexec:N: refused pty\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		g, before, after, done := findGreeting("N", in)
		if !done {
			return
		}
		if len(before)+len(after)+len("telexec:N: \n") > len(in) || !strings.HasPrefix(string(in), string(before)) || !strings.HasSuffix(string(in), string(after)) {
			t.Errorf("%q: %q, %q", in, before, after)
		}
		if g.refused == "" && g.pid <= 1 {
			t.Errorf("%q: %+v", in, g)
		}
	})
}

// A real sh gives back what went in, whatever it was.
func FuzzQuoting(f *testing.F) {
	for _, text := range nasty {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "\x00") || len(text) > 10_000 {
			return
		}
		program := `set -- "${IFS#??}"; set -- "${1%"${1#?}"}"; printf %s ` + expression(text)
		out, err := exec.Command("/bin/sh", "-c", "exec /bin/sh -c "+hostshell.Word(program)).CombinedOutput()
		if err != nil || string(out) != text {
			t.Errorf("%q: %q, %v", text, out, err)
		}
	})
}
