package sshterm

import (
	"slices"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/test/sshtest"
)

// A line that was typed unseen is blanked wherever it stands, and nothing else is.
func TestBlank(t *testing.T) {
	const line = ` . "/home/me/.local/state/telexec/sessions/01ABCDEFGHJKMNPQRSTVWXYZ01/shell/nested"`
	for name, c := range map[string]struct{ in, want []string }{
		"nothing":        {[]string{"a  ", "\x1b[1mb"}, []string{"a  ", "\x1b[1mb"}},
		"in a row":       {[]string{"x", "\x1b[32m$\x1b[m " + line + "  ", "$ "}, []string{"x", "\x1b[32m$\x1b[m", "$ "}},
		"with looks":     {[]string{"$ " + line[:4] + "\x1b[4m" + line[4:] + "\x1b[m"}, []string{"$\x1b[4m\x1b[m"}},
		"wrapped":        {[]string{"me$ " + line[:16], line[16:36], line[36:56], line[56:76], line[76:], "me$ "}, []string{"me$", "", "", "", "", "me$ "}},
		"its end":        {[]string{"< " + line[30:] + " <", "$ "}, []string{"<" + strings.Repeat(" ", len(line)-28) + "<", "$ "}},
		"scrolled away":  {[]string{line[20:40], line[40:], "$ "}, []string{"", "", "$ "}},
		"nearly so":      {[]string{line[len(line)-7:], "$ "}, []string{"", "$ "}},
		"not at the top": {[]string{"$ ", line[len(line)-19:]}, nil},
		"twice":          {[]string{"$ " + line, "é漢$ " + line}, []string{"$", "é漢$"}},
		"another":        {[]string{"$ " + strings.Replace(line, "Z01", "Z02", 1)}, nil},
		"only the file":  {[]string{strings.Trim(line, ` ."`)}, nil},
	} {
		if c.want == nil {
			c.want = c.in
		}
		if got := blank(c.in, line); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := blank([]string{"a b c"}, ""); !slices.Equal(got, []string{"a b c"}) {
		t.Errorf("%q", got)
	}
}

// What was typed unseen into a nested shell is not in the picture that tmux gives of its
// screen, however that is wrapped, and the cursor is where it was.
func TestHiddenAfterLoss(t *testing.T) {
	wide, narrow, small := session.Size{Columns: 200, Rows: 20}, session.Size{Columns: 60, Rows: 20}, session.Size{Columns: 40, Rows: 5}
	m := machine(t, sshtest.OpenSSH, sshtest.Account{Name: "anna", Shell: "bash"})
	d := newDialer(t)
	for program, sizes := range map[string][]session.Size{
		"bash --norc": {wide, small}, "zsh -f": {narrow}, "dash": {small}, "busybox ash": {narrow}, "mksh": {wide, small}, "ksh93": {narrow}, "fish": {narrow},
	} {
		for _, size := range sizes {
			t.Run(program, func(t *testing.T) {
				t.Parallel()
				terms := New(d, Options{})
				s := open(t, terms, Spec{Host: m.HostOf("web1", "anna"), Keeper: session.KeptByTmux, Size: size})
				s.prompt(0)
				from := s.marks()
				s.types("PS1='inner> ' " + program + "\r")
				s.await("the start", func(_ string, events []completion.Event, _ error) bool { return len(events) > from })
				s.until(0, program, func(f Foreground) bool { return f.Nested != "" })
				from = s.marks()
				s.types(s.Facts().Nested + "\r")
				s.await("its marks", func(_ string, events []completion.Event, _ error) bool {
					return slices.ContainsFunc(events[from:], func(e completion.Event) bool { return e.Kind == completion.PromptStart })
				})
				s.types("echo re''ached\r")
				s.sees("reached\r\n")
				from = s.marks()
				s.types("\r")
				s.prompt(from)
				s.Close()
				spec := s.spec
				spec.Resume = true
				again := open(t, terms, spec)
				defer again.Close()
				drawn := screen.New(size.Columns, size.Rows, 0)
				_, _ = drawn.Write(again.Facts().Redraw)
				rows, _ := drawn.Lines(0)
				shown := strings.Join(rows, "\n")
				for _, part := range []string{"nested", s.spec.ID, "sessions/", `. "`} {
					if strings.Contains(shown, part) {
						t.Errorf("%d columns: %q is seen:\n%s", size.Columns, part, shown)
					}
				}
				if line := drawn.LineToCursor(); strings.TrimSpace(line) == "" || !strings.Contains(shown, "\nreached\n") {
					t.Errorf("%d columns: the cursor is behind %q:\n%s", size.Columns, line, shown)
				}
			})
		}
	}
}
