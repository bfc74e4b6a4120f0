package completion_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/screen"
)

// A shell that is started in a shell learns to tell marks, and the one outside goes on
// when it has ended.
func TestNested(t *testing.T) {
	for _, pair := range []struct{ outer, inner, line string }{
		{"bash", "bash", "bash"}, {"bash", "zsh", "zsh -f"}, {"zsh", "bash", "bash --norc"}, {"bash", "fish", "fish"}, {"fish", "bash", "bash"}, {"dash", "dash", "dash"},
		{"bash", "dash", "dash"}, {"ash", "bash", "bash -u"}, {"bash", "ash", "busybox ash"}, {"bash", "mksh", "mksh"}, {"mksh", "ksh", "ksh93"}, {"bash", "bash", "bash --posix"},
	} {
		t.Run(pair.line+" in "+pair.outer, func(t *testing.T) {
			t.Parallel()
			shellPath(t, pair.inner)
			env := []string{"fish_greeting="}
			if pair.outer == "bash" {
				env = append(env, "PS1=outer> ") // which is then exported
			}
			c := open(t, setup{kind: pair.outer, env: env})
			outer := c.shell
			c.write(string(completion.Type(outer.Shell, pair.line)))
			c.prompt()
			c.nest()
			if c.shell.Shell != pair.inner || c.shell.PID == outer.PID || c.shell.PID == 0 {
				t.Errorf("%+v in %+v", c.shell, outer)
			}
			c.says("sh -c 'exit 5'", "", 5)
			c.says("cd /usr; pwd", "/usr\n", 0)
			// Once more, as where marks were lost.
			c.nest()
			c.says("sh -c 'exit 6'", "", 6)
			c.write(string(completion.Type(c.shell.Shell, "exit 7")))
			for {
				e := c.await(completion.CommandEnd)
				if e.PID == outer.PID {
					if e.Code != 7 {
						t.Error(e)
					}
					break
				}
			}
			c.shell = outer
			c.ready()
			c.says("sh -c 'exit 8'", "", 8)
		})
	}
}

// prompt waits for a prompt without marks.
func (c *console) prompt() {
	c.t.Helper()
	prompts, err := completion.NewPrompts(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	from := c.seen.Len()
	c.quiet(func() bool {
		s := screen.New(80, 24, 0)
		_, _ = s.Write(c.seen.Bytes()[from:])
		return prompts.Is(s.LineToCursor())
	})
}

// Another shell in the place of the shell.
func TestExec(t *testing.T) {
	t.Parallel()
	c := open(t, setup{kind: "bash", rc: map[string]string{".bashrc": "PS1='new$ '\n"}})
	c.write("exec bash\r")
	c.prompt()
	c.nest()
	if c.shell.PID != c.cmd.Process.Pid {
		t.Error(c.shell)
	}
	c.says("false", "", 1)
}

// Neither a subshell nor a shell without a terminal tells marks, whatever it inherits.
func TestMarksAreOfTheShellAlone(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		for _, line := range []string{"bash -c 'echo a'", "bash -ic 'echo a'", "sh -c '(echo a)'", "echo 'echo a' | bash"} {
			c.says(line, "a\n", 0)
		}
		if kind != "fish" {
			c.says("export PS1", "", 0)
			c.says("(echo a)", "a\n", 0)
			c.says("echo $(echo a)", "a\n", 0)
		}
	})
}

// The file of Nested is read by shells of all kinds, so its quotes must mean the same to
// all of them.
func TestNestedFile(t *testing.T) {
	t.Parallel()
	line, file := completion.Nested(completion.NewNonce())
	if !strings.HasPrefix(line, " ") || strings.ContainsAny(line, "\r\n") || strings.Count(line, "{dir}") != 1 {
		t.Errorf("%q", line)
	}
	for _, wrong := range []string{`\'`, `\\"'`} {
		if strings.Contains(strings.ReplaceAll(file, `'\\'`, ""), wrong) {
			t.Errorf("the file has %q", wrong)
		}
	}
	for _, kind := range shells {
		args := []string{shellPath(t, kind), "-n"}
		if kind == "ash" {
			args = []string{args[0], "ash", "-n"}
		}
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(file)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 && kind != "ksh" { // it has opinions
			t.Errorf("%s: %v %s", kind, err, out)
		}
	}
}
