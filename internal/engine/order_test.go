package engine_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/engine"
	"github.com/telexec/telexec/internal/fault"
)

// scribe has what a watch tells of output, each byte with its stream: "o" or "e"
// before each run.
type scribe struct {
	t    *testing.T
	text strings.Builder
	last command.Stream
	next int64 // the position that is due; -1: any
	at   command.Sizes
	n    int // chunks
}

func (w *scribe) chunk(ev engine.Event) {
	if w.n == 0 {
		w.at[ev.Chunk.Stream] = ev.Chunk.Offset
	}
	if w.next >= 0 && ev.Position != w.next {
		w.t.Errorf("a chunk at position %d where %d was due", ev.Position, w.next)
	}
	if w.next >= 0 {
		w.next = ev.Position + int64(len(ev.Chunk.Data))
	}
	if w.n++; w.text.Len() == 0 || w.last != ev.Chunk.Stream {
		w.text.WriteString([]string{"\n>o ", "\n>e "}[ev.Chunk.Stream])
	}
	w.last = ev.Chunk.Stream
	w.text.Write(ev.Chunk.Data)
}

// watched gives all that a watch tells of output.
func watched(t *testing.T, n *node, id string, o engine.WatchOptions) *scribe {
	t.Helper()
	w, err := n.Watch(t.Context(), ann, id, o)
	if err != nil {
		t.Error(err)
		return &scribe{}
	}
	defer w.Close()
	all := &scribe{t: t}
	if o.Position != nil {
		all.next = *o.Position
	} else if all.next = o.From.Position(); o.Streams != ([2]bool{}) || o.From != (command.Sizes{}) {
		all.next = -1
	}
	for {
		ev, err := w.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Error(err)
			return all
		}
		switch ev.Kind {
		case engine.EventChunk:
			all.chunk(ev)
		case engine.EventGap:
			t.Errorf("a gap: %+v", ev.Gap)
		}
	}
}

// Both streams are told in the order in which they came, live and long after.
func TestStreamsComeInOrder(t *testing.T) {
	o := fresh(t)
	n := start(t, o)
	id := n.execute("for i in 1 2 3; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done")
	const want = "\n>o o1\n\n>e e1\n\n>o o2\n\n>e e2\n\n>o o3\n\n>e e3\n"
	live := watched(t, n, id, engine.WatchOptions{Follow: true}).text.String()
	replayed := watched(t, n, id, engine.WatchOptions{}).text.String()
	if live != want || replayed != want {
		t.Errorf("live: %s\nreplayed: %s", live, replayed)
	}
	err3 := [2]bool{false, true}
	if got := watched(t, n, id, engine.WatchOptions{Streams: err3}).text.String(); got != "\n>e e1\ne2\ne3\n" {
		t.Errorf("stderr alone: %s", got)
	}
}

// alternating prints so many turns of both streams, each of a size.
func alternating(turns, size int) string {
	return fmt.Sprintf("b=$(head -c %d /dev/zero | tr '\\0' x); i=0; while [ $i -lt %d ]; do printf %%s $b; printf %%s $b >&2; i=$((i+1)); done", size, turns)
}

// Whatever the size of a page, the pages together are the whole, each byte once and
// in the order of all.
func TestPagesByPosition(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute(alternating(800, 20))
	s := n.ended(id)
	whole := watched(t, n, id, engine.WatchOptions{})
	if s.Size != (command.Sizes{16_000, 16_000}) || whole.next != 32_000 {
		t.Fatalf("%v, told up to %d", s.Size, whole.next)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for range 6 {
		limit := 1 + r.Int64N(1<<(5+r.IntN(10)))
		pages := &scribe{t: t}
		for pages.next < 32_000 {
			w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Position: &pages.next, Limit: limit})
			if err != nil {
				t.Fatal(err)
			}
			began, ended := pages.next, false
			for {
				ev, err := w.Next(t.Context())
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if ev.Kind == engine.EventChunk {
					pages.chunk(ev)
				}
				ended = ev.Kind == engine.EventEnded
			}
			w.Close()
			if got := pages.next - began; !ended || got != min(limit, 32_000-began) {
				t.Fatalf("a page of %d bytes from %d, limit %d (ended: %v)", got, began, limit, ended)
			}
		}
		if pages.text.String() != whole.text.String() {
			t.Errorf("pages of %d bytes are not the whole", limit)
		}
	}
	behind := int64(32_001)
	if _, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Position: &behind}); fault.ReasonOf(err) != fault.ReasonOffsetBeyondEnd {
		t.Errorf("a position behind the end: %v", err)
	}
	behind--
	if got := watched(t, n, id, engine.WatchOptions{Position: &behind, Follow: true}); got.n != 0 {
		t.Errorf("%d chunks at the end", got.n)
	}
}

