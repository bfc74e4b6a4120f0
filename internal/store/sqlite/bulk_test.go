package sqlite

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// noise is n bytes that repeat nowhere.
func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(r.Uint32())
	}
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// names lists the output files of a store.
func names(t *testing.T, s *Store) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.path + "-output")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// file is where the stdout of a command lies that is not in rows.
func file(s *Store, id string) string { return filepath.Join(s.path+"-output", id+".stdout") }

// blocks is how many bytes of the disk a file takes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// reads requires that stdout from an offset on is what it was written.
func reads(t *testing.T, s *Store, id string, offset int64, want []byte) {
	t.Helper()
	got, err := s.ReadOutput(t.Context(), id, command.Stdout, offset, len(want)+1)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("at %d: %d bytes, %v; want %d", offset, len(got), err, len(want))
	}
}

func retain(t *testing.T, s *Store, r command.Retention) {
	t.Helper()
	r.Now = time.Now().Add(time.Hour)
	if done, err := s.Retain(t.Context(), r); err != nil || done.Trimmed+done.Deleted == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
}

// A command of little output has no file.
func TestLittleOutputHasNoFile(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	for range 20 {
		c = appended(t, s, c, make([]byte, bulkSize-1))
	}
	if _, err := os.Stat(s.path + "-output"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a directory: %v", err)
	}
	if c = appended(t, s, c, make([]byte, bulkSize)); !slices.Equal(names(t, s), []string{c.ID + ".stdout"}) {
		t.Errorf("the files are %q", names(t, s))
	}
	var most int
	if err := s.read.QueryRow("SELECT max(length(data)) FROM output_chunk WHERE filed IS NOT NULL").Scan(&most); err != nil || most > 100 {
		t.Errorf("the row of an extent has %d bytes, %v", most, err)
	}
}

// TestBulkModel writes little and much, trims, deletes, breaks off and restarts at
// random, and compares all output with a slice of bytes.
func TestBulkModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s := open(t, dir)
	defer func() { s.Close() }()
	type entry struct {
		command.Command
		whole [2][]byte
	}
	var all []*entry
	for range 120 {
		if len(all) == 0 || r.IntN(12) == 0 {
			all = append(all, &entry{Command: create(t, s)})
		}
		e := all[r.IntN(len(all))]
		switch n := r.IntN(10); {
		case n < 6:
			ch := command.Change{From: e.State, Fence: e.Fence}
			next, whole := e.Command, e.whole
			for _, stream := range []command.Stream{0, 1, 0} {
				data := noise(r, r.IntN(1<<r.IntN(21)))
				ch.Output = append(ch.Output, command.Chunk{Stream: stream, Offset: int64(len(whole[stream])), Data: data})
				whole[stream] = slices.Concat(whole[stream], data)
				next.Size[stream] = int64(len(whole[stream]))
			}
			next.Version++
			if r.IntN(3) == 0 {
				next.State, next.EndTime = command.Completed, time.Now()
			}
			ch.Command = next
			if r.IntN(4) == 0 { // another owner's, or one behind the end
				if ch.Fence++; r.IntN(2) == 0 {
					ch.Fence--
					for i := range ch.Output {
						ch.Output[i].Offset++
					}
				}
				if err := s.Apply(t.Context(), ch); fault.KindOf(err) != fault.Aborted && e.Size != next.Size {
					t.Fatal(err)
				}
				break
			}
			if err := s.Apply(t.Context(), ch); err != nil {
				t.Fatal(err)
			}
			e.Command, e.whole = next, whole
		case n == 6:
			to := int64(r.IntN(1 << r.IntN(21)))
			if _, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), TrimTo: to}); err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				for i, w := range e.whole {
					if e.Ended() && to > 0 {
						e.Earliest[i] = max(e.Earliest[i], int64(len(w))-to)
					}
				}
			}
		case n == 7:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
		case n == 8 && r.IntN(3) == 0:
			if _, err := s.Retain(t.Context(), command.Retention{Now: time.Now().Add(time.Hour), DeleteAfter: time.Minute}); err != nil {
				t.Fatal(err)
			}
			all = slices.DeleteFunc(all, func(e *entry) bool { return e.Ended() })
		}
		for _, e := range all {
			for i, w := range e.whole {
				stream := command.Streams[i]
				from := e.Earliest[i]
				if len(w) > int(from) {
					from += r.Int64N(int64(len(w)) - from)
				}
				limit := r.IntN(1 << r.IntN(21))
				got, err := s.ReadOutput(t.Context(), e.ID, stream, from, limit)
				if want := w[from:min(len(w), int(from)+limit)]; err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s of %s at %d: %d bytes of %d, %v", stream, e.ID, from, len(got), len(want), err)
				}
			}
		}
	}
	for _, name := range names(t, s) {
		id, _, _ := strings.Cut(name, ".")
		if !slices.ContainsFunc(all, func(e *entry) bool { return e.ID == id }) {
			t.Errorf("%s is left", name)
		}
	}
	check(t, s)
}

