package engine_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/policy"
)

// listener is a watcher of events with what it was told.
type listener struct {
	*engine.Events
	t        *testing.T
	number   int64
	synced   bool
	commands map[string]engine.Snapshot // as they were told last
	order    []string                   // "id STATE", where the state is another one
}

func (n *node) listen(by access.Caller, o engine.EventsOptions) *listener {
	n.t.Helper()
	w, err := n.WatchEvents(n.t.Context(), by, o)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(w.Close)
	return &listener{Events: w, t: n.t, commands: make(map[string]engine.Snapshot)}
}

// next takes one thing that is told, and requires what holds for all of them.
func (l *listener) next(ctx context.Context) error {
	news, err := l.Next(ctx)
	if err != nil {
		return err
	}
	if news.Number < l.number {
		l.t.Errorf("the number falls from %d to %d", l.number, news.Number)
	}
	l.number = news.Number
	if news.Snapshot == nil {
		if l.synced {
			l.t.Error("synced is told twice")
		}
		l.synced = true
		return nil
	}
	s := *news.Snapshot
	was, known := l.commands[s.ID]
	if known && s.Version < was.Version {
		l.t.Errorf("%s: version %d (%s) behind %d (%s)", s.ID, s.Version, s.State, was.Version, was.State)
	}
	if !known || was.State != s.State {
		l.order = append(l.order, s.ID+" "+string(s.State))
	}
	l.commands[s.ID] = s
	return nil
}

// until takes what is told until enough says so.
func (l *listener) until(what string, enough func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	for !enough() {
		if err := l.next(ctx); err != nil {
			l.t.Fatalf("waiting until %s: %v; told %v", what, err, l.order)
		}
	}
}

// rest takes what is there to be told, until for long enough nothing is.
func (l *listener) rest() {
	for err := error(nil); err == nil; {
		enough := 2 * time.Second
		if !l.synced { // there is more to come, however busy the machine
			enough = 30 * time.Second
		}
		ctx, cancel := context.WithTimeout(l.t.Context(), enough)
		if err = l.next(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			l.t.Error(err)
		}
		cancel()
	}
}

// rests is rest of all at once.
func rests(all iter.Seq[*listener]) {
	var resting sync.WaitGroup
	for l := range all {
		resting.Go(l.rest)
	}
	resting.Wait()
}

func (l *listener) sync() { l.t.Helper(); l.until("synced", func() bool { return l.synced }) }

func (l *listener) untilState(id string, s command.State) {
	l.t.Helper()
	l.until(id+" is "+string(s), func() bool { return l.commands[id].State == s })
}

func after(n int64) engine.EventsOptions { return engine.EventsOptions{After: &n} }

func TestEvents(t *testing.T) {
	n := start(t, fresh(t))
	first := n.execute("true")
	n.ended(first)
	running := n.execute("read x", withInput)
	n.running(running)

	live, all := n.listen(ann, engine.EventsOptions{}), n.listen(ann, after(0))
	live.sync()
	if want := []string{running + " RUNNING"}; !slices.Equal(live.order, want) {
		t.Errorf("told %v, want %v", live.order, want)
	}
	all.sync()
	if want := []string{first + " COMPLETED", running + " RUNNING"}; !slices.Equal(all.order, want) {
		t.Errorf("told %v, want %v", all.order, want)
	}
	if st := n.Stats(); st.EventWatchers != 2 {
		t.Errorf("%d watchers", st.EventWatchers)
	}

	// A change that comes alone is told at once, also a cancel that is not over.
	began := time.Now()
	if _, _, err := n.Cancel(t.Context(), ann, running, -1, "enough"); err != nil {
		t.Fatal(err)
	}
	live.until("it is cancelled", func() bool { return live.commands[running].Cancellation != nil })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the cancel was told after %v", took)
	}
	for _, l := range []*listener{live, all} {
		l.untilState(running, command.Cancelled)
	}
	second := n.execute("exit 3")
	for _, l := range []*listener{live, all} {
		l.untilState(second, command.Completed)
		if s := l.commands[second]; code(s) != "3" || s.Spec.Line != "exit 3" {
			t.Errorf("told %+v", s)
		}
		if l.number != l.Number() || l.number == 0 {
			t.Errorf("number %d, %d", l.number, l.Number())
		}
	}

	// Who comes back with the number misses nothing, and is told nothing twice.
	third := n.execute("true")
	n.ended(third)
	back := n.listen(ann, after(live.number))
	back.sync()
	if want := []string{third + " COMPLETED"}; !slices.Equal(back.order, want) {
		t.Errorf("told %v, want %v", back.order, want)
	}
	_, err := n.WatchEvents(t.Context(), ann, after(1<<40))
	if f := fault.From(err); f == nil || f.Kind != fault.OutOfRange || f.Reason != fault.ReasonEventsUnknown || f.Hint == "" {
		t.Errorf("a number of another store: %v", err)
	}
	for _, l := range []*listener{live, all, back} {
		l.Close()
		l.Close()
	}
	if st := n.Stats(); st.EventWatchers != 0 {
		t.Errorf("%d watchers are left", st.EventWatchers)
	}
}

