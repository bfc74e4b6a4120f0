package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
	"github.com/telexec/telexec/internal/secret"
)

// What is told stays in the feed when its command has long ended: it has neither the
// input nor the values and patterns that nobody is shown.
func TestEventsKeepNoInput(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	hold := n.execute("read x", withInput)
	n.running(hold)
	early, late := n.listen(ann, engine.EventsOptions{}), (*listener)(nil)
	bare := func(s engine.Snapshot) bool {
		return len(s.Spec.Stdin) == 0 && s.Spec.Env["TOKEN"] == "" && len(s.Spec.EnvNames()) == 1 && len(s.Spec.Redact) == 0
	}
	id := n.execute("cat >/dev/null", func(s *command.Spec) {
		s.Stdin, s.Env, s.Redact = make([]byte, 1<<10), map[string]string{"TOKEN": "x"}, []secret.Text{secret.New("hunter2")}
	})
	late = n.listen(ann, engine.EventsOptions{}) // which is told of it by what lives
	for _, l := range []*listener{early, late} {
		l.until("it waits", func() bool { return l.commands[id].State == command.Queued })
		if s := l.commands[id]; !bare(s) {
			t.Errorf("told with %d bytes of input, %v, %v", len(s.Spec.Stdin), s.Spec.Env, s.Spec.Redact)
		}
	}
	n.input(hold, "x")
	for _, l := range []*listener{early, late} {
		l.untilState(id, command.Completed)
		if !bare(l.commands[id]) {
			t.Error("its end is told with what nobody is shown")
		}
	}
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.Spec.Line != "cat >/dev/null" {
		t.Errorf("%+v, %v", s.Spec, err)
	}
}

// Nor has a slow watcher who reads the journal the input of what waits there.
func TestEventsBehindKeepNoInput(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	first := n.execute("true")
	n.ended(first)
	n.running(n.execute("read x", withInput))
	for range 5 {
		n.execute("cat", func(s *command.Spec) { s.Stdin = make([]byte, 1<<10) })
	}
	l := n.listen(ann, after(0))
	l.untilState(first, command.Completed)
	if bytes := l.Input(); bytes != 0 {
		t.Errorf("%d bytes of input are in memory", bytes)
	}
	l.sync()
	if len(l.commands) != 7 {
		t.Errorf("told of %d commands", len(l.commands))
	}
}

// The store does not say for a while who decides about a command: whoever does is
// told of it late, and not never.
func TestEventsWaitForTheDeciders(t *testing.T) {
	t.Run("of what has ended", func(t *testing.T) {
		o, _, f := onHazy(t)
		n := start(t, o)
		id := n.asks("uname; exit 3")
		if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
			t.Fatal(err)
		}
		n.ended(id)
		n.stop()
		n = start(t, o) // which knows it from the store alone
		f.blind.Store(true)
		l := n.listen(boss, after(0))
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		defer stop()
		err := error(nil)
		for err == nil && !l.synced {
			err = l.next(ctx)
		}
		if fault.KindOf(err) != fault.Unavailable {
			t.Errorf("synced %v, %v", l.synced, err)
		}
		f.blind.Store(false)
		l.sync()
		if s := l.commands[id]; s.State != command.Completed {
			t.Errorf("told %v", l.order)
		}
	})
	t.Run("of what runs", func(t *testing.T) {
		o, m := onMachine(t)
		o.Policy = rules(t, policy.Gate{})
		f := &hazy{Journal: o.Journal}
		o.Journal = f
		n := start(t, o)
		id := n.asks("uname; read x", withInput)
		if err := n.decide(boss, n.ballot(id, approval.Approve)); err != nil {
			t.Fatal(err)
		}
		n.running(id)
		n.stop()
		n = start(t, o) // which knows no more what it had waited for
		n.until(id, "found again", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
		f.blind.Store(true)
		l := n.listen(boss, engine.EventsOptions{})
		ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer stop()
		for err := error(nil); err == nil; {
			if err = l.next(ctx); err == nil && l.synced && l.commands[id].ID == "" {
				t.Fatal("it is synced, and not told of what runs")
			}
		}
		f.blind.Store(false)
		l.untilState(id, command.Running)

		// What changes then and is not stored, so that only its owner has it.
		asked := make(chan struct{}, 1)
		silent := func(string) error {
			select {
			case asked <- struct{}{}:
			default:
			}
			return errNoStore
		}
		n.journal.dead.Store(true)
		f.reading.Store(&silent)
		m.cut()
		<-asked
		f.reading.Store(nil)
		l.until("its connection is lost", func() bool { return l.commands[id].Connection == command.Reconnecting })
		n.journal.dead.Store(false)
		m.restore()
		l.until("it is back", func() bool { return l.commands[id].Connection == command.Connected })

		f.blind.Store(true)
		n.input(id, "x")
		n.ended(id)
		f.blind.Store(false)
		l.untilState(id, command.Completed)
	})
}

