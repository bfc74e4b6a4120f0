package output_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/output"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is a Source that holds what was saved, as a store would.
type kept struct {
	mu    sync.Mutex
	bytes [2][]byte
	order []command.Sizes
	reads int

	orderReads int
}

// store saves what a log has unsaved, about limit bytes, and tells the log.
func (k *kept) store(t testing.TB, log *output.Log, limit int) (chunks []command.Chunk) {
	chunks, order := log.Unsaved(limit)
	k.save(t, chunks, order)
	log.SavedTo(ends(chunks, log.SavedSizes()))
	return chunks
}

func (k *kept) save(t testing.TB, chunks []command.Chunk, order []command.Sizes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	begin := command.Sizes{int64(len(k.bytes[0])), int64(len(k.bytes[1]))}
	end := ends(chunks, begin)
	for _, p := range order {
		if p.Position() < begin.Position() || p.Position() >= end.Position() || !p.Within(end) {
			t.Errorf("a waypoint at %v in output from %v to %v", p, begin, end)
		}
	}
	if k.order = append(k.order, order...); !command.Rising(k.order) {
		t.Errorf("the waypoints do not rise: %v", k.order)
	}
	for _, c := range chunks {
		if int64(len(k.bytes[c.Stream])) != c.Offset {
			t.Errorf("%s: a chunk at offset %d where %d bytes are saved", c.Stream, c.Offset, len(k.bytes[c.Stream]))
		}
		k.bytes[c.Stream] = append(k.bytes[c.Stream], c.Data...)
	}
}

func (k *kept) ReadOrder(_ context.Context, id string, position int64, limit int) ([]command.Sizes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id != "c1" {
		return nil, fmt.Errorf("asked for %q", id)
	}
	k.orderReads++
	points := k.order[max(0, command.Before(k.order, position)):]
	return slices.Clone(points[:min(len(points), limit)]), nil
}

func (k *kept) ReadOutput(_ context.Context, id string, s command.Stream, offset int64, limit int) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id != "c1" {
		return nil, fmt.Errorf("asked for %q", id)
	}
	k.reads++
	all := k.bytes[s]
	return all[offset:min(len(all), int(offset)+limit)], nil
}

// ends gives what is saved once chunks are.
func ends(chunks []command.Chunk, saved command.Sizes) command.Sizes {
	for _, c := range chunks {
		saved[c.Stream] = c.End()
	}
	return saved
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Both streams are written in pieces of all sizes, saved at any time, and read
// by watchers at any pace: each gets exactly what was written.
func TestEveryReaderGetsEveryByte(t *testing.T) {
	const size = 5 << 20
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	want := [2][]byte{noise(size), noise(size / 3)}

	var writers, others sync.WaitGroup
	for _, s := range command.Streams {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(s)))
			for rest := want[s]; len(rest) > 0; {
				n := min(len(rest), 1<<r.IntN(20))
				piece := bytes.Clone(rest[:n])
				if _, err := log.Append(s, piece); err != nil {
					t.Error(err)
					return
				}
				clear(piece) // Append has its own copy
				rest = rest[n:]
			}
		})
	}
	others.Go(func() { // the owner
		for {
			rung := bell.Rung()
			_, sealed := log.Sizes()
			if len(store.store(t, log, 1<<20)) == 0 {
				if sealed {
					return
				}
				<-rung
			}
		}
	})
	for reader := range 6 {
		others.Go(func() {
			s := command.Streams[reader%2]
			r := rand.New(rand.NewPCG(3, uint64(reader)))
			var got []byte
			for {
				rung := bell.Rung()
				sizes, sealed := log.Sizes()
				data, err := log.Read(t.Context(), s, int64(len(got)), 1+r.IntN(300_000))
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, data...)
				if len(data) == 0 {
					if sealed && sizes[s] == int64(len(got)) {
						break
					}
					<-rung
				}
			}
			if !bytes.Equal(got, want[s]) {
				t.Errorf("reader %d got other bytes of %s", reader, s)
			}
		})
	}
	writers.Wait()
	log.Seal()
	others.Wait()
	if log.UnsavedBytes() != 0 || log.SavedSizes() != (command.Sizes{size, size / 3}) {
		t.Errorf("unsaved %d, saved %v", log.UnsavedBytes(), log.SavedSizes())
	}
}

// When the store does not keep up, Append waits, and goes on when it has.
func TestAppendWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bell output.Bell
		log := output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
		if _, err := log.Append(command.Stdout, make([]byte, output.MaxUnsaved)); err != nil {
			t.Fatal(err)
		}
		returned := make(chan error, 1)
		go func() {
			_, err := log.Append(command.Stderr, []byte("x"))
			returned <- err
		}()
		synctest.Wait()
		select {
		case <-returned:
			t.Fatal("Append did not wait although the store is behind")
		default:
		}
		chunks, _ := log.Unsaved(1)
		log.SavedTo(ends(chunks, log.SavedSizes()))
		if err := <-returned; err != nil {
			t.Fatal(err)
		}
	})
}

