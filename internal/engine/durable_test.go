package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
)

// onMachine gives options for an engine with durable commands.
func onMachine(t *testing.T) (engine.Options, *machine) {
	o := fresh(t)
	m := newMachine(t)
	o.Runner = m
	return o, m
}

// in gives what the journal has of a command.
func in(t *testing.T, o engine.Options, id string) command.Command {
	t.Helper()
	c, err := o.Journal.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ample is the grace of a cancel whose answer has to be the end, on a machine with
// much to do: the ladders of these tests do not use it.
const ample = 20 * time.Second

func withInput(s *command.Spec) { s.StdinOpen = true }

func reason(s engine.Snapshot) string {
	if s.Failure == nil {
		return ""
	}
	return s.Failure.Reason
}

func (n *node) reconnecting(id string) engine.Snapshot {
	n.t.Helper()
	return n.until(id, "reconnecting", func(s engine.Snapshot) bool { return s.Connection == command.Reconnecting })
}

func (n *node) input(id, line string) {
	n.t.Helper()
	if _, err := n.Input(n.t.Context(), ann, id, []byte(line+"\n"), false); err != nil {
		n.t.Fatal(err)
	}
}

// A restart at every moment of a command's life: it runs once, and neither a
// byte nor its exit code is lost.
func TestRestartAtEveryMoment(t *testing.T) {
	t.Parallel()
	const line, said = "echo a; read x; echo b; echo c >&2; exit 7", "a\nb\n"
	for name, tc := range map[string]struct {
		// until brings the command to the moment; stop or crash ends the service then.
		until    func(t *testing.T, n *node, m *machine, id string)
		graceful bool
		hook     func(m *machine, here chan<- string)
		wantIn   command.State // in the journal between the two runs
	}{
		"before anything was sent": {
			hook: func(m *machine, here chan<- string) {
				m.beforeStart = func(ctx context.Context, r engine.Run) error {
					here <- r.ID
					<-ctx.Done()
					return fault.From(ctx.Err())
				}
			},
			wantIn: command.Starting,
		},
		"before anything was sent, stopped": {
			graceful: true,
			hook: func(m *machine, here chan<- string) {
				m.beforeStart = func(ctx context.Context, r engine.Run) error {
					here <- r.ID
					<-ctx.Done()
					return fault.From(ctx.Err())
				}
			},
			wantIn: command.Queued,
		},
		"before the reply to its start": {
			hook: func(m *machine, here chan<- string) {
				m.afterSpawn = func(r engine.Run) { m.cut(); here <- r.ID }
			},
			wantIn: command.Starting,
		},
		"before the reply to its start, stopped": {
			graceful: true,
			hook: func(m *machine, here chan<- string) {
				m.afterSpawn = func(r engine.Run) { m.cut(); here <- r.ID }
			},
			wantIn: command.Starting,
		},
		"while it runs": {
			until:  func(_ *testing.T, n *node, _ *machine, id string) { n.prints(id, "a") },
			wantIn: "",
		},
		"while it runs, stopped": {
			until:    func(_ *testing.T, n *node, _ *machine, id string) { n.prints(id, "a") },
			graceful: true,
			wantIn:   command.Running,
		},
		"while its host is away": {
			until: func(_ *testing.T, n *node, m *machine, id string) {
				n.prints(id, "a")
				m.cut()
				n.reconnecting(id)
			},
			graceful: true,
			wantIn:   command.Running,
		},
		"after its end, before that is stored": {
			until: func(t *testing.T, n *node, m *machine, id string) {
				n.prints(id, "a")
				n.journal.dead.Store(true)
				n.input(id, "x")
				m.await("its end", func() bool { return m.runs[id].end != nil })
			},
			wantIn: "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			here := make(chan string, 1)
			if tc.hook != nil {
				tc.hook(m, here)
			}
			n := start(t, o)
			id := n.execute(line, withInput)
			if tc.until != nil {
				tc.until(t, n, m, id)
			} else {
				<-here
			}
			if tc.graceful {
				n.stop()
			} else {
				n.crash()
			}
			if c := in(t, o, id); tc.wantIn != "" && c.State != tc.wantIn {
				t.Errorf("the journal has %s", c.State)
			}
			m.with(func() { m.beforeStart, m.afterSpawn = nil, nil })
			m.restore()
			again := start(t, o)
			again.prints(id, "a")
			again.until(id, "found again", func(s engine.Snapshot) bool { return s.Connection == command.Connected || s.Ended() })
			if !m.hasEnded(id) {
				again.input(id, "x")
			}
			s := again.ended(id)
			if s.State != command.Completed || code(s) != "7" || s.Durability != command.Durable || s.Size != (command.Sizes{4, 2}) {
				t.Errorf("%s, code %s, %s, %v, %+v", s.State, code(s), s.Durability, s.Size, s.Failure)
			}
			if got := stdout(again, id); got != said {
				t.Errorf("stored %q", got)
			}
			m.await("its collection", func() bool { return m.runs[id].collected })
			if m.started(id) != 1 {
				t.Errorf("it was started %d times", m.started(id))
			}
			again.stop()
			if running, queued := again.Load("h"); running+queued != 0 {
				t.Errorf("%d running, %d queued at the end", running, queued)
			}
		})
	}
}