// TestOldOwnerWritesNothing has an owner that was superseded bring bulky output for
// offsets at which its successor's is stored.
func TestOldOwnerWritesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := rand.New(rand.NewPCG(1, 2))
	c := create(t, s)
	old := c
	right := noise(r, 3*bulkSize)
	c = appended(t, s, c, right)
	for _, ch := range []command.Change{
		{From: old.State, Fence: old.Fence},
		{From: old.State, Fence: old.Fence - 1},
		{From: command.Running, Fence: old.Fence},
	} {
		ch.Command, ch.Output = old, []command.Chunk{{Data: noise(r, 2*bulkSize)}}
		want(t, s.Apply(t.Context(), ch), fault.Aborted, "another owner")
		reads(t, s, c.ID, 0, right)
	}
	unknown := benchCommand(time.Now())
	want(t, s.Apply(t.Context(), command.Change{From: c.State, Fence: c.Fence, Command: unknown,
		Output: []command.Chunk{{Data: right}}}), fault.NotFound, unknown.ID)
	if got := names(t, s); !slices.Equal(got, []string{c.ID + ".stdout"}) {
		t.Errorf("the files are %q", got)
	}
}

// TestRacingBulk has many bring different output for the same offset at once.
func TestRacingBulk(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	r := rand.New(rand.NewPCG(3, 4))
	var data, won [][]byte
	for range 8 {
		data = append(data, noise(r, bulkSize+r.IntN(bulkSize)))
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, mine := range data {
		wait.Go(func() {
			next := c
			next.Version++
			next.Size[0] = int64(len(mine))
			err := s.Apply(t.Context(), command.Change{From: c.State, Fence: c.Fence, Command: next, Output: []command.Chunk{{Data: mine}}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, mine)
			} else if fault.KindOf(err) != fault.Aborted {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	reads(t, s, c.ID, 0, won[0])
}

// TestTrimmingGivesBack looks at the disk after retention has cut output, and has
// deleted the command.
func TestTrimmingGivesBack(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	data := noise(rand.New(rand.NewPCG(5, 6)), 4<<20)
	for at := 0; at < len(data); at += 1 << 20 {
		c = appended(t, s, c, data[at:at+1<<20])
	}
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	before := blocks(t, file(s, c.ID))
	const kept = 700_001
	retain(t, s, command.Retention{TrimTo: kept})
	if after := blocks(t, file(s, c.ID)); after > kept+2<<17 || after >= before {
		t.Errorf("the file takes %d bytes, %d before", after, before)
	}
	reads(t, s, c.ID, int64(len(data)-kept), data[len(data)-kept:])
	_, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, int64(len(data)-kept-1), 1)
	want(t, err, fault.OutOfRange, "retention has removed")
	retain(t, s, command.Retention{TrimTo: 3})
	reads(t, s, c.ID, int64(len(data)-3), data[len(data)-3:])
	retain(t, s, command.Retention{DeleteAfter: time.Minute})
	if got := names(t, s); len(got) > 0 {
		t.Errorf("%q are left", got)
	}
}

// TestLeftOvers plants what a killed process may leave, and files of strangers.
func TestLeftOvers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	c := create(t, s)
	data := noise(rand.New(rand.NewPCG(7, 8)), 2<<20)
	c = appended(t, s, c, data)
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	// Trimmed, but killed before the space was given back.
	full, err := os.ReadFile(file(s, c.ID))
	if err != nil {
		t.Fatal(err)
	}
	retain(t, s, command.Retention{TrimTo: 100_000})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	unknown := benchCommand(time.Now()).ID
	// A write that was never recorded comes behind the end.
	if err := errors.Join(os.WriteFile(file(s, c.ID), append(full, data...), 0o600),
		os.WriteFile(file(s, unknown), data, 0o600),
		os.WriteFile(filepath.Join(s.path+"-output", "notes.txt"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	s.sweep(t.Context()) // Open does it too, at its leisure
	if got := names(t, s); !slices.Equal(got, []string{c.ID + ".stdout", "notes.txt"}) {
		t.Errorf("the files are %q", got)
	}
	if info, err := os.Stat(file(s, c.ID)); err != nil || info.Size() != c.Size[0] {
		t.Errorf("the file has %d bytes, %v; want %d", info.Size(), err, c.Size[0])
	}
	if n := blocks(t, file(s, c.ID)); n > 100_000+2<<16 {
		t.Errorf("the file takes %d bytes", n)
	}
	reads(t, s, c.ID, c.Size[0]-100_000, data[len(data)-100_000:])
}

// TestOpenSweeps waits until Open has seen to what was left.
func TestOpenSweeps(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	c := appended(t, s, create(t, s), make([]byte, bulkSize))
	s.Close()
	left := file(s, benchCommand(time.Now()).ID)
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	for {
		if _, err := os.Stat(left); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("it is still there")
		}
		reads(t, s, c.ID, 0, make([]byte, bulkSize)) // something to do meanwhile
	}
}

// TestFilesGone has output files removed and changed while the store is open: reads
// say so, and everything else goes on.
func TestFilesGone(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	r := rand.New(rand.NewPCG(9, 10))
	c := create(t, s)
	short, long, more := noise(r, 1000), noise(r, 2*bulkSize), noise(r, bulkSize)
	c = appended(t, s, c, short)
	c = appended(t, s, c, long)
	at := c.Size[0]
	for _, harm := range []func() error{
		func() error { return os.Truncate(file(s, c.ID), at-1) },
		func() error { return os.RemoveAll(s.path + "-output") },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		_, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, 0, 1<<20)
		want(t, err, fault.DataLoss, c.ID)
		if got, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, 0, len(short)); err != nil || !bytes.Equal(got, short) {
			t.Fatalf("what is in the database: %d bytes, %v", len(got), err)
		}
		c = appended(t, s, c, more)
		reads(t, s, c.ID, c.Size[0]-int64(len(more)), more)
	}
	if err := s.Apply(t.Context(), end(c)); err != nil {
		t.Fatal(err)
	}
	retain(t, s, command.Retention{TrimTo: 10})
	retain(t, s, command.Retention{DeleteAfter: time.Minute})
}

// TestReadersBesideRetention reads what retention cuts and deletes at the same
// time: the bytes, or that they are gone, and never that anything is damaged.
func TestReadersBesideRetention(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	data := noise(rand.New(rand.NewPCG(11, 12)), 1<<20)
	for range 5 {
		c := appended(t, s, create(t, s), data)
		if err := s.Apply(t.Context(), end(c)); err != nil {
			t.Fatal(err)
		}
		var wait sync.WaitGroup
		begun := make(chan struct{}, 3)
		for seed := range cap(begun) {
			wait.Go(func() {
				r := rand.New(rand.NewPCG(uint64(seed), 0))
				for {
					from := r.IntN(len(data))
					got, err := s.ReadOutput(t.Context(), c.ID, command.Stdout, int64(from), 200_000)
					select {
					case begun <- struct{}{}:
					default:
					}
					switch fault.KindOf(err) {
					case fault.NotFound:
						return
					case fault.OutOfRange:
					default:
						if err != nil || !bytes.Equal(got, data[from:min(len(data), from+200_000)]) {
							t.Errorf("at %d: %d bytes, %v", from, len(got), err)
							return
						}
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		for to := int64(900_000); to > 0; to -= 100_000 {
			retain(t, s, command.Retention{TrimTo: to})
		}
		retain(t, s, command.Retention{DeleteAfter: time.Minute})
		wait.Wait()
	}
}

// TestFilesCannotBeWritten has bulky output fail and go on when it can be written
// again.
func TestFilesCannotBeWritten(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	c := create(t, s)
	data := make([]byte, bulkSize)
	change := command.Change{From: c.State, Fence: c.Fence, Command: c, Output: []command.Chunk{{Data: data}}}
	change.Command.Size[0] = int64(len(data))
	if err := os.WriteFile(s.path+"-output", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, s.Apply(t.Context(), change), fault.Unavailable, "cannot be written")
	got, err := s.Get(t.Context(), c.ID)
	if err != nil || got.Size[0] != 0 {
		t.Fatalf("%d bytes are stored, %v", got.Size[0], err)
	}
	if err := os.Remove(s.path + "-output"); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	reads(t, s, c.ID, 0, data)
}