// The logs share a budget: one may not take what the other has taken, but has a
// little of its own.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bell output.Bell
		budget := output.NewBudget(1 << 20)
		greedy := output.NewLog("c1", &kept{}, budget, &bell)
		other := output.NewLog("c1", &kept{}, budget, &bell)
		greedy.Append(command.Stdout, make([]byte, 1<<20))
		other.Append(command.Stdout, make([]byte, 256<<10))
		returned := make(chan error, 1)
		go func() {
			_, err := other.Append(command.Stdout, []byte("x"))
			returned <- err
		}()
		synctest.Wait()
		select {
		case <-returned:
			t.Fatal("Append did not wait although the budget is used up")
		default:
		}
		other.SavedTo(command.Sizes{256 << 10})
		if err := <-returned; err != nil {
			t.Fatal(err)
		}
		greedy.Release()
		other.Append(command.Stdout, make([]byte, 512<<10))
		if _, err := other.Append(command.Stdout, []byte("x")); err != nil { // would wait for ever
			t.Fatal(err)
		}
	})
}

// Close ends an Append that waits, and every later one; what there is can still
// be read and saved.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bell output.Bell
		log := output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
		log.Append(command.Stdout, make([]byte, output.MaxUnsaved))
		returned := make(chan error, 1)
		go func() {
			_, err := log.Append(command.Stdout, []byte("x"))
			returned <- err
		}()
		synctest.Wait()
		log.Close()
		if err := <-returned; !errors.Is(err, output.ErrClosed) {
			t.Errorf("waiting Append: %v", err)
		}
		if _, err := log.Append(command.Stdout, []byte("x")); !errors.Is(err, output.ErrClosed) {
			t.Errorf("later Append: %v", err)
		}
		if data, err := log.Read(t.Context(), command.Stdout, 0, 10); len(data) != 10 || err != nil {
			t.Errorf("Read gave %d bytes, %v", len(data), err)
		}
		if n := log.UnsavedBytes(); n != output.MaxUnsaved {
			t.Errorf("%d bytes unsaved", n)
		}
	})
}

// Memory holds what is unsaved and a window, whatever was written before.
func TestSavedOutputLeavesMemory(t *testing.T) {
	var bell output.Bell
	store := &kept{}
	log := output.NewLog("c1", store, output.NewBudget(1<<30), &bell)
	piece := noise(64 << 10)
	for range 200 {
		log.Append(command.Stdout, piece)
		store.store(t, log, 1<<30)
	}
	end := int64(200 * len(piece))
	if data, err := log.Read(t.Context(), command.Stdout, end-output.Window, 1); err != nil || len(data) != 1 || store.reads != 0 {
		t.Errorf("the window was read with %d reads of the store: %d bytes, %v", store.reads, len(data), err)
	}
	if data, err := log.Read(t.Context(), command.Stdout, 0, 1); err != nil || len(data) != 1 || store.reads != 1 {
		t.Errorf("the first byte was read with %d reads of the store: %d bytes, %v", store.reads, len(data), err)
	}
}

// A log that goes on where the store ends: its offsets go on, and what came before
// is read from the store.
func TestResumeLog(t *testing.T) {
	var bell output.Bell
	store := &kept{bytes: [2][]byte{[]byte("hello "), nil}}
	log := output.ResumeLog("c1", store, output.NewBudget(1<<30), &bell, command.Sizes{6, 0})
	read := func(offset int64, limit int) string {
		data, err := log.Read(t.Context(), command.Stdout, offset, limit)
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
	if got := read(1, 100); got != "ello " || log.UnsavedBytes() != 0 {
		t.Errorf("before anything new: %q, %d unsaved", got, log.UnsavedBytes())
	}
	log.Append(command.Stdout, []byte("world"))
	if chunks, _ := log.Unsaved(1 << 20); len(chunks) != 1 || chunks[0].Offset != 6 || string(chunks[0].Data) != "world" {
		t.Errorf("unsaved: %+v", chunks)
	}
	if got := read(2, 100) + "|" + read(6, 100) + "|" + read(11, 1); got != "llo |world|" {
		t.Errorf("read %q", got)
	}
	if sizes, _ := log.Sizes(); sizes != (command.Sizes{11, 0}) {
		t.Errorf("sizes %v", sizes)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 32 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var bell output.Bell
			log := output.NewLog("c1", &kept{}, output.NewBudget(1<<30), &bell)
			piece := noise(size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if n, _ := log.Append(command.Stdout, piece); n >= 1<<20 {
					chunks, _ := log.Unsaved(1 << 30)
					log.SavedTo(ends(chunks, log.SavedSizes()))
				}
			}
		})
	}
}