// A durable command does not hold up the stop of the service, an attached one
// does, for the drain.
func TestDrainWaitsForAttachedOnly(t *testing.T) {
	o, m := onMachine(t)
	o.Limits = engine.Limits{MaxCommands: 10, MaxQueued: 10, MaxAwaiting: 10, QueueTimeout: time.Hour, DrainTimeout: time.Hour}
	n := start(t, o)
	durable := n.execute("sleep 60")
	n.running(durable)
	attached := n.execute("sleep 0.3; exit 5", func(s *command.Spec) { s.Durability = command.Attached })
	n.running(attached)
	n.stop()
	if c := in(t, o, attached); c.State != command.Completed {
		t.Errorf("the attached one is %s", c.State)
	}
	if c := in(t, o, durable); c.State != command.Running || c.Failure != nil {
		t.Errorf("the durable one is %s, %+v", c.State, c.Failure)
	}
	if m.runs[durable].collected {
		t.Error("a command that goes on was collected")
	}
}

// The line is cut and comes back: watchers see both, and every byte once.
func TestLinkLostAndBack(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("echo a; read x; echo b", withInput)
	n.prints(id, "a")
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	sees := func(want command.Connection) {
		t.Helper()
		for {
			ev, err := w.Next(t.Context())
			if err != nil {
				t.Fatalf("not %q but %v", want, err)
			}
			if ev.Kind == engine.EventCommand && ev.Snapshot.State == command.Running && ev.Snapshot.Connection == want {
				return
			}
		}
	}
	sees(command.Connected)
	m.cut()
	sees(command.Reconnecting)
	if _, err := n.Signal(t.Context(), ann, id, "INT"); fault.ReasonOf(err) != fault.ReasonHostUnreachable {
		t.Errorf("a signal meanwhile: %v", err)
	}
	m.restore()
	sees(command.Connected)
	n.input(id, "x")
	if s := n.ended(id); s.State != command.Completed || stdout(n, id) != "a\nb\n" || s.Connection != "" {
		t.Errorf("%s, %q, %q", s.State, stdout(n, id), s.Connection)
	}
}

// The connection is stored, though not by itself at once.
func TestLinkIsStored(t *testing.T) {
	t.Parallel()
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("sleep 60")
	n.running(id)
	m.cut()
	n.stores(id, "reconnecting", func(c command.Command) bool { return c.Connection == command.Reconnecting })
}

// While a start lasts, the lost connection shows.
func TestStartingShowsTheConnection(t *testing.T) {
	o, m := onMachine(t)
	m.afterSpawn = func(engine.Run) { m.cut() }
	n := start(t, o)
	id := n.execute("true")
	if s := n.reconnecting(id); s.State != command.Starting {
		t.Errorf("it is %s", s.State)
	}
	m.restore()
	if s := n.ended(id); s.State != command.Completed || m.started(id) != 1 {
		t.Errorf("%s, started %d times", s.State, m.started(id))
	}
}

