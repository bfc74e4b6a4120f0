package hostshell

import (
	"fmt"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
)

func TestParseReport(t *testing.T) {
	for _, c := range []struct {
		lines   string
		outcome command.Outcome // empty: refused
	}{
		{"done INT 3 0 proc", command.Gone},
		{"done KILL 1 0 own", command.Unproven},
		{"done none 0 0 own", command.Unproven},
		{"left 7 root survived a\ndone KILL 1 1 own", command.Left},
		{"done TERM 1 0 ps", command.Gone},
		{"done KILL 1 0 none", command.Unproven},
		{"done none 0 0 proc", command.AlreadyEnded},
		{"rebooted", command.AlreadyEnded},
		{"left 7 root survived a b c\ndone KILL 1 1 proc", command.Left},
		{"left 7 root uninterruptible [x]\nleft 8 root forbidden -\ndone KILL 1 2 proc", command.Left},
		{"", ""},
		{"done", ""},
		{"done INT 3 0", ""},
		{"done INT 3 0 proc x", ""},
		{"done INT x 0 proc", ""},
		{"done INT 1 -1 proc", ""},
		{"done USR1 1 0 proc", ""},
		{"done INT 1 0 magic", ""},
		{"done HUP 2 0 proc", command.Gone},
		{"done KILL 1 1 proc", ""},
		{"left 7 root survived a\ndone KILL 1 0 proc", ""},
		{"left x root survived a\ndone KILL 1 1 proc", ""},
		{"left 7 root magic a\ndone KILL 1 1 proc", ""},
		{"left 7 root\ndone KILL 1 1 proc", ""},
		{"rebooted\ndone INT 1 0 proc", ""},
		{"done INT 1 0 proc\ndone INT 1 0 proc", ""},
	} {
		var lines []string
		if c.lines != "" {
			lines = strings.Split(c.lines, "\n")
		}
		report, err := ParseReport(lines)
		if (err != nil) != (c.outcome == "") || report.Outcome != c.outcome {
			t.Errorf("%q: %+v, %v", c.lines, report, err)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add("done INT 3 0 proc")
	f.Add("left 7 root survived a b c\ndone KILL 1 1 proc")
	f.Add("rebooted")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReport(strings.Split(s, "\n"))
		if err != nil {
			return
		}
		if (r.Outcome == command.Left) != (len(r.Left) > 0) || r.Ended < 0 || r.Message == "" {
			t.Errorf("%q: %+v", s, r)
		}
		if r.Outcome == command.Gone && !strings.Contains(s, "done") {
			t.Errorf("%q proves nothing", s)
		}
		for _, p := range r.Left {
			if len(p.Command) > 256 || p.Why == "" {
				t.Errorf("%q: %+v", s, p)
			}
		}
	})
}

func TestLines(t *testing.T) {
	got := Lines("n", "Welcome\ntelexec:x: done\nno end of line telexec:n: left 1 a b c\n\x00telexec:n: done\ntelexec:n: cut")
	if fmt.Sprintf("%q", got) != `["left 1 a b c" "done"]` {
		t.Errorf("%q", got)
	}
}
