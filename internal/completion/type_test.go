package completion_test

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
)

func TestType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ shell, text, want string }{
		{"bash", "ls -l", "ls -l\r"},
		{"bash", "ls -l\n", "ls -l\r"},
		{"bash", "a && b | c; (d)", "a && b | c; (d)\r"},
		{"bash", `echo "$(date "+%s")" 'x y' a\ b`, `echo "$(date "+%s")" 'x y' a\ b` + "\r"},
		{"bash", "for i in 1 2; do echo $i; done", "for i in 1 2; do echo $i; done\r"},
		{"bash", "if a; then b; else c; fi", "if a; then b; else c; fi\r"},
		{"bash", "echo if done {", "echo if done {\r"},
		{"bash", "f() { a; }; f", "f() { a; }; f\r"},
		{"bash", "echo ${x#y} $((1 + 2))", "echo ${x#y} $((1 + 2))\r"},
		{"bash", "a\nb", "eval 'a\x16\nb'\r"},
		{"bash", "a\r\nb", "eval 'a\x16\nb'\r"},
		{"bash", "echo 'it\tis'", "eval 'echo '\\''it\x16\tis'\\'''\r"},
		{"bash", "! a; [ b != c ]; echo hi!", "! a; [ b != c ]; echo hi!\r"},
		{"bash", "echo hi!there ! a", "eval 'echo hi!there ! a'\r"},
		{"bash", "(exit 7); !(true)", "eval '(exit 7); !(true)'\r"},
		{"bash", "echo hi!;", "eval 'echo hi!;'\r"},
		{"bash", "^a^b", "eval '^a^b'\r"},
		{"zsh", "  ^a^b", "eval '  ^a^b'\r"}, // blanks do not count there
		{"zsh", `echo "hi!"`, `eval 'echo "hi!"'` + "\r"},
		{"sh", "^a^b", "eval '^a^b'\r"}, // which may be bash
		{"sh", "echo !x", "eval 'echo !x'\r"},
		{"dash", "echo !x", "echo !x\r"},
		{"bash", "echo a^b | grep -v ^c", "echo a^b | grep -v ^c\r"},
		{"bash", "a[1", "eval 'a[1'\r"},
		{"bash", "a[1 ]=2", "eval 'a[1 ]=2'\r"},
		{"bash", "echo $[1", "eval 'echo $[1'\r"},
		{"bash", "a[b[1]=2 >c[1", "eval 'a[b[1]=2 >c[1'\r"},
		{"bash", "true >c[1", "eval 'true >c[1'\r"},
		{"bash", `a["]"`, `eval 'a["]"'` + "\r"},
		{"bash", "a[b[1]]=2; [ -f x ] && ls [a-z]*; echo $[1+2] ]", "a[b[1]]=2; [ -f x ] && ls [a-z]*; echo $[1+2] ]\r"},
		{"bash", "echo 'open", "eval 'echo '\\''open'\r"},
		{"bash", "echo \"$(open\"", "eval 'echo \"$(open\"'\r"},
		{"bash", "a |", "eval 'a |'\r"},
		{"bash", "a &&", "eval 'a &&'\r"},
		{"bash", "a \\", "eval 'a \\'\r"},
		{"bash", "for i in 1; do a", "eval 'for i in 1; do a'\r"},
		{"bash", "f()", "eval 'f()'\r"},
		{"bash", "echo ${x:-", "eval 'echo ${x:-'\r"},
		{"bash", "if<a true", "eval 'if<a true'\r"},
		{"bash", "{ true }", "eval '{ true }'\r"},
		{"bash", "while > } fi", "eval 'while > } fi'\r"},
		{"bash", "[[ -f x ]] && (a) >b", "[[ -f x ]] && (a) >b\r"},
		{"dash", "time esac { true $(", "eval 'time esac { true $('\r"},
		{"bash", "cat <<E", "eval 'cat <<E'\r"},
		{"bash", "a # it's", "eval 'a # it'\\''s'\r"},
		{"bash", "", "\r"},
		{"zsh", "a\nb", "eval 'a\x16\nb'\r"},
		{"fish", "a\nb", "\x1b[200~a\nb\x1b[201~\x1e"},
		{"fish", "a\x1b[201~b", "\x1b[200~a[201~b\x1b[201~\x1e"},
		{"mksh", "a 'b'\n\x1b\\", `eval $'a \'b\'\n\033\\'` + "\r"},
		{"dash", "a\nb", "eval 'a\rb'\r"},
		{"dash", "a\x03", "eval 'a\x16\x03'\r"},
		{"", "show version\nshow clock", "show version\rshow clock\r"},
		{"other", "a\x00b", "ab\r"},
	} {
		if got := completion.Type(c.shell, c.text); string(got) != c.want {
			t.Errorf("%s %q: %q, want %q", c.shell, c.text, got, c.want)
		}
	}
}

// FuzzType has what is typed read by a real shell, as its line editor would give it, and
// compares with the text read as a script.
func FuzzType(f *testing.F) {
	for _, s := range []string{"a", "it's", "a\nb\n\nc", "'\"`$(\\", "ä漢\xff", strings.Repeat("long ", 500) + "'\n", "if x; then", "\t\x01\x7f"} {
		f.Add(s)
	}
	dash, err := exec.LookPath("dash")
	if err != nil {
		f.Skip("no dash")
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 || strings.ContainsAny(text, "\x00\r") {
			return
		}
		text = "printf %s '" + strings.ReplaceAll(text, "'", `'\''`) + "'"
		for _, shell := range []string{"bash", "dash", "mksh", "fish", ""} {
			typed := completion.Type(shell, text)
			end := byte('\r')
			if shell == "fish" {
				end = 0x1e
			}
			if typed[len(typed)-1] != end {
				t.Fatalf("%s: %q does not end with Enter", shell, typed)
			}
			if shell == "mksh" || shell == "dash" {
				for line := range bytes.SplitSeq(typed, []byte("\r")) {
					if shell == "mksh" && len(line) > 1023 {
						t.Errorf("%s: a line of %d bytes", shell, len(line))
					}
				}
			}
		}
		// What the terminal of dash makes of the keys.
		typed := completion.Type("dash", text)
		typed = bytes.ReplaceAll(typed, []byte("\r"), []byte("\n"))
		var line []byte
		for i := 0; i < len(typed); i++ {
			if typed[i] == 0x16 {
				i++
			}
			line = append(line, typed[i])
		}
		var got [2][]byte
		for i, script := range [][]byte{[]byte(text), line} {
			cmd := exec.CommandContext(t.Context(), dash)
			cmd.Stdin = bytes.NewReader(script)
			got[i], _ = cmd.Output()
		}
		if !bytes.Equal(got[0], got[1]) {
			t.Errorf("%q: %q, typed %q", text, got[0], got[1])
		}
	})
}