func TestUnreachableHostFails(t *testing.T) {
	o, m := onMachine(t)
	m.cut()
	n := start(t, o)
	if s := n.ended(n.execute("true")); s.State != command.Failed || reason(s) != fault.ReasonHostUnreachable {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
}

// The store fails when a command ends: its host keeps it until the end is stored.
func TestCollectedOnlyWhenStored(t *testing.T) {
	for mode, name := range map[int32]string{1: "not persisted", 2: "persisted"} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			j := &broken{Journal: o.Journal}
			o.Journal = j
			n := start(t, o)
			id := n.execute("read x; exit 6", withInput)
			n.running(id)
			j.mode.Store(mode)
			n.input(id, "x")
			m.await("its end", func() bool { return m.runs[id].end != nil })
			if mode == 1 {
				for n.StoreTrouble() == nil {
					rung := n.journal.bell.Rung()
					if n.StoreTrouble() == nil {
						<-rung
					}
				}
				m.with(func() {
					if m.runs[id].collected {
						t.Error("it was collected before its end was stored")
					}
				})
			}
			j.mode.Store(0)
			if s := n.ended(id); s.State != command.Completed || code(s) != "6" {
				t.Errorf("%s, %s", s.State, code(s))
			}
			m.await("its collection", func() bool { return m.runs[id].collected })
		})
	}
}

