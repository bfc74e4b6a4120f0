package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
)

// A cancel while the host is away is pending, and done when it is back; also when
// the service was killed in between.
func TestCancelWhileUnreachable(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			o, m := onMachine(t)
			n := start(t, o)
			id := n.execute("echo a; exec sleep 60")
			n.prints(id, "a")
			m.cut()
			n.reconnecting(id)
			s, report, err := n.Cancel(t.Context(), ann, id, 0, "enough")
			if err != nil || report.Outcome != command.Pending || !strings.Contains(report.Message, "as soon as it can be") || s.State != command.Running {
				t.Fatalf("%s, %+v, %v", s.State, report, err)
			}
			if restart {
				n.stores(id, "being cancelled", func(c command.Command) bool { return c.Cancellation != nil })
				n.crash()
				n = start(t, o)
				if _, report, err := n.Cancel(t.Context(), ann, id, 0, "again"); err != nil || report.Outcome != command.Pending {
					t.Errorf("%+v, %v", report, err)
				}
				for _, ask := range []func() error{
					func() error { _, err := n.Signal(soon(t), ann, id, "INT"); return err },
					func() error { _, err := n.Input(soon(t), ann, id, nil, true); return err },
				} {
					if err := ask(); fault.ReasonOf(err) != fault.ReasonConnectionLost || fault.From(err).RetryAfter == 0 {
						t.Errorf("before it is found again: %v", err)
					}
				}
			}
			m.restore()
			s = n.ended(id)
			if s.State != command.Cancelled || s.Cancellation.Reason != "enough" || s.Cancellation.Report.Outcome != command.Gone || stdout(n, id) != "a\n" {
				t.Errorf("%s, %+v, %+v", s.State, s.Cancellation, s.Failure)
			}
		})
	}
}

// soon gives a context that ends soon.
func soon(t *testing.T) context.Context {
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	t.Cleanup(stop)
	return ctx
}

// A host that does not answer is asked again without being told to.
func TestCancelIsTriedAgain(t *testing.T) {
	t.Parallel()
	o, m := onMachine(t)
	var times atomic.Int32
	m.beforeCancel = func() error {
		if times.Add(1) == 1 {
			return lostLink()
		}
		return nil
	}
	n := start(t, o)
	id := n.execute("exec sleep 60")
	n.running(id)
	if s, report, err := n.Cancel(t.Context(), ann, id, ample, ""); err != nil || s.State != command.Cancelled || report.Outcome != command.Gone {
		t.Errorf("%s, %+v, %v", s.State, report, err)
	}
	if times.Load() != 2 {
		t.Errorf("it was asked %d times", times.Load())
	}
}

// The journal has a cancel before its first signal is sent: a service that is
// killed in mid ladder knows afterwards why the command has ended, also where the
// host tells a death by SIGINT as the code that shells give it.
func TestKilledInMidLadder(t *testing.T) {
	t.Parallel()
	o, m := onMachine(t)
	m.onEnd = func(e *command.Ending) {
		code := 130
		e.Exit = command.Exit{Code: &code}
	}
	n := start(t, o, func(e *engine.Engine) { e.SetStoreFirst(20 * time.Second) })
	id := n.execute("exec sleep 60")
	n.running(id)
	m.with(func() {
		m.beforeCancel = func() error {
			if c := in(t, o, id); c.Cancellation == nil {
				t.Error("the ladder runs and the journal has no cancel")
			}
			n.journal.dead.Store(true)
			return nil
		}
		m.onCancel = lostLink
	})
	if _, report, err := n.Cancel(t.Context(), ann, id, 0, "enough"); err != nil || report.Outcome != command.Pending {
		t.Errorf("%+v, %v", report, err)
	}
	m.await("its end", func() bool { return m.runs[id].end != nil })
	n.crash()
	m.with(func() { m.beforeCancel, m.onCancel = nil, nil })
	n = start(t, o)
	if s := n.ended(id); s.State != command.Cancelled || s.Cancellation.Reason != "enough" || s.Cancellation.Report.Outcome != command.Gone {
		t.Errorf("%s, %+v, %+v", s.State, s.Cancellation, s.Failure)
	}
}

// The ladder ran on the host and its answer was lost: the end is ours all the
// same once the host shows that nothing is left, and not proven where it cannot.
func TestCancelWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, proof := range []bool{true, false} {
		t.Run(fmt.Sprint("proof ", proof), func(t *testing.T) {
			o, m := onMachine(t)
			var times atomic.Int32
			m.onCancel = func() error {
				if times.Add(1) == 1 || !proof {
					return lostLink()
				}
				return nil
			}
			n := start(t, o)
			id := n.execute("exec sleep 60")
			n.running(id)
			if _, _, err := n.Cancel(t.Context(), ann, id, -1, ""); err != nil {
				t.Fatal(err)
			}
			s := n.ended(id) // the host is asked some times before the proof is given up
			want, outcome := command.Cancelled, command.Gone
			if !proof {
				want, outcome = command.Failed, command.Unproven
			}
			if r := s.Cancellation.Report; s.State != want || r.Outcome != outcome || r.Signal != "KILL" {
				t.Errorf("%s, %+v, %+v", s.State, r, s.Failure)
			}
		})
	}
}

