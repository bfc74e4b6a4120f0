package terminal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/store/sqlite"
	"github.com/telexec/telexec/internal/terminal"
)

// A line that was typed behind a command, and runs when the service is back, does not
// give that command its code: nobody has seen which of them has ended.
func TestALineBehindACommandRunsUnseen(t *testing.T) {
	t.Parallel()
	const first, second = "sh -c 'until [ -e end ]; do sleep 0.02; done; exit 14'", "sh -c 'touch next; until [ -e over ]; do sleep 0.02; done; exit 26'"
	for _, shell := range []string{"bash", "zsh", "dash", "fish"} {
		for _, how := range []string{"loss", "stop", "kill"} {
			t.Run(shell+" "+how, func(t *testing.T) {
				t.Parallel()
				m, st := newMachine(t), openStore(t, t.TempDir())
				s := startWith(t, m, st, usual)
				on := s.openSpec(session.Spec{Host: "web1", Shell: shell, Keeper: session.KeptByTmux})
				s.run(on, "true").ends("0", command.ByMark)
				j := s.begin(on, first)
				c := m.of(on.ID)
				s.poll("that it runs", c.runs)
				c.delay(how != "loss")
				if _, _, err := s.Keys(t.Context(), ann, on.ID, []session.Key{{Text: second + "\r"}}, 0, 0); err != nil {
					t.Fatal(err)
				}
				if how == "loss" {
					s.poll("that it is typed", func() bool { return strings.Contains(c.typed(), second) })
				} else if _, err := c.tty.WriteString(second + "\r"); err != nil { // what was on its way gets there
					t.Fatal(err)
				}
				if how == "loss" {
					m.reach(false)
					s.poll("the loss", func() bool { return s.get(on).Connection == command.Reconnecting })
				} else {
					st = s.leaves(on, how == "kill")
				}
				c.delay(false)
				m.touch("end")
				s.poll("that the next one runs", func() bool { return m.has("next") })
				if how == "loss" {
					m.reach(true)
				} else {
					s = startWith(t, m, st, usual)
					p, err := s.Resume(t.Context(), terminal.Run{ID: j.id, Spec: &command.Spec{SessionID: on.ID, Line: first}, Output: (&sink{}).take})
					if err != nil {
						t.Fatal(err)
					}
					j = &job{Process: p, id: j.id, t: t, out: &sink{}}
				}
				s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
				m.touch("over")
				j.ends("none", command.ByPrompt)
				s.run(on, "sh -c 'exit 5'").ends("5", command.ByMark)
			})
		}
	}
}

// Such a line may run when the service is back, also where the shell does not tell that a
// command begins: then no other one is typed into it, and its code is nobody else's.
func TestALineBehindACommandRunsLater(t *testing.T) {
	t.Parallel()
	const first, second = "sh -c 'until [ -e end ]; do sleep 0.02; done; exit 14'", "sh -c 'touch next; until [ -e over ]; do sleep 0.02; done; exit 26'"
	for _, shell := range []string{"bash", "dash", "mksh"} {
		for _, how := range []string{"stop", "kill"} {
			t.Run(shell+" "+how, func(t *testing.T) {
				t.Parallel()
				m, st := newMachine(t), openStore(t, t.TempDir())
				s := startWith(t, m, st, usual)
				on := s.openSpec(session.Spec{Host: "web1", Shell: shell, Keeper: session.KeptByTmux})
				s.run(on, "true").ends("0", command.ByMark)
				j := s.begin(on, first)
				s.poll("that it runs", m.of(on.ID).runs)
				if _, _, err := s.Keys(t.Context(), ann, on.ID, []session.Key{{Text: second + "\r"}}, 0, 0); err != nil {
					t.Fatal(err)
				}
				s.poll("that it is typed", func() bool { return strings.Contains(m.of(on.ID).typed(), second) })
				s = startWith(t, m, s.leaves(on, how == "kill"), usual)
				p, err := s.Resume(t.Context(), terminal.Run{ID: j.id, Spec: &command.Spec{SessionID: on.ID, Line: first}, Output: (&sink{}).take})
				if err != nil {
					t.Fatal(err)
				}
				j = &job{Process: p, id: j.id, t: t, out: &sink{}}
				s.poll("that it is back", func() bool { return s.get(on).Connection == command.Connected })
				m.touch("end")
				j.ends("none", command.ByPrompt)
				began := make(chan *job, 1)
				go func() {
					next, err := s.tryBegin(t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: "sh -c 'exit 5'"}})
					if err != nil {
						t.Error(err)
					}
					began <- next
				}()
				s.poll("that the one behind it runs", func() bool { return m.has("next") && s.busy(on) })
				m.touch("over")
				if next := within(t, began, "that it begins"); next != nil {
					next.ends("5", command.ByMark)
				}
			})
		}
	}
}

// What has run all the time, as the host tells, has its own code, whatever it was given to
// read.
func TestACommandThatReadsRunsOnUnseen(t *testing.T) {
	t.Parallel()
	s := startAlone(t)
	on := s.openSpec(kept)
	v := s.attach(ann, on, terminal.AttachOptions{})
	j := s.begin(on, "sh -c 'echo sure?; read y; until [ -e on ]; do sleep 0.02; done; exit 14'")
	s.poll("that it was looked what runs", func() bool { group, _ := s.Known(t.Context(), on.ID); return group })
	v.types("yes\r")
	v.sees("yes\r\n")
	s.machine.reach(false)
	s.poll("the loss", func() bool { return s.get(on).Connection == command.Reconnecting })
	s.machine.reach(true)
	s.poll("that it was looked who has the terminal", func() bool { _, sure := s.Known(t.Context(), on.ID); return sure })
	s.machine.touch("on")
	j.ends("14", command.ByMark)
}

// touch makes a file in the home.
func (m *machine) touch(name string) {
	if err := os.WriteFile(filepath.Join(m.home, name), nil, 0o600); err != nil {
		m.t.Error(err)
	}
}

// has reports whether there is such a file.
func (m *machine) has(name string) bool {
	_, err := os.Stat(filepath.Join(m.home, name))
	return err == nil
}

// leaves stops a service, and gives the store that the next one finds: with killed, as it
// was at this moment.
func (s *service) leaves(on session.Session, killed bool) *sqlite.Store {
	s.t.Helper()
	one, err := s.store.Session(s.t.Context(), on.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	s.stop()
	if !killed {
		return s.store
	}
	st := openStore(s.t, s.t.TempDir())
	state := one.State
	one.State, one.Version = session.Opening, 1
	if err := st.CreateSession(s.t.Context(), one, auditEntry); err != nil {
		s.t.Fatal(err)
	}
	one.State, one.Version = state, 2
	if err := st.SaveSession(s.t.Context(), one); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// A shell that waits at its prompt is known by its marks when the service is back, and so
// is its kind, before anything has run there.
func TestAPromptIsKnownAgain(t *testing.T) {
	for name, killed := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, st := newMachine(t), openStore(t, t.TempDir())
			s := startWith(t, m, st, usual)
			on := s.openSpec(kept)
			s.run(on, "true").ends("0", command.ByMark)
			s.poll("that it is stored", func() bool {
				one, err := st.Session(t.Context(), on.ID)
				return err == nil && one.Completion == command.ByMark && one.Shell == "bash"
			})
			s = startWith(t, m, s.leaves(on, killed), usual)
			s.poll("that it is known by its marks", func() bool {
				one := s.get(on)
				return one.Connection == command.Connected && one.Completion == command.ByMark && one.Shell == "bash"
			})
		})
	}
}
