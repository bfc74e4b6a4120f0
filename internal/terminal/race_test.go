package terminal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
	"github.com/telexec/telexec/internal/terminal"
)

// Whatever many do at once, everything ends, and with a reason.
func TestManyAtOnce(t *testing.T) {
	s := startAlone(t)
	watched := make(chan int, 1)
	watcher := s.Watch(t.Context(), adm)
	go func() {
		ends := 0
		for {
			one, err := watcher.Next(t.Context())
			if err != nil {
				watched <- ends
				return
			}
			if one != nil && one.Ended() {
				ends++
			}
		}
	}()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(i)))
			name := fmt.Sprintf("shared-%d", i%3)
			for range 3 {
				on, _, err := s.Open(t.Context(), ann, session.Spec{Host: "web1", Name: name, Shell: "dash"}, true)
				if err != nil {
					if r := fault.ReasonOf(err); r != fault.ReasonSessionEnded && r != fault.ReasonSessionExists && r != fault.ReasonSessionClosed {
						t.Error(err)
					}
					continue
				}
				var some sync.WaitGroup
				some.Go(func() {
					v, err := s.Attach(t.Context(), ann, on.ID, terminal.AttachOptions{Size: &session.Size{Columns: 60 + i, Rows: 20}})
					if err != nil {
						return
					}
					defer v.Close()
					_ = v.Input(t.Context(), []byte("echo typed\r"))
					_ = v.Keyboard(t.Context(), terminal.TakeKeyboard, "")
					for range 5 {
						if e, err := v.Next(t.Context()); err != nil || e.Kind == terminal.EventEnded {
							return
						}
					}
				})
				some.Go(func() {
					j, err := s.tryBegin(t.Context(), on, terminal.Run{ID: jobID(), Spec: &command.Spec{SessionID: on.ID, Line: "sleep 1000"}})
					if err != nil {
						return
					}
					if _, err := j.Cancel(t.Context(), 100*time.Millisecond); err == nil || fault.ReasonOf(err) != "" {
						_, _ = j.wait()
					}
				})
				some.Go(func() {
					_, _ = s.Screen(t.Context(), ann, on.ID, 10)
					if random.IntN(2) == 0 {
						_, _, _ = s.Close(t.Context(), ann, on.ID, "enough")
					}
				})
				some.Wait()
			}
		})
	}
	all.Wait()
	list, err := s.List(t.Context(), ann, session.Filter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	ended := 0
	for _, one := range list {
		if _, _, err := s.Close(t.Context(), ann, one.ID, ""); err != nil {
			t.Error(err)
		}
		ended++
		if left := s.machine.of(one.ID).members(); len(left) > 0 {
			t.Errorf("left of %s: %v", one.ID, left)
		}
	}
	s.stop()
	watcher.Close()
	if n := within(t, watched, "the ends"); n != ended {
		t.Errorf("%d ends were told of, %d sessions ended", n, ended)
	}
}

func TestWatch(t *testing.T) {
	s := startAlone(t)
	first := s.open("dash")
	next := func(w *terminal.Watcher) *session.Session {
		t.Helper()
		one, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	w, stranger := s.Watch(t.Context(), ann), s.Watch(t.Context(), bob)
	defer w.Close()
	defer stranger.Close()
	if one := next(w); one == nil || one.ID != first.ID {
		t.Fatalf("%+v", one)
	}
	if one := next(w); one != nil {
		t.Fatalf("%+v", one)
	}
	if one := next(stranger); one != nil {
		t.Fatalf("a stranger is told of %+v", one)
	}
	until := func(what string, met func(*session.Session) bool) {
		t.Helper()
		for range 100 {
			if one := next(w); one != nil && met(one) {
				return
			}
		}
		t.Fatal("not told:", what)
	}
	v := s.attach(ann, first, terminal.AttachOptions{Label: "x"})
	until("who came", func(one *session.Session) bool { return len(one.Viewers) == 1 && one.Viewers[0].Label == "x" })
	v.types("exit\r")
	until("the end", func(one *session.Session) bool { return one.ID == first.ID && one.Ended() })
	second := s.open("dash")
	until("another one", func(one *session.Session) bool { return one.ID == second.ID && one.State == session.Open })
	s.stop()
	for {
		if _, err := w.Next(t.Context()); err != nil {
			wants(t, err, fault.ReasonDraining)
			break
		}
	}
}

// panicking is a machine whose host "bad" panics when it is asked who has a terminal.
type panicking struct{ *machine }

func (p panicking) Open(ctx context.Context, s terminal.ShellSpec) (terminal.Shell, error) {
	sh, err := p.machine.Open(ctx, s)
	if s.Host.Name == "bad" && err == nil {
		return panickingShell{sh}, nil
	}
	return sh, err
}

type panickingShell struct{ terminal.Shell }

func (panickingShell) Foreground(context.Context, int) (terminal.Foreground, error) { panic("boom") }

// A panic in one session ends that one alone.
func TestAPanicEndsOneSession(t *testing.T) {
	m, st := newMachine(t), openStore(t, t.TempDir())
	set, err := terminal.New(terminal.Options{Shells: panicking{m}, Journal: st, Hosts: m, Limits: usual})
	if err != nil {
		t.Fatal(err)
	}
	s := runSet(t, set, m, st)
	good, bad := s.openSpec(session.Spec{Host: "web1", Shell: "bash"}), s.openSpec(session.Spec{Host: "bad", Shell: "bash"})
	v := s.attach(ann, bad, terminal.AttachOptions{})
	j := s.begin(bad, "printf 'x$ '; sleep 1000") // it is asked who waits at that prompt
	e := v.seen("end", func(e terminal.Event) bool { return e.Kind == terminal.EventEnded })
	if e.Session.End.Reason != fault.ReasonInternal || strings.Contains(e.Session.End.Message, "boom") {
		t.Errorf("%+v", e.Session.End)
	}
	_, err = j.wait()
	wants(t, err, fault.ReasonInternal)
	s.run(good, "true").ends("0", command.ByMark)
}
