package engine_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// timeless is a Runner of durable commands that run only in memory, so that the
// clock of a synctest bubble drives them: real processes stop it.
type timeless struct {
	mu      sync.Mutex
	asked   []time.Duration // when Cancel was called, from the start
	lives   command.Durability
	answer  func(asked int) (command.CancelReport, error)
	climb   func(context.Context, time.Duration) (command.CancelReport, error) // is asked instead, where there is one
	started time.Time
	run     engine.Run
	ends    chan command.Ending // the one end
	closed  chan struct{}
}

func newTimeless(answer func(asked int) (command.CancelReport, error)) *timeless {
	return &timeless{lives: command.Durable, answer: answer, ends: make(chan command.Ending, 1), closed: make(chan struct{})}
}

func (r *timeless) Start(_ context.Context, run engine.Run) (engine.Process, error) {
	r.run, r.started = run, time.Now()
	return r, nil
}

func (r *timeless) Resume(context.Context, engine.Run) (engine.Process, error) { return r, nil }

func (r *timeless) Sweep(context.Context, string, inventory.Host, time.Duration) (command.CancelReport, error) {
	return command.CancelReport{}, nil
}

func (r *timeless) Clean(context.Context, inventory.Host, func(string, bool) bool) (int, error) {
	return 0, nil
}

func (r *timeless) Started() time.Time                                 { return r.started }
func (r *timeless) Durability() (command.Durability, string)           { return r.lives, "" }
func (r *timeless) Signal(context.Context, string) error               { return nil }
func (r *timeless) Input(context.Context, []byte, bool) (int64, error) { return 0, nil }
func (r *timeless) Collected()                                         {}

func (r *timeless) Wait() (command.Ending, error) {
	select {
	case end := <-r.ends:
		return end, nil
	case <-r.closed:
		return command.Ending{}, lostLink()
	}
}

func (r *timeless) Cancel(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
	if r.climb != nil {
		return r.climb(ctx, grace)
	}
	r.mu.Lock()
	r.asked = append(r.asked, time.Since(r.started).Round(time.Second))
	n := len(r.asked)
	r.mu.Unlock()
	return r.answer(n)
}

func (r *timeless) Close() error { close(r.closed); return nil }

// bubble runs an engine with one command in a bubble.
func bubble(t *testing.T, r *timeless, spec command.Spec, f func(t *testing.T, n *node, id string)) {
	synctest.Test(t, func(t *testing.T) {
		o := fresh(t)
		o.Runner = r
		r.ends, r.closed = make(chan command.Ending, 1), make(chan struct{})
		n := start(t, o)
		spec.Host, spec.Line = "h", "true"
		s, _, err := n.Execute(t.Context(), ann, spec)
		if err != nil {
			t.Fatal(err)
		}
		n.running(s.ID)
		f(t, n, s.ID)
		n.stop()
	})
}

func killed() command.Ending { return command.Ending{Exit: command.Exit{Signal: "KILL"}} }

// The host sees to the timeout. Where it does not, the service does, but not
// while the host cannot be reached, and not at once when it can be again.
func TestTimeoutOfADurableCommand(t *testing.T) {
	gone := command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}
	for name, away := range map[string]bool{"connected": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			var r *timeless
			r = newTimeless(func(int) (command.CancelReport, error) {
				r.ends <- killed()
				return gone, nil
			})
			bubble(t, r, command.Spec{Timeout: time.Minute}, func(t *testing.T, n *node, id string) {
				want := 75 * time.Second
				if away {
					r.run.Link(lostLink())
					n.reconnecting(id)
					<-time.After(10 * time.Minute)
					r.run.Link(nil)
					want = 10*time.Minute + 15*time.Second
				}
				<-time.After(2 * time.Minute)
				s := n.ended(id)
				if s.State != command.TimedOut || reason(s) != fault.ReasonTimeout || len(r.asked) != 1 || r.asked[0] != want {
					t.Errorf("%s, %+v, asked at %v", s.State, s.Failure, r.asked)
				}
			})
		})
	}
}

