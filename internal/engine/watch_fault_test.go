package engine_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
)

// failing is a journal of which some reads fail.
type failing struct {
	engine.Journal
	orders atomic.Int64 // which read of the order from now on fails; 0: none
	gets   atomic.Bool  // the next Get fails
}

func (f *failing) ReadOrder(ctx context.Context, id string, position int64, limit int) ([]command.Sizes, error) {
	if f.orders.Add(-1) == 0 {
		return nil, errNoStore
	}
	return f.Journal.ReadOrder(ctx, id, position, limit)
}

func (f *failing) Get(ctx context.Context, id string) (command.Command, error) {
	if f.gets.CompareAndSwap(true, false) {
		return command.Command{}, errNoStore
	}
	return f.Journal.Get(ctx, id)
}

// again gives the next event of a watch, which is asked again where the journal failed.
func again(t *testing.T, w *engine.Watch) engine.Event {
	t.Helper()
	for range 100 {
		if ev, err := w.Next(t.Context()); err == nil {
			return ev
		}
	}
	t.Fatal("the watch fails for ever")
	return engine.Event{}
}

// The order cannot be read just when a watcher searches it for an offset: asked again,
// it is told the same place. Some of the order is stored, some in memory as well, and
// much in memory alone, so that the search goes from one to the other.
func TestOrderThatIsReadAgain(t *testing.T) {
	const stored, all = 4600, 8000
	o, m := onMachine(t)
	f := &failing{Journal: o.Journal}
	o.Journal = f
	prints := make(chan func(s command.Stream, data []byte) error, 1)
	m.afterSpawn = func(r engine.Run) { prints <- r.Output }
	n := start(t, o)
	id := n.execute("read x", withInput)
	n.running(id)
	n.stores(id, "running", func(c command.Command) bool { return c.State == command.Running })
	print := <-prints
	turns := func(count int) {
		for range count {
			for _, s := range command.Streams {
				if err := print(s, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	n.journal.dead.Store(true)
	turns(stored)
	n.journal.dead.Store(false) // all of it goes at once
	n.stores(id, "with the first turns", func(c command.Command) bool { return c.Size == command.Sizes{stored, stored} })
	n.journal.dead.Store(true)
	turns(all - stored)
	for i := range int64(4 * all / 100) {
		at := i / 4 * 100
		f.orders.Store(1 + i%4)
		w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{From: command.Sizes{at}, Streams: [2]bool{true, false}, Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		ev := again(t, w)
		for ev.Kind != engine.EventChunk {
			ev = again(t, w)
		}
		if ev.Chunk.Offset != at || ev.Position != 2*at {
			t.Errorf("offset %d has position %d, want %d", ev.Chunk.Offset, ev.Position, 2*at)
		}
		w.Close()
	}
	n.journal.dead.Store(false)
	n.input(id, "x")
	n.ended(id)
}

// Retention cuts what a watcher is about to read, and the store does not say how much:
// asked again, it tells the gap.
func TestGapThatIsReadAgain(t *testing.T) {
	o := fresh(t)
	f := &failing{Journal: o.Journal}
	o.Journal = f
	n := start(t, o)
	id := n.execute("echo 0123456789")
	n.ended(id)
	n.stop()
	n = start(t, o) // nobody has the output any more but the store
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := o.Journal.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), TrimTo: 1}); err != nil {
		t.Fatal(err)
	}
	if ev := again(t, w); ev.Kind != engine.EventCommand {
		t.Fatalf("told first: %+v", ev)
	}
	f.gets.Store(true)
	if ev := again(t, w); ev.Kind != engine.EventGap || ev.Gap.To != 10 {
		t.Errorf("told then: %+v", ev)
	}
	if f.gets.Load() {
		t.Error("the record was not read again")
	}
	w.Close()
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.Watchers != 0 {
		t.Errorf("%d watchers are left, %v", s.Watchers, err)
	}
}