// Another owner has the command: this one writes, ends and removes nothing.
func TestAnotherOwner(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, o engine.Options, n *node, m *machine, id string){
		"says the journal": func(t *testing.T, o engine.Options, n *node, m *machine, id string) {
			c := in(t, o, id)
			ch := command.Change{From: c.State, Fence: c.Fence, Command: c}
			ch.Command.Fence, ch.Command.Node = c.Fence+1, "n2"
			if err := o.Journal.Apply(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
			n.input(id, "x")
		},
		"with the same fence": func(t *testing.T, o engine.Options, n *node, m *machine, id string) {
			c := in(t, o, id)
			ch := command.Change{From: c.State, Fence: c.Fence, Command: c}
			ch.Command.State, ch.Command.EndTime = command.Lost, time.Now()
			if err := o.Journal.Apply(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
			n.input(id, "x")
		},
		"says the host": func(t *testing.T, o engine.Options, n *node, m *machine, id string) {
			m.with(func() { m.runs[id].fence = 9 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			n := start(t, o)
			id := n.execute("echo a; read x; echo b; exit 3", withInput)
			n.prints(id, "a")
			n.stores(id, "running", func(c command.Command) bool { return c.State == command.Running && c.Size[command.Stdout] == 2 })
			n.listen(ann, engine.EventsOptions{}).sync() // who stays, so that nothing is forgotten
			dropped := n.dropping(id)
			take(t, o, n, m, id)
			dropped()
			for late := time.After(20 * time.Second); ; {
				l := n.listen(ann, engine.EventsOptions{})
				l.sync()
				l.Close()
				if l.commands[id].ID == "" {
					break
				}
				select {
				case <-late:
					t.Fatal("who begins to watch what happens is told that it lives here")
				default:
				}
			}
			c := in(t, o, id)
			if c.Exit.Code != nil || c.Size[command.Stdout] > 2 || c.State == command.Completed {
				t.Errorf("the journal has %+v", c)
			}
			n.stop()
			if running, _ := n.Load("h"); running != 0 || m.runs[id].collected {
				t.Errorf("%d running, collected %v", running, m.runs[id].collected)
			}
		})
	}
	t.Run("a start and a resume", func(t *testing.T) {
		o, m := onMachine(t)
		m.afterSpawn = func(r engine.Run) {
			m.with(func() { m.runs[r.ID].fence = 9 })
			m.cut()
		}
		n := start(t, o)
		starting := n.execute("sleep 60")
		n.reconnecting(starting)
		m.with(func() { m.afterSpawn = nil })
		n.crash()
		m.restore()
		n = start(t, o)
		n.dropping(starting)()
		if c := in(t, o, starting); c.State != command.Starting {
			t.Errorf("it is %s, %+v", c.State, c.Failure)
		}
	})
}

// What the host could not keep of the output is told.
func TestTruncationOnTheHost(t *testing.T) {
	o, m := onMachine(t)
	m.onEnd = func(e *command.Ending) {
		e.Truncation = &command.Truncation{Offset: command.Sizes{4, -1}, Reason: "the disk was full"}
	}
	n := start(t, o)
	if s := n.ended(n.execute("echo abc")); s.State != command.Completed || s.Truncation == nil || s.Truncation.Reason != "the disk was full" {
		t.Errorf("%s, %+v", s.State, s.Truncation)
	}
}

// What the host says when it is asked again decides what is lost.
func TestLostOnTheHost(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]bool{"found at the restart": true, "found while it runs": false} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			n := start(t, o)
			id := n.execute("echo a; exec sleep 60")
			n.prints(id, "a")
			if remove {
				n.stop()
			}
			m.with(func() { m.removed[id] = true })
			if remove {
				n = start(t, o)
			}
			s := n.ended(id)
			if s.State != command.Lost || reason(s) != fault.ReasonRunRemoved || s.Exit.Code != nil || stdout(n, id) != "a\n" {
				t.Errorf("%s, %+v, %q", s.State, s.Failure, stdout(n, id))
			}
			if _, report, err := n.Cancel(t.Context(), ann, id, 0, ""); err != nil || report.Outcome != command.AlreadyEnded {
				t.Errorf("a sweep gives %+v, %v", report, err)
			}
		})
	}
	t.Run("a cancel was pending", func(t *testing.T) {
		o, m := onMachine(t)
		n := start(t, o)
		id := n.execute("exec sleep 60")
		n.running(id)
		m.cut()
		n.reconnecting(id)
		go func() {
			n.until(id, "being cancelled", func(s engine.Snapshot) bool { return s.Cancellation != nil })
			m.with(func() { m.removed[id] = true })
			m.restore()
		}()
		s, report, err := n.Cancel(t.Context(), ann, id, 10*time.Second, "")
		if s.State == command.Lost && (err != nil || report.Outcome != command.Unproven) {
			t.Errorf("%s, %+v, %v", s.State, report, err)
		}
	})
	t.Run("the host is not configured any more", func(t *testing.T) {
		o, m := onMachine(t)
		n := start(t, o)
		id := n.execute("sleep 60")
		n.running(id)
		n.stop()
		o.Hosts = hosts{"other": 1}
		n = start(t, o)
		if s := n.ended(id); s.State != command.Lost || reason(s) != fault.ReasonUnknownHost || m.runs[id].collected {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
	t.Run("a doubtful start", func(t *testing.T) {
		o, m := onMachine(t)
		m.afterSpawn = func(r engine.Run) {
			m.with(func() { m.removed[r.ID] = true })
			panic("boom")
		}
		n := start(t, o)
		if s := n.ended(n.execute("true")); s.State != command.Lost || reason(s) != fault.ReasonRunRemoved {
			t.Errorf("%s, %+v", s.State, s.Failure)
		}
	})
}

// Commands that were running have their slots at once, whatever the limits; new
// ones wait for them. No host need be there for the service to be ready.
func TestTakenOverCommandsHaveSlots(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	const many = 5
	var ids []string
	for i := range many {
		ids = append(ids, n.execute(fmt.Sprintf("read x; exit %d", i), withInput))
	}
	for _, id := range ids {
		n.running(id)
	}
	m.cut()
	n.crash()
	o.Hosts = hosts{"h": 2}
	n = start(t, o)
	if running, _ := n.Load("h"); running != many {
		t.Errorf("%d slots are taken", running)
	}
	late := n.execute("true")
	if s, _ := n.Get(t.Context(), ann, late); s.State != command.Queued {
		t.Errorf("a new one is %s", s.State)
	}
	for _, id := range ids {
		if s := n.reconnecting(id); s.State.Ended() {
			t.Errorf("it is %s", s.State)
		}
	}
	m.restore()
	for i, id := range ids {
		n.until(id, "found again", func(s engine.Snapshot) bool {
			return s.State == command.Running && s.Connection == command.Connected
		})
		n.input(id, "x")
		if s := n.ended(id); code(s) != fmt.Sprint(i) {
			t.Errorf("%d: %s, %s", i, s.State, code(s))
		}
	}
	if s := n.ended(late); s.State != command.Completed {
		t.Errorf("the late one: %s, %+v", s.State, s.Failure)
	}
}

// Many are taken over at once, which costs a few commits and not one each.
func TestManyAreTakenOver(t *testing.T) {
	const many = 300
	o, m := onMachine(t)
	o.Limits = engine.Limits{MaxCommands: many, MaxQueued: many, QueueTimeout: time.Hour, DrainTimeout: time.Millisecond}
	o.Hosts = hosts{"h": many}
	n := start(t, o)
	ids := make([]string, many)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			s, _, err := n.Execute(t.Context(), ann, command.Spec{Host: "h", Line: "read x; exit 9", StdinOpen: true})
			if err != nil {
				t.Error(err)
			}
			ids[i] = s.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		n.running(id)
	}
	n.crash()
	began := time.Now()
	n = start(t, o)
	for _, id := range ids {
		n.until(id, "found again", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
	}
	t.Logf("%d commands were taken over in %s", many, time.Since(began))
	for _, id := range ids {
		n.input(id, "x")
		if s := n.ended(id); code(s) != "9" || m.started(id) != 1 {
			t.Errorf("%s, %s, started %d times", s.State, code(s), m.started(id))
		}
	}
}

// What the host keeps of runs is removed when the host is used, of those only
// that have ended for good, and not again soon.
func TestClean(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	first := n.execute("true")
	n.ended(first)
	running := n.execute("sleep 60")
	n.running(running)
	n.stop()
	m.await("the first visit", func() bool { return m.visits == 1 })
	n = start(t, o)
	n.ended(n.execute("true"))
	m.await("the second visit", func() bool { return m.visits == 2 })
	n.stop()
	if m.visits != 2 || !slices.Contains(m.cleaned, first) || slices.Contains(m.cleaned, running) || slices.Contains(m.cleaned, "01ARZ3NDEKTSV4RRFFQ69G5FAV") {
		t.Errorf("%d visits, removed %q", m.visits, m.cleaned)
	}
}

// What was only given up is on its host for whoever looks, until it is old.
func TestCleanLeavesWhatWasGivenUp(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("sleep 60")
	n.running(id)
	n.stop()
	hosts := o.Hosts
	o.Hosts = nobody{}
	n = start(t, o)
	if s := n.ended(id); s.State != command.Lost || s.Failure.Reason != fault.ReasonUnknownHost {
		t.Errorf("%s %+v", s.State, s.Failure)
	}
	n.stop()
	o.Hosts = hosts
	for _, aged := range []bool{false, true} {
		n = start(t, o)
		visits := 0
		m.with(func() { visits, m.aged = m.visits, aged })
		n.ended(n.execute("true"))
		m.await("a visit", func() bool { return m.visits > visits })
		n.stop()
		if slices.Contains(m.cleaned, id) != aged {
			t.Errorf("old %t: removed %q", aged, m.cleaned)
		}
	}
}

// nobody is a configuration without hosts.
type nobody struct{}

func (nobody) Lookup(name string) (inventory.Host, error) {
	return inventory.Host{}, fault.New(fault.NotFound, fault.ReasonUnknownHost, "no host %s", name)
}

func (nobody) List() []inventory.Host { return nil }

func TestCleanFails(t *testing.T) {
	o, m := onMachine(t)
	m.onClean = func() error { return errors.New("no") }
	n := start(t, o)
	n.ended(n.execute("true"))
	n.ended(n.execute("true"))
	n.stop()
	if m.visits != 1 {
		t.Errorf("%d visits", m.visits)
	}
}

// The service's own failure while it looks after a command ends that one only,
// and nothing of it is removed from its host.
func TestPanicOfAnOwner(t *testing.T) {
	o, m := onMachine(t)
	m.panics.Store(true)
	n := start(t, o)
	id := n.execute("sleep 60")
	if s := n.ended(id); s.State != command.Lost || reason(s) != fault.ReasonInternal || m.runs[id].collected {
		t.Errorf("%s, %+v", s.State, s.Failure)
	}
	m.panics.Store(false)
	if s := n.ended(n.execute("true")); s.State != command.Completed {
		t.Errorf("the next one: %s, %+v", s.State, s.Failure)
	}
}