// What changed last was deleted before the feed could read it: nobody waits for it.
func TestEventsOfWhatIsDeleted(t *testing.T) {
	o := fresh(t)
	n := start(t, o)
	first := n.listen(ann, engine.EventsOptions{})
	first.sync()
	now := time.Now().Add(-2 * time.Hour)
	for i := range 3 {
		c := command.Command{
			ID: fmt.Sprintf("01ARZ3NDEKTSV4RRFFQ69G5FA%d", i), Version: 1, State: command.Rejected, Spec: command.Spec{Host: "h", Line: "true"},
			CreatedBy: ann.Actor(), CreateTime: now, LastActivity: now, EndTime: now,
		}
		if _, _, err := o.Journal.Create(t.Context(), c, nil, nil, audit.Entry{Kind: audit.CommandAccepted, Time: now}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Journal.Retain(t.Context(), command.Retention{Now: time.Now(), DeleteAfter: time.Minute}); err != nil {
		t.Fatal(err)
	}
	last, err := o.Journal.LastChange(t.Context())
	if list, listErr := o.Journal.Changes(t.Context(), 0, 10); err != nil || listErr != nil || last == 0 || len(list) != 0 {
		t.Fatalf("the last change is %d, and the store has %d, %v", last, len(list), errors.Join(err, listErr))
	}
	second := n.listen(ann, engine.EventsOptions{})
	second.sync()
	if first.Number() > last || second.Number() != last {
		t.Errorf("told up to %d and %d, of %d", first.Number(), second.Number(), last)
	}
}

// More commands live than are read at once when the first watcher comes.
func TestEventsOfManyThatWait(t *testing.T) {
	const many = 250
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	o.Limits = engine.Limits{MaxCommands: 100, MaxQueued: many, MaxAwaiting: 20, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	n := start(t, o)
	n.running(n.execute("read x", withInput))
	for range many {
		n.execute("true")
	}
	l := n.listen(ann, engine.EventsOptions{})
	l.sync()
	if len(l.commands) != many+1 || len(l.order) != many+1 {
		t.Errorf("told of %d commands in %d states, want %d", len(l.commands), len(l.order), many+1)
	}
}

// unread is a journal that cannot say what has changed while it is down.
type unread struct {
	engine.Journal
	down atomic.Bool
}

func (u *unread) Changes(ctx context.Context, after int64, limit int) ([]command.Changed, error) {
	if u.down.Load() {
		return nil, errNoStore
	}
	return u.Journal.Changes(ctx, after, limit)
}

// While the store does not say what has changed the log has it once, and soon
// after that all is told.
func TestEventsOfAnUnreadStore(t *testing.T) {
	o := fresh(t)
	u := &unread{Journal: o.Journal}
	var lines lineCount
	o.Journal, o.Logger = u, slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n := start(t, o)
	running := n.execute("sleep 1000", withInput)
	n.running(running)
	l := n.listen(ann, engine.EventsOptions{})
	l.sync()
	u.down.Store(true)
	began := time.Now()
	var ids []string
	for range 30 {
		ids = append(ids, n.execute("true"))
	}
	for _, id := range ids {
		n.ended(id)
	}
	// What lives is told all the same.
	if _, err := n.Input(t.Context(), ann, running, nil, true); err != nil {
		t.Fatal(err)
	}
	l.until("its input is closed", func() bool { return l.commands[running].StdinClosed })
	u.down.Store(false)
	down := time.Since(began)
	for _, id := range ids {
		l.untilState(id, command.Completed)
	}
	if took := time.Since(began); took > 2*down+time.Second {
		t.Errorf("all is told after %v, of which the store was down for %v", took, down)
	}
	if got := lines.Load(); got != 1 {
		t.Errorf("%d lines in the log", got)
	}
}

// lineCount counts the lines of a log.
type lineCount struct{ atomic.Int64 }

func (c *lineCount) Write(p []byte) (int, error) {
	c.Add(1)
	return len(p), nil
}

// lingering is a journal that answers late when a command's end is stored.
type lingering struct {
	engine.Journal
	stored, answer chan struct{} // an end is stored; it may be answered
}

func (j *lingering) Apply(ctx context.Context, ch command.Change) error {
	err := j.Journal.Apply(ctx, ch)
	if ch.Command.Ended() && ch.Command.Spec.Line == "exit 5" {
		close(j.stored)
		<-j.answer
	}
	return err
}

// An end that the store has and the owner does not know yet is not told: whoever is
// told of it and asks for the command is not answered that it runs.
func TestEventsAreNotAheadOfGet(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("of the first watcher ", first), func(t *testing.T) {
			o := fresh(t)
			j := &lingering{Journal: o.Journal, stored: make(chan struct{}), answer: make(chan struct{})}
			o.Journal = j
			n := start(t, o)
			var l *listener
			if !first {
				l = n.listen(ann, after(0))
				l.sync()
			}
			id := n.execute("exit 5")
			<-j.stored
			if first {
				l = n.listen(ann, after(0))
			}
			n.ended(n.execute("true"))
			time.AfterFunc(100*time.Millisecond, func() { close(j.answer) })
			l.untilState(id, command.Completed)
			if s, err := n.Get(t.Context(), ann, id); err != nil || s.Version != l.commands[id].Version {
				t.Errorf("told version %d, and it is %s in version %d, %v", l.commands[id].Version, s.State, s.Version, err)
			}
		})
	}
}

// late is a journal whose list is given when what it lists has gone on, and a meter
// that holds the owner of what has ended.
type late struct {
	engine.Journal
	asked        atomic.Bool // the next list waits
	listed, give chan struct{}
	ended, leave chan struct{}
}

func (j *late) List(ctx context.Context, f command.Filter) ([]command.Command, error) {
	list, err := j.Journal.List(ctx, f)
	if j.asked.CompareAndSwap(true, false) {
		close(j.listed)
		<-j.give
	}
	return list, err
}

func (j *late) Ended(command.State, time.Duration) {
	close(j.ended)
	<-j.leave
}

func (j *late) Output(int) {}

// A command ends while the first watcher is told what lives: its end is told, and whoever
// comes then is not told that it lives.
func TestEventsOfWhatEndsMeanwhile(t *testing.T) {
	o := fresh(t)
	j := &late{Journal: o.Journal, listed: make(chan struct{}), give: make(chan struct{}), ended: make(chan struct{}), leave: make(chan struct{})}
	o.Journal, o.Meter = j, j
	n := start(t, o)
	id := n.execute("read x", withInput)
	n.running(id)
	j.asked.Store(true)
	first := n.listen(ann, engine.EventsOptions{})
	<-j.listed
	n.input(id, "x")
	<-j.ended
	close(j.give)
	first.untilState(id, command.Completed)
	second := n.listen(ann, engine.EventsOptions{})
	second.sync()
	if len(second.order) != 0 {
		t.Errorf("told what lives: %v", second.order)
	}
	if last, err := n.journal.LastChange(t.Context()); err != nil || second.Number() != last {
		t.Errorf("told up to %d of %d, %v", second.Number(), last, err)
	}
	close(j.leave)
}