// A watcher is told what Get would give it, and of that what it asked for.
func TestEventsOfOthers(t *testing.T) {
	o := fresh(t)
	rights, err := access.NewRights([]access.Wider{{Roles: []access.Role{access.RoleOperator}, Labels: map[string]string{"env": "staging"}}})
	if err != nil {
		t.Fatal(err)
	}
	o.Rights, o.Hosts = rights, labelled{"h": {"env": "prod"}, "s": {"env": "staging"}}
	o.Policy = rules(t, policy.Gate{Roles: []string{"approver"}, Count: 1, Timeout: time.Hour})
	n := start(t, o)
	onHost := func(s *command.Spec) { s.Host = "s" }
	tagged := func(s *command.Spec) { s.Labels = map[string]string{"tier": "web", "x": "1"} }
	// Some end before the watch begins, and some while it goes on.
	early := []string{n.execute("echo a"), n.execute("echo b", onHost, tagged)}
	for _, id := range early {
		n.ended(id)
	}
	callers := []access.Caller{ann, other, viewer, boss, root}
	filters := []engine.EventsOptions{{}, {Host: "s"}, {Principal: "ann"}, {Principal: "nobody"}, {Labels: map[string]string{"tier": "web"}}, {Labels: map[string]string{"tier": "db"}}}
	type watching struct {
		*listener
		by access.Caller
		o  engine.EventsOptions
	}
	var all []watching
	for _, by := range callers {
		for _, f := range filters {
			f.After = new(int64)
			all = append(all, watching{n.listen(by, f), by, f})
		}
	}
	late := []string{n.execute("cat", tagged), n.execute("echo c", onHost), n.execute("sleep 1000")}
	n.ended(late[0])
	n.ended(late[1])
	sentinel := n.listen(root, after(0))
	sentinel.until("all is told", func() bool {
		for _, id := range append(slices.Clone(early), late[:2]...) {
			if s := sentinel.commands[id]; !s.Ended() {
				return false
			}
		}
		return sentinel.synced && sentinel.commands[late[2]].Gate != nil
	})
	rests(func(yield func(*listener) bool) {
		for _, w := range all {
			if !yield(w.listener) {
				return
			}
		}
	})
	for _, w := range all {
		for _, id := range slices.Concat(early, late) {
			s, err := n.Get(t.Context(), w.by, id)
			want := err == nil && (w.o.Host == "" || s.Spec.Host == w.o.Host) && (w.o.Principal == "" || s.CreatedBy.Principal == w.o.Principal)
			for k, v := range w.o.Labels {
				want = want && s.Spec.Labels[k] == v
			}
			if got, told := w.commands[id]; told != want || told && got.State != s.State {
				t.Errorf("%s with %+v: told of %q %v, want %v", w.by.Name, w.o, s.Spec.Line, told, want)
			}
		}
		w.Close()
	}
	if _, err := n.WatchEvents(t.Context(), access.Caller{Principal: access.Principal{Name: "ann"}}, engine.EventsOptions{}); fault.ReasonOf(err) != fault.ReasonRoleMissing {
		t.Errorf("without a role: %v", err)
	}
}