// A cancel comes while nobody knows whether the start has got through.
func TestCancelOfADoubtfulStart(t *testing.T) {
	t.Parallel()
	t.Run("it has", func(t *testing.T) {
		o, m := onMachine(t)
		m.afterSpawn = func(engine.Run) { m.cut() }
		n := start(t, o)
		id := n.execute("echo a; exec sleep 60")
		n.reconnecting(id)
		if s, report, err := n.Cancel(t.Context(), ann, id, 0, ""); err != nil || report.Outcome != command.Pending || s.State != command.Starting {
			t.Errorf("%s, %+v, %v", s.State, report, err)
		}
		m.restore()
		s := n.ended(id)
		if s.State != command.Cancelled || s.Cancellation.Report.Outcome != command.Gone || s.StartTime.IsZero() || m.started(id) != 1 {
			t.Errorf("%s, %+v, started %d times", s.State, s.Cancellation, m.started(id))
		}
	})
	t.Run("it has not", func(t *testing.T) {
		o, m := onMachine(t)
		starting := make(chan struct{})
		m.beforeStart = func(ctx context.Context, r engine.Run) error {
			m.cut()
			r.Link(unreachable())
			close(starting)
			<-ctx.Done()
			return lostLink()
		}
		n := start(t, o)
		id := n.execute("true")
		<-starting
		if _, report, err := n.Cancel(t.Context(), ann, id, 0, ""); err != nil || report.Outcome != command.Pending {
			t.Errorf("%+v, %v", report, err)
		}
		m.restore()
		s := n.ended(id)
		if s.State != command.Cancelled || s.Cancellation.Report.Outcome != command.NeverStarted || m.started(id) != 0 {
			t.Errorf("%s, %+v, started %d times", s.State, s.Cancellation, m.started(id))
		}
	})
	t.Run("the service is restarted meanwhile", func(t *testing.T) {
		o, m := onMachine(t)
		m.afterSpawn = func(engine.Run) { m.cut() }
		n := start(t, o)
		id := n.execute("exec sleep 60")
		n.reconnecting(id)
		n.Cancel(t.Context(), ann, id, 0, "")
		n.crash()
		n = start(t, o)
		m.restore()
		s := n.ended(id)
		if s.State != command.Cancelled || m.started(id) != 1 || slices.Contains(m.asked[1:], "start "+id) {
			t.Errorf("%s, %+v, asked %q", s.State, s.Cancellation, m.asked)
		}
	})
	t.Run("after a panic", func(t *testing.T) {
		o, m := onMachine(t)
		m.afterSpawn = func(engine.Run) { panic("boom") }
		n := start(t, o)
		if s := n.ended(n.execute("exit 3")); s.State != command.Completed || code(s) != "3" {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
}

// A start that was given up in a way that leaves a doubt, without a cancel: the
// command fails with the first reason where its host says that it never started.
func TestDoubtfulStartThatNeverWas(t *testing.T) {
	o, m := onMachine(t)
	m.beforeStart = func(context.Context, engine.Run) error { return lostLink() }
	n := start(t, o)
	if s := n.ended(n.execute("true")); s.State != command.Failed || reason(s) != fault.ReasonConnectionLost {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// What a taken-over start gives is believed only after the host was asked: the
// last owner may have started it.
func TestTakenOverStartThatFails(t *testing.T) {
	for _, ran := range []bool{true, false} {
		t.Run(fmt.Sprint("it runs ", ran), func(t *testing.T) {
			o, m := onMachine(t)
			here := make(chan struct{})
			hold := func(ctx context.Context) {
				close(here)
				<-ctx.Done()
			}
			if ran {
				m.afterSpawn = func(engine.Run) { m.cut(); close(here) }
			} else {
				m.beforeStart = func(ctx context.Context, _ engine.Run) error { hold(ctx); return lostLink() }
			}
			n := start(t, o)
			id := n.execute("exit 4")
			<-here
			n.crash()
			m.restore()
			m.with(func() {
				m.beforeStart = func(context.Context, engine.Run) error { return unreachable() }
			})
			n = start(t, o)
			s := n.ended(id)
			if ran && (s.State != command.Completed || code(s) != "4") || !ran && (s.State != command.Failed || reason(s) != fault.ReasonHostUnreachable) {
				t.Errorf("%s, code %s, %+v", s.State, code(s), s.Failure)
			}
		})
	}
}

func TestTimeoutOnTheHost(t *testing.T) {
	left := command.CancelReport{Outcome: command.Left, Signal: "KILL", Ended: 1, Message: "pid 7 is left"}
	gone := command.CancelReport{Outcome: command.Gone, Signal: "TERM", Ended: 2}
	for name, tc := range map[string]struct {
		line    string
		report  command.CancelReport
		state   command.State
		reason  string
		message string
	}{
		"ended":          {"kill -9 $$", gone, command.TimedOut, fault.ReasonTimeout, "on its host"},
		"something left": {"kill -9 $$", left, command.TimedOut, fault.ReasonTimeout, "pid 7 is left"},
		"with a code":    {"exit 3", gone, command.TimedOut, fault.ReasonTimeout, ""},
		"too late":       {"exit 3", command.CancelReport{Outcome: command.AlreadyEnded}, command.Completed, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			m.onEnd = func(e *command.Ending) { e.TimedOut = &tc.report }
			n := start(t, o)
			s := n.ended(n.execute(tc.line, func(s *command.Spec) { s.Timeout = time.Hour }))
			if s.State != tc.state || reason(s) != tc.reason || tc.reason != "" && !strings.Contains(s.Failure.Message, tc.message) {
				t.Errorf("%s, %+v", s.State, s.Failure)
			}
		})
	}
	t.Run("a cancel came first", func(t *testing.T) {
		o, m := onMachine(t)
		m.onEnd = func(e *command.Ending) { e.TimedOut = &gone }
		n := start(t, o)
		id := n.execute("exec sleep 60", func(s *command.Spec) { s.Timeout = time.Hour })
		n.running(id)
		if s, _, _ := n.Cancel(t.Context(), ann, id, ample, ""); s.State != command.Cancelled {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
}
