package terminal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/terminal"
)

func TestCancel(t *testing.T) {
	s := start(t)
	// Ctrl-C may come while a shell is about to start something, and be lost on it.
	const soft = "INT or TERM"
	for name, tc := range map[string]struct{ shell, line, signal string }{
		"heeds Ctrl-C":      {"bash", "sleep 1000", soft},
		"a pipeline":        {"zsh", "sleep 1000 | cat", soft},
		"in dash":           {"dash", "sleep 1000", soft},
		"in mksh":           {"mksh", "sleep 1000", soft},
		"in fish":           {"fish", "sleep 1000", soft},
		"a loop":            {"bash", "while true; do :; done", "INT"},
		"ignores INT":       {"bash", "sh -c 'trap \"\" INT; echo ready; sleep 1000'", "TERM"},
		"ignores all":       {"bash", "sh -c 'trap \"\" INT TERM; echo ready; while true; do sleep 1000; done'", "KILL"},
		"prints very much":  {"bash", "yes", soft},
		"a full-screen one": {"bash", "less /etc/passwd", soft},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.with(t)
			on := s.open(tc.shell)
			v := s.attach(ann, on, terminal.AttachOptions{})
			j := s.begin(on, tc.line)
			j.out.keep(keepMost)
			if name != "a loop" {
				s.poll("that it runs", func() bool { return s.machine.of(on.ID).runs() })
			}
			if strings.Contains(tc.line, "ready") {
				s.poll("that it is ready", func() bool { return strings.Contains(j.out.String(), "ready") })
			}
			began := time.Now()
			report, err := j.Cancel(t.Context(), time.Second)
			if err != nil || report.Outcome != command.Gone || !strings.Contains(tc.signal, report.Signal) || report.Ended < 1 {
				t.Errorf("%+v, %v", report, err)
			}
			t.Logf("%v", time.Since(began))
			v.sees("[CANCELLED] Command terminated by MCP client (bob)\x1b[0m\r\n")
			end, err := j.wait()
			if err != nil || end.Code == nil {
				t.Errorf("%+v, %v", end, err)
			}
			v.await("the prompt behind the line", func() bool {
				_, behind, _ := strings.Cut(v.out.String(), "[CANCELLED]")
				return strings.Contains(behind, "$ ") || strings.Contains(behind, "% ") || strings.Contains(behind, "> ") || strings.Contains(behind, "# ")
			})
			if !strings.Contains(j.out.String(), "[CANCELLED]") {
				t.Errorf("it is not in the output: %q", j.out.String()[max(0, len(j.out.String())-200):])
			}
			if report, err := j.Cancel(t.Context(), time.Second); err != nil || report.Outcome != command.AlreadyEnded {
				t.Errorf("%+v, %v", report, err)
			}
			if out := s.run(on, "echo alive").ends("0", command.ByMark); out != "alive\r\n" {
				t.Errorf("%q", out)
			}
			if left := s.machine.of(on.ID).members(); len(left) != 1 && tc.shell != "fish" {
				t.Errorf("left: %v", left)
			}
			if strings.Count(v.text(), "[CANCELLED]") != 1 {
				t.Errorf("the line came %d times", strings.Count(v.text(), "[CANCELLED]"))
			}
		})
	}
}

// The line stands before the prompt in what everybody sees, also where the command
// heeds Ctrl-C late.
func TestTheLineOfACancel(t *testing.T) {
	s := start(t)
	on := s.open("bash")
	a, b := s.attach(ann, on, terminal.AttachOptions{}), s.attach(adm, on, terminal.AttachOptions{})
	a.types("sh -c 'trap \"sleep 0.15; echo late; exit 4\" INT; while true; do sleep 0.02; done'\r")
	s.poll("that it is told", func() bool { return len(s.lines()) == 1 })
	j := s.typedJob(s.lines()[0].line)
	s.poll("that it runs", func() bool { return s.machine.of(on.ID).runs() })
	asked := make(chan command.CancelReport, 1)
	go func() {
		report, err := j.Cancel(t.Context(), 5*time.Second)
		if err != nil {
			t.Error(err)
		}
		asked <- report
	}()
	a.sees("[CANCELLED]")
	b.sees("[CANCELLED]")
	if report := within(t, asked, "the report"); report.Outcome != command.Gone {
		t.Errorf("%+v", report)
	}
	j.ends("4", command.ByMark)
	a.await("the prompt", func() bool { return strings.HasSuffix(a.out.String(), "me$ ") })
	text := a.text()
	line, late := strings.Index(text, "[CANCELLED]"), strings.Index(text, "late\r\n")
	if prompt := strings.LastIndex(text, "me$ "); line < 0 || late < line || prompt < late {
		t.Errorf("%q", text)
	}
}

// A person's Ctrl-C in a flood of output brings the prompt back soon.
func BenchmarkInterruptYes(b *testing.B) {
	s := start(b)
	on := s.open("bash")
	v := s.attach(ann, on, terminal.AttachOptions{})
	var all time.Duration
	for b.Loop() {
		v.types("yes\r")
		base := s.get(on).Output
		s.poll("output", func() bool { return s.get(on).Output > base+1<<20 })
		began := time.Now()
		v.types("\x03")
		s.poll("the prompt", func() bool { return !s.busy(on) })
		all += time.Since(began)
	}
	b.ReportMetric(float64(all.Milliseconds())/float64(b.N), "ms/interrupt")
}
