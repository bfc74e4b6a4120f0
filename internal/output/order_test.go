package output_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
)

// piece is a run of bytes that came at once.
type piece struct {
	stream command.Stream
	size   int
}

// walk gives the pieces from a position up to the end, as Path tells them.
func walk(t testing.TB, log *output.Log, from int64) (pieces []piece) {
	t.Helper()
	end, _ := log.Sizes()
	for at := from; at < end.Position(); {
		path, err := log.Path(t.Context(), at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !command.Rising(path.Points) || path.Points[0].Position() > at || path.End.Position() <= at {
			t.Fatalf("at %d: %+v", at, path)
		}
		for at < path.End.Position() {
			offsets := path.At(at)
			found := false
			for _, s := range command.Streams {
				if !path.Holds(s, offsets[s]) {
					continue
				}
				position, until := path.Place(s, offsets[s])
				if position != at {
					continue
				}
				n := int(until - offsets[s])
				if last := len(pieces) - 1; last >= 0 && pieces[last].stream == s {
					pieces[last].size += n
				} else {
					pieces = append(pieces, piece{s, n})
				}
				at += int64(n)
				found = true
				break
			}
			if !found {
				t.Fatalf("no stream has position %d (offsets %v) of %+v", at, offsets, path)
			}
		}
	}
	return pieces
}

// same makes of pieces of one stream that follow each other one.
func same(pieces []piece) (joined []piece) {
	for _, p := range pieces {
		if last := len(joined) - 1; last >= 0 && joined[last].stream == p.stream {
			joined[last].size += p.size
		} else {
			joined = append(joined, p)
		}
	}
	return joined
}

// Whatever comes, whenever it is stored and however often the log is begun anew
// where the store ends: the order is that in which it came.
func TestOrderIsKept(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			var bell output.Bell
			store := &kept{}
			log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
			var came []piece
			most := 1 << r.IntN(17)
			for range 1 + r.IntN(3000) {
				switch n := r.IntN(100); {
				case n < 95:
					p := piece{command.Streams[r.IntN(2)], 1 + r.IntN(most)}
					if _, err := log.Append(p.stream, make([]byte, p.size)); err != nil {
						t.Fatal(err)
					}
					came = append(came, p)
				case n < 99:
					store.store(t, log, 1<<r.IntN(22))
				default: // what the store has not got is gone, and comes no more
					saved := log.SavedSizes()
					came = cut(came, saved)
					log.Release()
					log = output.ResumeLog("c1", store, output.NewBudget(1<<30), &bell, saved)
				}
				if log.UnsavedBytes() > output.MaxUnsaved/2 {
					store.store(t, log, 1<<30)
				}
			}
			came = same(came)
			if got := walk(t, log, 0); fmt.Sprint(got) != fmt.Sprint(came) {
				t.Fatalf("in memory and store:\n got %v\nwant %v", got, came)
			}
			end, _ := log.Sizes()
			for range 20 {
				at := r.Int64N(end.Position() + 1)
				if got, want := walk(t, log, at), from(came, at); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("from %d:\n got %v\nwant %v", at, got, want)
				}
			}
			store.store(t, log, 1<<30)
			log = output.ResumeLog("c1", store, output.NewBudget(1<<30), &bell, end)
			if got := walk(t, log, 0); fmt.Sprint(got) != fmt.Sprint(came) {
				t.Fatalf("stored:\n got %v\nwant %v", got, came)
			}
		})
	}
}

// cut gives what of the pieces is stored, which is a beginning of them.
func cut(pieces []piece, saved command.Sizes) (left []piece) {
	for _, p := range pieces {
		whole := p.size
		p.size = int(min(int64(whole), saved[p.stream]))
		saved[p.stream] -= int64(p.size)
		if p.size > 0 {
			left = append(left, p)
		}
		if p.size < whole {
			break
		}
	}
	return left
}

// from gives the pieces from a position on.
func from(pieces []piece, position int64) (left []piece) {
	for _, p := range pieces {
		n := min(position, int64(p.size))
		position -= n
		if p.size -= int(n); p.size > 0 {
			left = append(left, p)
		}
	}
	return left
}

// What is to be stored is at any limit a beginning of what came, in that order, and
// one stream alone is given in whole segments.
func TestUnsavedIsABeginning(t *testing.T) {
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	var came []piece
	for i := range 300 {
		p := piece{command.Streams[i%2], 1000 + i}
		log.Append(p.stream, make([]byte, p.size))
		came = append(came, p)
	}
	for log.UnsavedBytes() > 0 {
		before := log.SavedSizes()
		store.store(t, log, 10_000)
		saved := log.SavedSizes()
		if n := saved.Position() - before.Position(); n < 10_000 && log.UnsavedBytes() > 0 || n > 20_000 {
			t.Fatalf("%d bytes were stored where 10000 was asked for", n)
		}
		var both int64
		for _, p := range cut(came, saved) {
			both += int64(p.size)
		}
		if both != saved.Position() {
			t.Fatalf("%v is no beginning: only %d bytes of it came first", saved, both)
		}
	}

	log = output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
	log.Append(command.Stdout, make([]byte, 3<<20))
	if chunks, order := log.Unsaved(1<<20 + 1); len(chunks) != 2 || len(chunks[1].Data) != 1<<20 || len(order) != 0 {
		t.Errorf("%d chunks, waypoints %v", len(chunks), order)
	}
}