// Who was slow is told each command once, as it is now, however many steps he has
// missed of it: those that the tail has, and those since he was told what lives.
func TestEventsOfASlowWatcher(t *testing.T) {
	n := start(t, fresh(t))
	lives := n.execute("read x", withInput)
	n.running(lives)
	fast, slow, slower := n.listen(ann, engine.EventsOptions{}), n.listen(ann, engine.EventsOptions{}), n.listen(ann, engine.EventsOptions{})
	fast.sync()
	slow.sync()
	slower.until("it is told what lives", func() bool { return len(slower.commands) == 1 })
	comes := n.execute("read x", withInput)
	fast.untilState(comes, command.Running)
	for _, id := range []string{lives, comes} {
		n.input(id, "x")
		fast.untilState(id, command.Completed)
	}
	last := n.execute("true")
	fast.untilState(last, command.Completed)
	for name, l := range map[string]*listener{"slow": slow, "slower": slower} {
		told := make(map[string]int)
		for told[last] == 0 {
			news, err := l.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s := news.Snapshot; s != nil {
				if told[s.ID]++; s.State != command.Completed {
					t.Errorf("%s: told that %s is %s", name, s.ID, s.State)
				}
			}
		}
		if told[lives] != 1 || told[comes] != 1 {
			t.Errorf("%s: told %d and %d times", name, told[lives], told[comes])
		}
	}
}

// Two thousand watchers that are told nothing cost no goroutine, and are all told
// what then happens.
func TestManyWatchersOfEvents(t *testing.T) {
	n := start(t, fresh(t))
	n.listen(ann, engine.EventsOptions{}).sync()
	before := runtime.NumGoroutine()
	all := make([]*listener, 2000)
	for i := range all {
		all[i] = n.listen(ann, engine.EventsOptions{})
		all[i].sync()
	}
	// Those of the store's that have not ended yet soon have.
	late, look := time.After(20*time.Second), time.NewTicker(time.Millisecond)
	defer look.Stop()
	for now := before + len(all); now > before+len(all)/20; {
		select {
		case <-look.C:
			now = runtime.NumGoroutine()
		case <-late:
			t.Fatalf("%d goroutines, and %d without the watchers", now, before)
		}
	}
	id := n.execute("true")
	n.ended(id)
	for _, l := range all {
		l.untilState(id, command.Completed)
		l.Close()
	}
}

// What waits for approval is told, and what is decided.
func TestEventsOfApprovals(t *testing.T) {
	n := start(t, gated(t, policy.Gate{Roles: []string{"approver"}, Count: 1, Timeout: time.Hour}))
	l := n.listen(boss, engine.EventsOptions{})
	l.sync()
	id := n.execute("sleep 1000")
	l.until("it waits", func() bool { return l.commands[id].Gate != nil })
	if _, err := n.Decide(t.Context(), boss, []approval.Ballot{{CommandID: id, Verdict: approval.Reject, Reason: "no"}}); err != nil {
		t.Fatal(err)
	}
	l.untilState(id, command.Rejected)
}

// Each place in a queue is told as it moves.
func TestEventsOfTheQueue(t *testing.T) {
	o := fresh(t)
	o.Hosts = hosts{"h": 1}
	n := start(t, o)
	first := n.execute("read x", withInput)
	n.running(first)
	l := n.listen(ann, engine.EventsOptions{})
	second, third := n.execute("read x", withInput), n.execute("true")
	at := func(id string) int {
		if q := l.commands[id].Queue; q != nil {
			return q.Position
		}
		return 0
	}
	l.until("both wait", func() bool { return at(second) == 1 && at(third) == 2 })
	n.input(first, "x")
	l.until("one has moved", func() bool { return at(third) == 1 && l.commands[second].State == command.Running })
	n.input(second, "x")
	l.untilState(third, command.Completed)
}

// A lost connection is told before it is stored, and does not raise the number.
func TestEventsOfAConnection(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("read x", withInput)
	n.running(id)
	n.stores(id, "running", func(c command.Command) bool { return c.State == command.Running })
	l := n.listen(ann, engine.EventsOptions{})
	l.sync()
	number := l.number
	n.journal.dead.Store(true)
	m.cut()
	l.until("its connection is lost", func() bool { return l.commands[id].Connection == command.Reconnecting })
	if l.number != number {
		t.Errorf("the number went from %d to %d for what is not stored", number, l.number)
	}
	n.journal.dead.Store(false)
	m.restore()
	l.until("it is back", func() bool { return l.commands[id].Connection == command.Connected })
	n.input(id, "x")
	l.untilState(id, command.Completed)
	if l.number <= number {
		t.Errorf("the number stays at %d", number)
	}
}

