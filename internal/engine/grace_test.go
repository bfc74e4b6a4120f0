package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
)

// patient makes the machine's ladders tell the grace that they are asked for, and
// wait for as long as they may where there is any.
func (m *machine) patient() <-chan time.Duration {
	graces := make(chan time.Duration, 10)
	m.with(func() {
		m.ladder = func(ctx context.Context, grace time.Duration) (*command.CancelReport, error) {
			graces <- grace
			if grace == 0 {
				return nil, nil
			}
			<-ctx.Done()
			return nil, lostLink()
		}
	})
	return graces
}

// next gives what comes of c.
func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("it never came")
	}
	return v
}

// A cancel keeps its grace when the service is restarted, of which the time since
// then is over; one that kills at once still does.
func TestGraceOutlivesARestart(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		away        bool // the host, until the restart
		graces      []time.Duration
		least, most time.Duration // of the grace after the restart
	}{
		"under way":            {graces: []time.Duration{time.Hour}, least: 59 * time.Minute, most: time.Hour - 1},
		"the host was away":    {away: true, graces: []time.Duration{time.Hour}, least: 59 * time.Minute, most: time.Hour - 1},
		"at once":              {away: true, graces: []time.Duration{0}},
		"by default":           {graces: []time.Duration{-1}, least: command.DefaultGrace, most: command.DefaultGrace},
		"shortened meanwhile":  {graces: []time.Duration{time.Hour, time.Minute}, least: 30 * time.Second, most: time.Minute - 1},
		"at once in the end":   {away: true, graces: []time.Duration{time.Hour, 0}},
		"lengthened meanwhile": {away: true, graces: []time.Duration{0, time.Hour}, least: 59 * time.Minute, most: time.Hour - 1},
		"a short one":          {graces: []time.Duration{time.Millisecond}, least: time.Millisecond, most: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, m := onMachine(t)
			graces := m.patient()
			n := start(t, o, func(e *engine.Engine) { e.SetStoreFirst(20 * time.Second) })
			id := n.execute("exec sleep 60")
			n.running(id)
			if tc.away {
				m.cut()
				n.reconnecting(id)
			}
			var last time.Duration
			for _, grace := range tc.graces {
				n.Cancel(soon(t), ann, id, grace, "")
				if !tc.away {
					last = next(t, graces)
				}
			}
			if grace := tc.graces[len(tc.graces)-1]; !tc.away && grace >= 0 && last != grace {
				t.Errorf("the grace was %s", last)
			}
			n.stores(id, "being cancelled", func(c command.Command) bool {
				return c.Cancellation != nil && (tc.most == 0) == (c.Cancellation.Grace == 0)
			})
			n.crash()
			n = start(t, o)
			m.restore()
			if grace := next(t, graces); grace < tc.least || grace > tc.most {
				t.Errorf("after the restart the grace is %s, not %s to %s", grace, tc.least, tc.most)
			}
			m.with(func() { m.ladder = nil })
			n.Cancel(soon(t), ann, id, 0, "")
			if s := n.ended(id); s.State != command.Cancelled {
				t.Errorf("%s, %+v", s.State, s.Failure)
			}
		})
	}
}