// Offsets need be no place in the order: what is told then is what is left of each
// stream, in the order of all.
func TestAnyOffsets(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute(alternating(700, 30))
	s := n.ended(id)
	var all []engine.Event
	w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		ev, err := w.Next(t.Context())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == engine.EventChunk {
			all = append(all, ev)
		}
	}
	w.Close()
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range 12 {
		from := command.Sizes{r.Int64N(s.Size[0] + 1), r.Int64N(s.Size[1] + 1)}
		streams := [2]bool{r.IntN(4) > 0, r.IntN(4) > 0}
		want := &scribe{t: t, next: -1}
		for _, ev := range all {
			c := &ev.Chunk
			if cut := min(from[c.Stream]-c.Offset, int64(len(c.Data))); cut > 0 {
				c.Data, c.Offset, ev.Position = c.Data[cut:], c.Offset+cut, ev.Position+cut
			}
			if len(c.Data) > 0 && (streams == [2]bool{} || streams[c.Stream]) {
				want.chunk(ev)
			}
		}
		if got := watched(t, n, id, engine.WatchOptions{From: from, Streams: streams}); got.text.String() != want.text.String() {
			t.Errorf("from %v, streams %v:\n got %.200s\nwant %.200s", from, streams, got.text.String(), want.text.String())
		}
	}
}

// A position that has not come yet is waited for, and a limit ends a watch of a
// command that goes on.
func TestPositionThatIsToCome(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("echo one; read x; echo two >&2; read x; echo three", func(s *command.Spec) { s.StdinOpen = true })
	n.prints(id, "one")
	at := int64(6)
	got := make(chan *scribe)
	go func() { got <- watched(t, n, id, engine.WatchOptions{Position: &at, Follow: true, Limit: 3}) }()
	if empty := watched(t, n, id, engine.WatchOptions{Position: &at}); empty.n != 0 {
		t.Errorf("told before it came: %s", empty.text.String())
	}
	n.input(id, "")
	n.until(id, "on stderr", func(s engine.Snapshot) bool { return s.Size[command.Stderr] == 4 })
	n.input(id, "")
	if w := <-got; w.text.String() != "\n>e o\n\n>o t" {
		t.Errorf("told %q", w.text.String())
	}
	n.ended(id)
}

// Who watches is told how many do, not of each who comes.
func TestWatchersAreCounted(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("read x", func(s *command.Spec) { s.StdinOpen = true })
	n.running(id)
	first, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if ev, err := first.Next(t.Context()); err != nil || ev.Snapshot.Watchers != 1 {
		t.Fatalf("%d watchers, %v", ev.Snapshot.Watchers, err)
	}
	const others = 500
	var begun, all sync.WaitGroup
	var mu sync.Mutex
	events := 0
	begun.Add(others)
	for range others {
		all.Go(func() {
			w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{Follow: true})
			begun.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			for {
				ev, err := w.Next(t.Context())
				if err != nil {
					return
				}
				if ev.Kind == engine.EventCommand && ev.Snapshot.State == command.Running {
					mu.Lock()
					events++
					mu.Unlock()
				}
			}
		})
	}
	begun.Wait()
	s, err := n.Get(t.Context(), ann, id)
	if err != nil || s.Watchers != others+1 {
		t.Errorf("%d watchers, %v", s.Watchers, err)
	}
	list, err := n.List(t.Context(), ann, command.Filter{})
	if err != nil || len(list) != 1 || list[0].Watchers != others+1 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	for {
		ev, err := first.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == engine.EventCommand && ev.Snapshot.Watchers == others+1 {
			break
		}
	}
	if _, err := n.Input(t.Context(), ann, id, nil, true); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if events > 3*others {
		t.Errorf("%d watchers were told %d times", others, events)
	}
	if s, err := n.Get(t.Context(), ann, id); err != nil || s.Watchers != 1 {
		t.Errorf("%d watchers are left, %v", s.Watchers, err)
	}
}