// The service is stopped, or killed: watchers are told to come back, and with their
// number are told what they have missed.
func TestEventsOverARestart(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", crash), func(t *testing.T) {
			o, _ := onMachine(t)
			n := start(t, o)
			l := n.listen(ann, engine.EventsOptions{})
			ended, running := n.execute("exit 4"), n.execute("read x", withInput)
			l.untilState(ended, command.Completed)
			l.untilState(running, command.Running)
			if crash {
				n.crash()
			} else {
				n.stop()
			}
			var err error
			for err == nil {
				err = l.next(t.Context())
			}
			if f := fault.From(err); f.Reason != fault.ReasonDraining || f.RetryAfter == 0 {
				t.Errorf("told at the end: %v", err)
			}
			n = start(t, o)
			back := n.listen(ann, after(l.number))
			back.commands, back.number = l.commands, l.number // no version falls
			back.sync()
			n.running(running)
			n.input(running, "x")
			back.untilState(running, command.Completed)
			if s, err := n.Get(t.Context(), ann, running); err != nil || s.Version != back.commands[running].Version {
				t.Errorf("version %d was told, and it has %d, %v", back.commands[running].Version, s.Version, err)
			}
		})
	}
}

// Two hundred commands while watchers come with numbers of before, some of whom
// read nothing until all is over: each is told the last version of each, and never
// an older one, also where the tail is so short that everybody falls behind it.
func TestEventsUnderLoad(t *testing.T) {
	const commands, watchers = 200, 25
	for _, tail := range []int{1024, 5} {
		t.Run(fmt.Sprint("a tail of ", tail), func(t *testing.T) {
			n := start(t, fresh(t), func(e *engine.Engine) { e.SetTail(tail) })
			for range 10 {
				n.ended(n.execute("true"))
			}
			ids := make([]string, commands)
			over := make(chan struct{}) // closed when all have ended
			var working, watching sync.WaitGroup
			all := make([]*listener, watchers)
			for w := range 8 {
				working.Go(func() {
					for i := w; i < commands; i += 8 {
						s, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: []string{"true", "exit 3", "sleep 0.05", "echo x"}[i%4], Durability: n.kind})
						if err != nil {
							t.Error(err)
							return
						}
						ids[i] = s.ID
						if i%10 == 0 {
							n.Cancel(t.Context(), ann, s.ID, 0, "")
						}
						if i%8 != 0 {
							continue
						}
						l := n.listen(ann, after(rand.Int64N(10)))
						all[i/8] = l
						if i%32 == 0 {
							continue // a slow one
						}
						watching.Go(func() {
							for ctx := t.Context(); ; {
								select {
								case <-over:
									return
								default:
								}
								if l.next(ctx) != nil {
									return
								}
							}
						})
					}
				})
			}
			working.Wait()
			for _, id := range ids {
				n.ended(id)
			}
			close(over)
			n.ended(n.execute("true")) // wakes those who have been told all
			watching.Wait()
			last, err := n.journal.LastChange(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			rests(slices.Values(all))
			for i, l := range all {
				for _, id := range ids {
					s, err := n.Get(t.Context(), ann, id)
					if was := l.commands[id]; err != nil || was.Version != s.Version || was.State != s.State {
						t.Errorf("watcher %d was told version %d (%s) of %s last, which has %d (%s), %v", i, was.Version, was.State, id, s.Version, s.State, err)
					}
				}
				if !l.synced || l.Number() != last {
					t.Errorf("watcher %d: synced %v, at %d of %d", i, l.synced, l.Number(), last)
				}
			}
			if places, known, living := n.Told(); places > tail || known > tail || living != 0 {
				t.Errorf("the feed has %d places and %d commands, %d of which live", places, known, living)
			}
		})
	}
}