// A stream alone has no waypoint, nor has one behind the other.
func TestOrderCostsNothingWhereThereIsNone(t *testing.T) {
	var bell output.Bell
	for _, s := range command.Streams {
		log := output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
		for range 100 {
			log.Append(s, []byte("x"))
		}
		log.Append(command.Stderr, []byte("x"))
		log.Append(command.Stdout, nil)
		if _, order := log.Unsaved(1 << 20); len(order) != 0 {
			t.Errorf("%s: %v", s, order)
		}
	}
}

// The order of streams that take turns at every byte takes bounded memory, and what
// is near the end is told without the store.
func TestOrderLeavesMemory(t *testing.T) {
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	const turns = 20_000
	for range turns {
		log.Append(command.Stdout, []byte("o"))
		log.Append(command.Stderr, []byte("e"))
		store.store(t, log, 1<<20)
	}
	if got := len(walk(t, log, 2*turns-500)); got != 500 || store.orderReads != 0 {
		t.Errorf("%d pieces near the end, with %d reads of the store", got, store.orderReads)
	}
	if got := len(walk(t, log, 0)); got != 2*turns || store.orderReads == 0 || store.orderReads > 2*turns/output.PathPoints+2 {
		t.Errorf("%d pieces of %d, with %d reads of the store", got, 2*turns, store.orderReads)
	}
	if n := log.Waypoints(); n > 4*output.PathPoints {
		t.Errorf("%d waypoints are in memory", n)
	}
}

// However much order waits for the store while some of it is stored, none is dropped
// that the store has not got.
func TestOrderThatWaitsIsKept(t *testing.T) {
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	const turns = 8 * output.PathPoints
	for range turns {
		log.Append(command.Stdout, []byte("o"))
		log.Append(command.Stderr, []byte("e"))
	}
	for _, limit := range []int{1, 100, turns, 100, 1 << 20} {
		store.store(t, log, limit)
		if got := len(walk(t, log, 0)); got != 2*turns {
			t.Errorf("%d pieces of %d, when the store has %v", got, 2*turns, log.SavedSizes())
		}
	}
}

// What has come since a log was begun anew is told without the store, whichever stream
// it came on and before any of it took turns; and all of it is where the store has none.
func TestOrderOfAResumedLogIsInMemory(t *testing.T) {
	for _, at := range []command.Sizes{{}, {9, 0}, {0, 9}, {9, 9}} {
		for _, s := range command.Streams {
			var bell output.Bell
			store := &kept{}
			log := output.ResumeLog("c1", store, output.NewBudget(1<<30), &bell, at)
			for range 3 {
				log.Append(s, []byte("x"))
				if got := walk(t, log, at.Position()); len(got) != 1 || store.orderReads != 0 {
					t.Errorf("%s behind %v: %v, with %d reads of the store", s, at, got, store.orderReads)
				}
			}
		}
	}
}

// Where the store is behind, waypoints make Append wait as bytes do.
func TestWaypointsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bell output.Bell
		store := &kept{}
		log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
		const turns = 70_000
		go func() {
			for range turns {
				log.Append(command.Stderr, []byte("e"))
				log.Append(command.Stdout, []byte("o"))
			}
			log.Seal()
		}()
		for sealed := false; !sealed; _, sealed = log.Sizes() {
			synctest.Wait()
			if n := log.Waypoints(); n > output.MostPoints+4*output.PathPoints {
				t.Fatalf("%d waypoints at once", n)
			}
			store.store(t, log, 1<<30)
		}
		if got := walk(t, log, 0); len(got) != 2*turns {
			t.Errorf("%d pieces", len(got))
		}
	})
}

// Readers follow the order while it grows: each byte of both streams comes once, and
// what was told of it does not change.
func TestOrderWhileItGrows(t *testing.T) {
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	const turns = 3000
	var others sync.WaitGroup
	told := make([][]byte, 3)
	for reader := range told {
		others.Go(func() {
			var at command.Sizes
			var points []command.Sizes
			for {
				rung := bell.Rung()
				sizes, sealed := log.Sizes()
				if at == sizes {
					if sealed {
						return
					}
					<-rung
					continue
				}
				path, err := log.Path(t.Context(), at.Position(), points)
				if err != nil {
					t.Error(err)
					return
				}
				points = path.Points
				for _, s := range command.Streams {
					if !path.Holds(s, at[s]) {
						continue
					}
					if position, until := path.Place(s, at[s]); position == at.Position() {
						n := min(until, sizes[s]) - at[s]
						told[reader] = append(told[reader], bytes.Repeat([]byte{"oe"[s]}, int(n))...)
						at[s] += n
						break
					}
				}
			}
		})
	}
	others.Go(func() {
		for {
			rung := bell.Rung()
			_, sealed := log.Sizes()
			if len(store.store(t, log, 1<<10)) == 0 {
				if sealed {
					return
				}
				<-rung
			}
		}
	})
	r := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for range turns {
		s := command.Streams[r.IntN(2)]
		data := bytes.Repeat([]byte{"oe"[s]}, 1+r.IntN(50))
		log.Append(s, data)
		want = append(want, data...)
	}
	log.Seal()
	others.Wait()
	for reader, got := range told {
		if !bytes.Equal(got, want) {
			t.Errorf("reader %d was told another order", reader)
		}
	}
}

func BenchmarkAppendInTurns(b *testing.B) {
	for _, size := range []int{10, 32 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var bell output.Bell
			log := output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
			data := noise(size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			for b.Loop() {
				log.Append(command.Stdout, data)
				if n, _ := log.Append(command.Stderr, data); n >= 1<<19 {
					chunks, _ := log.Unsaved(1 << 30)
					log.SavedTo(ends(chunks, log.SavedSizes()))
				}
			}
		})
	}
}