// The order outlives the service: what was told before it was stopped or killed is
// told again after, and what came meanwhile comes behind it.
func TestOrderOverRestarts(t *testing.T) {
	for name, crash := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			o, m := onMachine(t)
			n := start(t, o)
			id := n.execute("for i in 1 2 3; do sleep 0.05; echo e$i >&2; sleep 0.05; echo o$i; sleep 0.05; echo E$i >&2; read x; done", withInput)
			want := ""
			var before *scribe
			for i := int64(1); i <= 3; i++ {
				want += fmt.Sprintf("e%[1]d\n\n>o o%[1]d\n\n>e E%[1]d\n", i)
				n.stores(id, "with all so far", func(c command.Command) bool { return c.Size == command.Sizes{3 * i, 6 * i} })
				before = watched(t, n, id, engine.WatchOptions{})
				if got := before.text.String(); got != "\n>e "+want {
					t.Fatalf("round %d: %s", i, got)
				}
				if crash {
					n.crash()
				} else {
					n.stop()
				}
				n = start(t, o)
				if got := watched(t, n, id, engine.WatchOptions{}).text.String(); got != before.text.String() {
					t.Errorf("round %d, after the restart: %s", i, got)
				}
				n.until(id, "found again", func(s engine.Snapshot) bool { return s.Connection == command.Connected })
				n.input(id, "x")
			}
			n.ended(id)
			live := watched(t, n, id, engine.WatchOptions{Follow: true})
			m.await("its collection", func() bool { return m.runs[id].collected })
			if live.text.String() != before.text.String() || live.next != 27 {
				t.Errorf("after the end, up to %d: %s", live.next, live.text.String())
			}
		})
	}
}

// Where retention has cut, that is told first, and what is left has the place that it
// had.
func TestOrderOfTrimmedOutput(t *testing.T) {
	o := fresh(t)
	n := start(t, o)
	id := n.execute(alternating(500, 40))
	s := n.ended(id)
	places := func() (all []string, gaps []engine.Gap) {
		w, err := n.Watch(t.Context(), ann, id, engine.WatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for {
			ev, err := w.Next(t.Context())
			if err == io.EOF {
				return all, gaps
			}
			if err != nil {
				t.Fatal(err)
			}
			switch ev.Kind {
			case engine.EventChunk:
				for i := range ev.Chunk.Data {
					at := int64(i)
					all = append(all, fmt.Sprint(ev.Chunk.Stream, ev.Chunk.Offset+at, ev.Position+at))
				}
			case engine.EventGap:
				gaps = append(gaps, ev.Gap)
			}
		}
	}
	whole, _ := places()
	if _, err := o.Journal.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), TrimTo: 7777}); err != nil {
		t.Fatal(err)
	}
	left, gaps := places()
	cut := s.Size[0] - 7777
	if !slices.Equal(gaps, []engine.Gap{{Stream: command.Stdout, To: cut}, {Stream: command.Stderr, To: cut}}) {
		t.Errorf("gaps: %v", gaps)
	}
	var want []string
	for _, line := range whole {
		var stream string
		var offset, position int64
		if _, err := fmt.Sscan(line, &stream, &offset, &position); err != nil {
			t.Fatal(err)
		}
		if offset >= cut {
			want = append(want, line)
		}
	}
	if !slices.Equal(left, want) {
		t.Errorf("%d bytes are left, not %d, or elsewhere", len(left), len(want))
	}
}

// Nothing is lost of much on both streams, and what is told live is what is told
// later.
func TestMuchOnBothStreams(t *testing.T) {
	n := start(t, fresh(t))
	id := n.execute("b=$(head -c 32768 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 64 ]; do echo $b; echo $b >&2; i=$((i+1)); done")
	live := watched(t, n, id, engine.WatchOptions{Follow: true})
	s := n.ended(id)
	if s.Size != (command.Sizes{64 * 32769, 64 * 32769}) || live.next != s.Size.Position() {
		t.Errorf("%v, told up to %d", s.Size, live.next)
	}
	if replayed := watched(t, n, id, engine.WatchOptions{}); replayed.text.String() != live.text.String() || replayed.next != live.next {
		t.Error("the replay is not what was told live")
	}
}
