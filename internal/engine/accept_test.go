package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
)

// Whether a command was stored cannot be known at once, since the store is away:
// the caller is told so, and a command that was runs when the store is back.
func TestAcceptedInDoubt(t *testing.T) {
	for mode, stored := range map[int32]bool{5: false, 6: true} {
		for name, slots := range map[string]int{"with a slot": 2, "queued": 1} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ", stored ", stored, ", restart ", restart), func(t *testing.T) {
					t.Parallel()
					o := fresh(t)
					o.Hosts = hosts{"h": slots}
					j := &broken{Journal: o.Journal}
					o.Journal = j
					m := newMachine(t)
					o.Runner = m
					n := start(t, o)
					first := n.execute("read x", withInput)
					n.running(first)
					n.stores(first, "running", func(c command.Command) bool { return c.State == command.Running })
					j.mode.Store(mode)
					spec := command.Spec{Host: "h", Line: "exit 7", RequestID: "r"}
					_, _, err := n.Execute(t.Context(), ann, spec)
					if f := fault.From(err); f == nil || f.Reason != fault.ReasonStoreUnavailable || !strings.Contains(f.Hint, "request_id") {
						t.Errorf("the caller is told %v", err)
					}
					if restart {
						n.stop()
						j.mode.Store(0)
						n = start(t, o)
						n.until(first, "found again", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
					}
					j.mode.Store(0)
					if list, err := n.List(t.Context(), ann, command.Filter{}); err != nil || len(list) != 1 && !stored || len(list) != 2 && stored {
						t.Errorf("%d commands, %v", len(list), err)
					}
					n.input(first, "x")
					s, replayed, err := n.Execute(t.Context(), ann, spec)
					if err != nil || replayed != stored {
						t.Fatalf("replayed %v, %v", replayed, err)
					}
					if s := n.ended(s.ID); s.State != command.Completed || code(s) != "7" || m.started(s.ID) != 1 {
						t.Errorf("%s, %s, %+v, started %d times", s.State, code(s), s.Failure, m.started(s.ID))
					}
					n.stop()
					if running, queued := n.Load("h"); running+queued != 0 {
						t.Errorf("%d running, %d queued at the end", running, queued)
					}
				})
			}
		}
	}
}