// A later cancel with a shorter grace does not wait for the ladder of the first
// one, of which nothing is lost that it tells behind the other.
func TestShorterGrace(t *testing.T) {
	t.Parallel()
	t.Run("the first tells last", func(t *testing.T) {
		t.Parallel()
		o, m := onMachine(t)
		n := start(t, o)
		id := n.execute("exec sleep 60")
		n.running(id)
		climbing, told := make(chan struct{}), make(chan struct{})
		m.with(func() {
			m.ladder = func(_ context.Context, grace time.Duration) (*command.CancelReport, error) {
				if grace == 0 {
					return nil, nil
				}
				close(climbing)
				m.await("its end", func() bool { return m.runs[id].end != nil })
				<-told
				return &command.CancelReport{Outcome: command.Gone, Signal: "TERM", Ended: 3}, nil
			}
		})
		n.Cancel(soon(t), ann, id, time.Hour, "enough")
		next(t, climbing)
		n.Cancel(soon(t), ann, id, time.Hour, "") // which is no shorter
		go func() {
			defer close(told)
			n.Await(t.Context(), id, func(s engine.Snapshot) bool { return s.Cancellation.Report != nil })
		}()
		s, report, err := n.Cancel(t.Context(), ann, id, 0, "")
		if err != nil || s.State != command.Cancelled || s.Cancellation.Reason != "enough" {
			t.Fatalf("%s, %+v, %v", s.State, report, err)
		}
		if report.Outcome != command.Gone || report.Signal != "KILL" || report.Ended != 3 {
			t.Errorf("what both have come to is told as %+v", report)
		}
	})
	t.Run("the first has ended it", func(t *testing.T) {
		t.Parallel()
		o, m := onMachine(t)
		n := start(t, o)
		id := n.execute("read x; exit 4", withInput)
		n.running(id)
		climbing, second := make(chan struct{}), make(chan struct{})
		m.with(func() {
			m.ladder = func(_ context.Context, grace time.Duration) (*command.CancelReport, error) {
				if grace == 0 {
					defer close(second)
					m.await("its end", func() bool { return m.runs[id].end != nil })
					return &command.CancelReport{Outcome: command.AlreadyEnded}, nil
				}
				close(climbing)
				<-second
				return &command.CancelReport{Outcome: command.Gone, Signal: "INT", Ended: 1}, nil
			}
		})
		n.Cancel(soon(t), ann, id, time.Hour, "")
		next(t, climbing)
		n.Cancel(soon(t), ann, id, 0, "")
		n.input(id, "x")
		if s := n.ended(id); s.State != command.Cancelled || code(s) != "4" || s.Cancellation.Report.Outcome != command.Gone || s.Cancellation.Report.Signal != "INT" {
			t.Errorf("%s, %+v, %+v", s.State, s.Failure, s.Cancellation.Report)
		}
	})
	t.Run("the second cannot ask", func(t *testing.T) {
		t.Parallel()
		o, m := onMachine(t)
		n := start(t, o)
		id := n.execute("read x; exit 4", withInput)
		n.running(id)
		climbing, release := make(chan struct{}), make(chan struct{})
		m.with(func() {
			m.ladder = func(_ context.Context, grace time.Duration) (*command.CancelReport, error) {
				if grace == 0 {
					return nil, unreachable()
				}
				close(climbing)
				<-release
				return &command.CancelReport{Outcome: command.Gone, Signal: "INT", Ended: 1}, nil
			}
		})
		n.Cancel(soon(t), ann, id, time.Hour, "")
		next(t, climbing)
		n.Cancel(soon(t), ann, id, 0, "")
		n.until(id, "asked in vain", func(s engine.Snapshot) bool { return s.Cancellation.Report != nil })
		n.input(id, "x")
		close(release)
		if s := n.ended(id); s.State != command.Cancelled || code(s) != "4" {
			t.Errorf("%s, %+v, %+v", s.State, s.Failure, s.Cancellation.Report)
		}
	})
}

// The timeout of an attached command does not wait for the grace of a cancel.
func TestTimeoutWithinAGrace(t *testing.T) {
	var r *timeless
	var after time.Duration
	r = newTimeless(nil)
	r.lives = command.Attached
	r.climb = func(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
		if grace > time.Minute {
			<-ctx.Done()
			return command.CancelReport{}, lostLink()
		}
		after = time.Since(r.started)
		r.ends <- killed()
		return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
	}
	bubble(t, r, command.Spec{Durability: command.Attached, Timeout: time.Minute}, func(t *testing.T, n *node, id string) {
		n.Cancel(soon(t), ann, id, time.Hour, "")
		<-time.After(2 * time.Minute)
		if s := n.ended(id); s.State != command.Cancelled || after != time.Minute {
			t.Errorf("%s after %s, %+v", s.State, after, s.Failure)
		}
	})
}

// A ladder that was overtaken is not waited for longer than for the one beside it.
func TestOvertakenLadderIsLetGoOf(t *testing.T) {
	var r *timeless
	var left time.Time
	given := make(chan time.Time, 1)
	r = newTimeless(nil)
	r.climb = func(ctx context.Context, grace time.Duration) (command.CancelReport, error) {
		if grace > 0 {
			<-ctx.Done()
			given <- time.Now()
			return command.CancelReport{}, lostLink()
		}
		left = time.Now()
		r.ends <- killed()
		return command.CancelReport{Outcome: command.Gone, Signal: "KILL", Ended: 1}, nil
	}
	bubble(t, r, command.Spec{}, func(t *testing.T, n *node, id string) {
		n.Cancel(soon(t), ann, id, time.Hour, "")
		n.Cancel(soon(t), ann, id, 0, "")
		s := n.ended(id)
		if after := (<-given).Sub(left); s.State != command.Cancelled || s.Cancellation.Report.Outcome != command.Gone || after != time.Second {
			t.Errorf("%s, %+v, given up after %s", s.State, s.Cancellation.Report, after)
		}
	})
}
