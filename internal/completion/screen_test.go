package completion_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/screen"
)

// With the integration the screen shows what it shows without: nothing of a mark, and a
// line that is longer than the terminal is wide is edited in the right columns.
func TestScreenIsTheSame(t *testing.T) {
	rc := map[string]map[string]string{
		"bash": {".bash_profile": `PS1='\n\[\e[1;32m\]top\[\e[0m\] line\nme:\[\e[34m\]\w\[\e[0m\]\$ '` + "\nPROMPT_COMMAND='printf \"\\033]0;t\\007\"'\n"},
		"zsh":  {".zshrc": "PS1=$'\\n%F{green}top%f line\\nme:%B%1~%b%# '\nRPROMPT=right\n"},
		"fish": {".config/fish/config.fish": "function fish_prompt; set_color green; echo; echo 'top line'; echo -n 'me> '; end\n"},
		"dash": {".profile": "PS1='me: '\n"},
		"ash":  {".profile": `PS1='\n\[\e[32m\]me\[\e[0m\]\$ '` + "\n"},
		"mksh": {".profile": "PS1=$'\\001\\r\\001\\e[32m\\001me\\001\\e[0m\\001: '\n"},
		"ksh":  {".profile": "PS1='me: '\n", ".kshrc": "set -o emacs\n"},
	}
	each(t, func(t *testing.T, kind string) {
		var shown [2][]string
		for i, bare := range []bool{true, false} {
			env := []string{"COLUMNS=80", "LINES=24", "fish_greeting=", "fish_color_autosuggestion=normal"}
			if bare && kind == "ksh" {
				env = append(env, "ENV=$HOME/.kshrc")
			}
			c := open(t, setup{kind: kind, bare: bare, rc: rc[kind], env: env})
			last := func() string { return strings.Join(c.lines(0), "\n") }
			settle := func(text string) { c.quiet(func() bool { return strings.Contains(last(), text) }) }
			settle("me")
			long := "echo " + strings.Repeat("abcdefghij", 11)
			c.write("false\r")
			c.quiet(func() bool { return true })
			c.write(long)
			c.quiet(func() bool { return true })
			c.write("\x7f\x7f\x7fXYZ")
			c.quiet(func() bool { return true })
			if kind != "dash" { // it has no line editor
				c.write("\x01")
				c.quiet(func() bool { return true })
				c.write("  \x05")
				c.quiet(func() bool { return true })
			}
			shown[i] = c.lines(0)
			c.write("\r")
			settle("gXYZ\n")
			c.write("printf 'no end'\r")
			settle("no end")
			c.quiet(func() bool { return true })
			shown[i] = append(shown[i], c.lines(100)...)
			if bare { // it would be taken for a mark
				continue
			}
			for _, s := range []string{"133;", "telexec", c.nonce} {
				if strings.Contains(strings.Join(shown[i], "\n"), s) || strings.Contains(c.seen.String(), s) {
					t.Errorf("%q is visible", s)
				}
			}
		}
		if !slices.Equal(shown[0], shown[1]) {
			t.Errorf("without:\n%s\nwith:\n%s", strings.Join(shown[0], "\n"), strings.Join(shown[1], "\n"))
		}
	})
}

// lines gives what has been shown.
func (c *console) lines(scrollback int) []string {
	s := screen.New(80, 24, 1000)
	_, _ = s.Write(c.seen.Bytes())
	lines, _ := s.Lines(scrollback)
	return lines
}

// The history has what was typed and nothing else.
func TestHistory(t *testing.T) {
	for kind, command := range map[string]string{
		"bash": "HISTTIMEFORMAT= history", "zsh": "fc -ln 1", "fish": "history", "mksh": "fc -ln 1", "ksh": "fc -ln 1",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := open(t, setup{kind: kind, rc: map[string]string{".bash_profile": "HISTCONTROL=\n"}})
			c.run("echo one")
			c.run("echo 'two\nthree'")
			c.run("echo four")
			if kind == "bash" {
				c.nest()
			}
			r := c.run(command)
			got := strings.Join(strings.Fields(plainText(r.out)), " ")
			for _, want := range []string{"echo one", "three", "echo four"} {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in %q", want, got)
				}
			}
			if strings.Contains(got, "telexec") || strings.Contains(got, "nested") || strings.Contains(got, "133;") {
				t.Errorf("the history is %q", got)
			}
		})
	}
}

// What would recall another line from the history, or wait for the rest of a word, is
// read as it stands.
func TestReadAsItStands(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		c := open(t, setup{kind: kind})
		c.says("echo -e recalled", "recalled\n", 0)
		for _, text := range []string{"^echo -e^echo again:", "  ^echo -e^echo again:"} {
			if r := c.run(text); r.code != 127 || strings.Contains(plainText(r.out), "again: recalled") {
				t.Errorf("%q: %d %q", text, r.code, r.out)
			}
		}
		c.says("(exit 7)", "", 7)
		if r := c.run("!(true)"); r.code != 1 { // in zsh a pattern that is none
			t.Errorf("!(true): %d %q", r.code, r.out)
		}
		c.says(`echo "hi!"; echo ho!;`, "hi!\nho!\n", 0)
		for _, text := range []string{"a[1", "a[1 ", "echo $[1"} {
			c.run(text) // some take it for a word
		}
		c.says("echo end", "end\n", 0)
	}, "bash", "zsh")
}