// A host that cannot be asked is asked less and less often, up to every half
// minute, and at once when the connection is back.
func TestCancelBacksOff(t *testing.T) {
	var r *timeless
	r = newTimeless(func(asked int) (command.CancelReport, error) {
		if asked <= 8 {
			return command.CancelReport{}, unreachable()
		}
		r.ends <- killed()
		return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
	})
	bubble(t, r, command.Spec{}, func(t *testing.T, n *node, id string) {
		r.run.Link(lostLink())
		n.reconnecting(id)
		if _, report, err := n.Cancel(t.Context(), ann, id, 0, ""); err != nil || report.Outcome != command.Pending || report.Message == "" {
			t.Errorf("%+v, %v", report, err)
		}
		<-time.After(2*time.Minute + 15*time.Second)
		r.run.Link(nil)
		<-time.After(time.Minute)
		if s := n.ended(id); s.State != command.Cancelled {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 121}
		for i := range want {
			if len(r.asked) != len(want) || r.asked[i] != want[i]*time.Second {
				t.Fatalf("asked at %v", r.asked)
			}
		}
	})
}

// The connection comes back while the host is being asked in vain: it is asked
// again without a pause.
func TestCancelWhenTheHostComesBack(t *testing.T) {
	var r *timeless
	r = newTimeless(func(n int) (command.CancelReport, error) {
		if n == 1 {
			<-time.After(5 * time.Second)
			return command.CancelReport{}, unreachable()
		}
		r.ends <- killed()
		return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
	})
	bubble(t, r, command.Spec{}, func(t *testing.T, n *node, id string) {
		r.run.Link(lostLink())
		n.reconnecting(id)
		n.Cancel(t.Context(), ann, id, 0, "")
		r.run.Link(nil)
		<-time.After(time.Minute)
		if s := n.ended(id); s.State != command.Cancelled || len(r.asked) != 2 || r.asked[1] != 5*time.Second {
			t.Errorf("%s, asked at %v", s.State, r.asked)
		}
	})
}

// The service stops while an attached command is being ended that has just come to
// its own end: that is what is told.
func TestExitIsKnownAtTheStop(t *testing.T) {
	var release chan struct{}
	r := newTimeless(func(int) (command.CancelReport, error) {
		<-release
		return command.CancelReport{}, lostLink()
	})
	r.lives = command.Attached
	bubble(t, r, command.Spec{Durability: command.Attached}, func(t *testing.T, n *node, id string) {
		release = make(chan struct{})
		defer close(release)
		if _, report, _ := n.Cancel(t.Context(), ann, id, 0, ""); report.Outcome != command.Pending {
			t.Errorf("%+v", report)
		}
		three := 3
		r.ends <- command.Ending{Exit: command.Exit{Code: &three}}
		synctest.Wait()
		if len(r.asked) != 1 {
			t.Errorf("asked at %v", r.asked)
		}
		n.stop()
		if s, _ := n.Get(t.Context(), ann, id); s.State != command.Completed || code(s) != "3" {
			t.Errorf("%s, %s", s.State, code(s))
		}
	})
}

// It is proven gone and its host never says how it ended: after a while in which
// nothing comes the proof is enough.
func TestGoneWithoutAnEnd(t *testing.T) {
	r := newTimeless(func(int) (command.CancelReport, error) {
		return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
	})
	bubble(t, r, command.Spec{}, func(t *testing.T, n *node, id string) {
		if _, report, _ := n.Cancel(t.Context(), ann, id, 0, ""); report.Outcome != command.Pending {
			t.Errorf("%+v", report)
		}
		<-time.After(20 * time.Second)
		r.run.Output(command.Stdout, []byte("late"))
		<-time.After(20 * time.Second)
		if s, _ := n.Get(t.Context(), ann, id); s.Ended() {
			t.Errorf("it is %s although output still came", s.State)
		}
		<-time.After(time.Minute)
		if s := n.ended(id); s.State != command.Cancelled || s.Size[command.Stdout] != 4 || s.Truncation == nil {
			t.Errorf("%s, %v, %+v", s.State, s.Size, s.Failure)
		}
	})
}
