package workflow_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
	"github.com/telexec/telexec/internal/workflow"
)

// reader reads what a watcher of all tasks is told.
type reader struct {
	*workflow.All
	t    testing.TB
	met  map[string]bool
	last map[string]int64 // the event that was told last, by task
	over map[string]bool
}

func (s *service) watchAll(by access.Caller, o workflow.AllOptions) *reader {
	s.t.Helper()
	a, err := s.WatchAll(s.t.Context(), by, o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.Close)
	r := &reader{All: a, t: s.t, met: map[string]bool{}, last: map[string]int64{}, over: map[string]bool{}}
	for id, after := range o.After {
		r.last[id] = after
	}
	return r
}

// until reads until something is so, or all that was there has been told.
func (r *reader) until(what string, is func() bool) {
	r.t.Helper()
	ctx, stop := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer stop()
	for is == nil || !is() {
		n, err := r.Next(ctx)
		if err != nil {
			r.t.Fatalf("waiting for %s: %v", what, err)
		}
		switch {
		case n.Known && is == nil:
			return
		case n.Known:
		case n.Event == nil:
			if r.met[n.View.ID] {
				r.t.Fatalf("%s is met twice", n.View.ID)
			}
			r.met[n.View.ID] = true
			if _, told := r.last[n.View.ID]; !told && is == nil {
				r.last[n.View.ID] = n.View.Sequence // it was there before
			}
		default:
			if e := n.Event; !r.met[e.Task] || e.Sequence != r.last[e.Task]+1 {
				r.t.Fatalf("%s: event %d behind %d, met %v", e.Task, e.Sequence, r.last[e.Task], r.met[e.Task])
			}
			r.last[n.Event.Task] = n.Event.Sequence
			r.over[n.Event.Task] = n.Event.State.Ended()
			if n.Event.State.Ended() && n.View.Ended() && n.Event.Sequence == n.View.Sequence {
				delete(r.met, n.Event.Task) // it is met anew, should it be undone
			}
		}
	}
}

// Whoever watches all tasks is told of those there are, and then every event, once and in
// its order, of the tasks that it may see.
func TestWatchAll(t *testing.T) {
	s := start(t, 3, usual)
	there := s.submit(ann, "hold 1 on h00", "ok 2 on h01; undo=undo 2")
	s.field.of("hold 1", "h00")
	everything, anns, bobs := s.watchAll(adm, workflow.AllOptions{}), s.watchAll(ann, workflow.AllOptions{}), s.watchAll(bob, workflow.AllOptions{})
	for who, r := range map[string]*reader{"everything": everything, "ann": anns, "bob": bobs} {
		r.until("what is there", nil)
		if r.met[there] != (who != "bob") {
			t.Errorf("%s has met %v", who, r.met)
		}
	}
	var ids []string
	for i := range 20 {
		ids = append(ids, s.submit(ann, "ok on h00 h01 h02; parallel=1", fmt.Sprintf("ok %d on h01", i)))
	}
	s.field.ends("hold 1", "h00", 0)
	done := func(r *reader) func() bool {
		ends := make(map[string]int64)
		for _, id := range append(ids, there) {
			ends[id] = s.ends(id, task.Completed).Sequence
		}
		return func() bool {
			for id, last := range ends {
				if r.last[id] != last {
					return false
				}
			}
			return true
		}
	}
	everything.until("all ends", done(everything))
	anns.until("all ends", done(anns))
	// One that is over is undone: it is told as if it were new, from there on.
	before := s.until(there, "itself", func(workflow.View) bool { return true }).Sequence
	if _, _, err := s.Undo(t.Context(), ann, there, workflow.UndoRequest{}); err != nil {
		t.Fatal(err)
	}
	after := s.ends(there, task.Undone).Sequence
	anns.until("the undo", func() bool { return anns.last[there] == after })
	if after <= before {
		t.Errorf("%d events, %d before", after, before)
	}
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if n, err := bobs.Next(short); err == nil {
		t.Errorf("bob is told %+v", n)
	}
	// Who comes back is told what it has missed, also of what is over.
	back := s.watchAll(ann, workflow.AllOptions{After: map[string]int64{there: 3, ids[0]: 0}})
	first := s.ends(ids[0], task.Completed).Sequence
	back.until("what it has missed", func() bool { return back.last[there] == after && back.last[ids[0]] == first })
	for id, want := range map[string]string{there: fault.ReasonEventsUnknown, ulidOf("0"): fault.ReasonUnknownTask} {
		if _, err := s.WatchAll(t.Context(), adm, workflow.AllOptions{After: map[string]int64{id: 1000}}); fault.ReasonOf(err) != want {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.WatchAll(t.Context(), bob, workflow.AllOptions{After: map[string]int64{there: 1}}); fault.ReasonOf(err) != fault.ReasonAccessDenied {
		t.Error(err)
	}
	s.stop()
	for {
		if _, err := anns.Next(t.Context()); fault.ReasonOf(err) == fault.ReasonDraining {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchAllOfSome(t *testing.T) {
	s := start(t, 1, usual)
	mine := s.watchAll(adm, workflow.AllOptions{Principal: "bob"})
	shop := s.watchAll(adm, workflow.AllOptions{Labels: map[string]string{"app": "shop"}})
	mine.until("what is there", nil)
	shop.until("what is there", nil)
	anns := s.submit(ann, "ok on h00")
	bobs := s.submit(bob, "ok on h00")
	p := plan("ok on h00")
	p.Spec.Labels = map[string]string{"app": "shop", "x": "y"}
	v, _, err := s.Submit(t.Context(), ann, p, false)
	if err != nil {
		t.Fatal(err)
	}
	mine.until("bob's", func() bool { return mine.over[bobs] })
	shop.until("the shop's", func() bool { return shop.over[v.ID] })
	if _, told := mine.last[anns]; told || len(shop.last) != 1 {
		t.Errorf("%v, %v", mine.last, shop.last)
	}
}
