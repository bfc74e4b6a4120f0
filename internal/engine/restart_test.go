package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
)

// What a command's version told of is never told again under the same or a lower
// number, though the service was killed before it was stored.
func TestVersionGrowsOverACrash(t *testing.T) {
	for name, tc := range map[string]struct {
		durability command.Durability
		changes    func(t *testing.T, n *node, m *machine, id string) engine.Snapshot
		then       func(s engine.Snapshot) bool
	}{
		"running": {
			changes: func(t *testing.T, n *node, m *machine, id string) engine.Snapshot {
				m.cut()
				n.reconnecting(id)
				m.restore()
				n.until(id, "back", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
				m.cut()
				return n.reconnecting(id)
			},
			then: func(s engine.Snapshot) bool { return s.State == command.Running },
		},
		"attached": {
			durability: command.Attached,
			changes: func(t *testing.T, n *node, m *machine, id string) engine.Snapshot {
				n.Input(t.Context(), ann, id, nil, true)
				return n.until(id, "told that its input is closed", func(s engine.Snapshot) bool { return s.StdinClosed })
			},
			then: func(s engine.Snapshot) bool { return s.Ended() },
		},
		"queued": {
			changes: func(t *testing.T, n *node, m *machine, id string) engine.Snapshot {
				queued := n.execute("true")
				n.journal.dead.Store(true)
				n.Cancel(soon(t), ann, queued, 0, "")
				return n.until(queued, "being cancelled", func(s engine.Snapshot) bool { return s.Cancellation != nil })
			},
			then: func(s engine.Snapshot) bool { return s.State == command.Queued && s.Cancellation == nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			o.Hosts = hosts{"h": 1}
			n := start(t, o)
			id := n.execute("echo a; read x; sleep 60", withInput, func(s *command.Spec) { s.Durability = tc.durability })
			n.prints(id, "a")
			n.stores(id, "running", func(c command.Command) bool { return c.State == command.Running && c.Size[command.Stdout] == 2 })
			n.journal.dead.Store(name != "queued") // whose last change is to be stored when it is accepted
			told := tc.changes(t, n, m, id)
			n.crash()
			n = start(t, o)
			if s, err := n.Get(t.Context(), ann, told.ID); err != nil || !tc.then(s) || s.Version <= told.Version {
				t.Errorf("version %d, then %d, %s, %v", told.Version, s.Version, s.State, err)
			}
		})
	}
}

// After the service has let go of a command it says so, and that it will be back.
func TestInputAfterTheDrain(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("read x", withInput)
	n.running(id)
	m.with(func() { m.afterSpawn = func(engine.Run) { m.cut() } })
	starting := n.execute("read y", withInput)
	n.reconnecting(starting)
	n.stop()
	for _, id := range []string{id, starting} {
		_, err := n.Input(t.Context(), ann, id, []byte("x\n"), false)
		_, watchErr := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
		_, signalErr := n.Signal(t.Context(), ann, id, "INT")
		for _, err := range []error{err, watchErr, signalErr} {
			f := fault.From(err)
			if f == nil || f.Kind != fault.Unavailable || f.Reason != fault.ReasonDraining || f.RetryAfter == 0 || strings.Contains(f.Text(), "new command") {
				t.Errorf("%v", err)
			}
		}
	}
}

// Input that comes while the service looks for the command after a restart waits
// for it.
func TestInputWhileItIsLookedFor(t *testing.T) {
	o, m := onMachine(t)
	n := start(t, o)
	id := n.execute("read x; exit 3", withInput)
	n.running(id)
	n.stop()
	m.cut()
	n = start(t, o)
	back := time.AfterFunc(100*time.Millisecond, m.restore)
	defer back.Stop()
	n.input(id, "x")
	if s := n.ended(id); s.State != command.Completed || code(s) != "3" {
		t.Errorf("%s, %s", s.State, code(s))
	}
}
