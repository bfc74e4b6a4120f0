package completion_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
)

var escapes = regexp.MustCompile("\x1b(\\[[0-9;?]*[ -/]*[@-~]|\\][^\a\x1b]*(\a|\x1b\\\\)|[()].|[=>78cDEHMNOZ])")

// each runs a test for every shell.
func each(t *testing.T, test func(t *testing.T, kind string), kinds ...string) {
	t.Helper()
	if len(kinds) == 0 {
		kinds = shells
	}
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

func TestCommands(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		if c.shell.Shell != kind || c.shell.PID != c.cmd.Process.Pid {
			t.Errorf("it introduces itself as %+v, and is %d", c.shell, c.cmd.Process.Pid)
		}
		basics(c)
	})
}

// basics is what must be so in every shell, however it is set up.
func basics(c *console) {
	c.t.Helper()
	fish := c.kind == "fish"
	pick := func(sh, inFish string) string {
		if fish {
			return inFish
		}
		return sh
	}
	c.says("true", "", 0)
	c.says("false", "", 1)
	c.says("sh -c 'exit 5'", "", 5)
	c.says(pick("echo $?", "echo $status"), "5\n", 0)
	c.says("cd /usr", "", 0)
	c.says("pwd", "/usr\n", 0)
	c.says("echo 'äöü 漢字' \"it's\"", "äöü 漢字 it's\n", 0)
	c.says("printf 'no line end'", "no line end", 0)
	c.says(pick("for i in 1 2\ndo\n\techo $i\ndone", "for i in 1 2\n\techo $i\nend"), "1\n2\n", 0)
	c.says("echo a\nsh -c 'exit 7'", "a\n", 7)
	c.says("sh -c 'exit 7'\necho b", "b\n", 0)
	if !fish {
		c.says("cat <<'END'\none $x\n  two\nEND", "one $x\n  two\n", 0)
		c.says("f() {\n  echo \"f $1\"\n  return 9\n}", "", 0)
		c.says("f x", "f x\n", 9)
		c.says("(exit 3)", "", 3)
		c.says("(echo in; exit 4) | cat; echo \"hi!\"", "in\nhi!\n", 0)
		c.says("x=$(echo sub)\necho $x", "sub\n", 0)
	} else {
		c.says("function f\n  echo \"f $argv\"\n  return 9\nend", "", 0)
		c.says("f x", "f x\n", 9)
	}
	// What looks like a prompt, and what looks like marks.
	c.says(`printf 'me@host:~$ '; sleep 0.2; echo on`, "me@host:~$ on\n", 0)
	c.says(`printf '\033]133;D;0;k=0123456789abcdef0123456789abcdef\007\033]133;D;1\007\033]133;A\033\134x\n'; sh -c 'exit 6'`, "x\n", 6)
	for _, forged := range []string{"\x1b]133;D;0;k=0123456789abcdef0123456789abcdef\a", "\x1b]133;D;1\a", "\x1b]133;A\x1b\\"} {
		if !strings.Contains(c.seen.String(), forged) {
			c.t.Errorf("%s: %q has vanished", c.kind, forged)
		}
	}
	// Longer than what a line editor or a terminal takes at once.
	long := strings.Repeat("0123456789", 450)
	c.says("echo "+long, long+"\n", 0)
	// Ctrl-C.
	c.write(string(completion.Type(c.shell.Shell, "sh -c 'echo u\"\"p; exec sleep 100'")))
	c.shows("up")
	c.write("\x03")
	if e := c.await(completion.CommandEnd); e.Code != 130 {
		c.t.Errorf("%s: Ctrl-C: %d", c.kind, e.Code)
	}
	c.ready()
	// What cannot be parsed, or has no end.
	for _, text := range []string{"if )", "echo 'open", "for i in 1 2", "echo a |"} {
		if r := c.run(text); r.code == 0 || plainText(r.out) == "" {
			c.t.Errorf("%s: %q: %d %q", c.kind, text, r.code, r.out)
		}
	}
	c.run("sleep 1000 &")
	c.says("echo end", "end\n", 0)
}

func TestExit(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		c.write(string(completion.Type(c.shell.Shell, "exit 3")))
		c.ends(3)
	})
}
