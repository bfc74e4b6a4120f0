package terminal_test

import (
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/terminal"
)

// What the shell runs itself goes on over a restart of the service, and over a lost
// connection, as any other command does.
func TestABuiltinGoesOn(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "mksh"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			m, st := newMachine(t), openStore(t, t.TempDir())
			s := startWith(t, m, st, usual)
			spec := kept
			spec.Shell = shell
			on := s.openSpec(spec)
			j := s.begin(on, "echo begun; read -r x; echo got $x; (exit 3)")
			s.poll("that it runs", func() bool { return strings.Contains(j.out.String(), "begun") })
			s.stop()
			if _, err := j.wait(); err == nil {
				t.Error("it has ended")
			}
			s = startWith(t, m, st, usual)
			p, err := s.Resume(t.Context(), terminal.Run{ID: j.id, Spec: &command.Spec{SessionID: on.ID, Line: "x"}, Output: (&sink{}).take})
			if err != nil {
				t.Fatal(err)
			}
			resumed := &job{Process: p, id: j.id, t: t, out: &sink{}}
			s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
			v := s.attach(ann, on, terminal.AttachOptions{})
			m.reach(false)
			m.reach(true)
			v.seen("that it is back", func(e terminal.Event) bool {
				return e.Kind == terminal.EventSession && e.Session.Connection == command.Connected
			})
			s.poll("that the host was asked twice", func() bool { return m.of(on.ID).looks.Load() >= 2 })
			s.poll("that its answer was taken", func() bool { _, sure := s.Known(t.Context(), on.ID); return sure })
			if id, busy := s.Busy(on.ID); id != j.id || !busy {
				t.Errorf("what runs is %q, %v", id, busy)
			}
			v.types("it\r")
			resumed.ends("3", command.ByMark)
			if out := s.run(on, "echo end").ends("0", command.ByMark); out != "end\r\n" {
				t.Errorf("%q", out)
			}
		})
	}
}

// An end that comes before anybody has asked for the command is its end all the same.
func TestAnEndBeforeItIsAskedFor(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	s := startWith(t, m, st, usual)
	on := s.openSpec(kept)
	j := s.begin(on, "echo begun; sh -c 'read x; exit 4'")
	s.poll("that it runs", func() bool { return strings.Contains(j.out.String(), "begun") })
	s.stop()
	_, _ = j.wait()
	s = startWith(t, m, st, usual)
	s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
	s.poll("that the host was asked", func() bool { return s.busy(on) })
	v := s.attach(ann, on, terminal.AttachOptions{})
	v.types("it\r")
	v.sees("me$ ")
	p, err := s.Resume(t.Context(), terminal.Run{ID: j.id, Spec: &command.Spec{SessionID: on.ID, Line: "x"}, Output: (&sink{}).take})
	if err != nil {
		t.Fatal(err)
	}
	(&job{Process: p, id: j.id, t: t, out: &sink{}}).ends("4", command.ByMark)
	// That was its end, and nobody else's.
	p, err = s.Resume(t.Context(), terminal.Run{ID: "other", Spec: &command.Spec{SessionID: on.ID, Line: "x"}, Output: (&sink{}).take})
	if err != nil {
		t.Fatal(err)
	}
	(&job{Process: p, t: t, out: &sink{}}).ends("none", command.ByPrompt)
}
