package bulk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/telexec/telexec/internal/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

func open(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// chunksOf cuts data into chunks of random sizes, with chunks of the other stream
// and empty ones between.
func chunksOf(r *mathrand.Rand, s command.Stream, offset int64, data []byte) (chunks []command.Chunk) {
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(1<<r.IntN(21)))
		chunks = append(chunks, command.Chunk{Stream: s, Offset: offset, Data: data[:n]},
			command.Chunk{Stream: 1 - s, Offset: offset, Data: []byte("of the other stream")}, command.Chunk{Stream: s})
		offset, data = offset+int64(n), data[n:]
	}
	return chunks
}

func write(t testing.TB, d *Dir, s command.Stream, offset int64, data []byte) Extent {
	t.Helper()
	e, err := d.Write(id, s, []command.Chunk{{Stream: s, Offset: offset, Data: data}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// both runs a test with writes around the page cache, where the system has that,
// and through it.
func both(t *testing.T, test func(t *testing.T, plain bool)) {
	t.Run("direct", func(t *testing.T) { test(t, false) })
	t.Run("plain", func(t *testing.T) { test(t, true) })
}

// TestModel writes, reads, frees and cuts at random and compares with a slice of
// bytes. Between the extents are holes, and bytes that were never recorded.
func TestModel(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		r := mathrand.New(mathrand.NewPCG(seed, 0))
		path := filepath.Join(t.TempDir(), "output")
		d := open(t, path)
		d.plain.Store(plain)
		var whole [2][]byte
		var extents [2][]Extent
		var earliest [2]int64
		for range 150 {
			s := command.Streams[r.IntN(2)]
			end := int64(len(whole[s]))
			switch r.IntN(8) {
			case 0, 1: // recorded
				data := randomBytes(1 + r.IntN(1<<r.IntN(22)))
				e, err := d.Write(id, s, chunksOf(r, s, end, data))
				if err != nil {
					t.Fatal(err)
				}
				if e.Offset != end || e.Length != int64(len(data)) {
					t.Fatalf("an extent of %d at %d, want %d at %d", e.Length, e.Offset, len(data), end)
				}
				whole[s] = append(whole[s], data...)
				extents[s] = append(extents[s], e)
			case 2: // never recorded, and half of the time cut
				write(t, d, s, end, randomBytes(1+r.IntN(1<<r.IntN(20))))
				if r.IntN(2) == 0 {
					if err := d.Cut(id, s, end); err != nil {
						t.Fatal(err)
					}
				}
			case 3: // stored elsewhere
				whole[s] = append(whole[s], make([]byte, r.IntN(1<<r.IntN(18)))...)
			case 4:
				if earliest[s] += int64(r.IntN(1 << r.IntN(20))); earliest[s] > end {
					earliest[s] = end
				}
				if err := d.Free(id, s, earliest[s]); err != nil {
					t.Fatal(err)
				}
			case 5:
				d = open(t, path)
				d.plain.Store(plain)
			}
			for _, e := range extents[s] {
				if e.End() <= earliest[s] {
					continue
				}
				from := max(e.Offset, earliest[s])
				from += r.Int64N(e.End() - from)
				p := make([]byte, 1+r.Int64N(e.End()-from))
				if err := d.Read(id, s, e, from, p); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p, whole[s][from:from+int64(len(p))]) {
					t.Fatalf("wrong bytes at %d of %s", from, s)
				}
			}
		}
	})
}

// TestFilesArePrivate looks at modes, and at what names lead to.
func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	d := open(t, path)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a directory before the first file: %v", err)
	}
	old := syscall.Umask(0)
	e := write(t, d, command.Stdout, 0, []byte("data"))
	syscall.Umask(old)
	for name, mode := range map[string]fs.FileMode{"": 0o700 | fs.ModeDir, id + ".stdout": 0o600} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil || info.Mode() != mode {
			t.Errorf("%q: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o700|fs.ModeDir {
		t.Errorf("opened, its mode is %v, %v", info.Mode(), err)
	}

	// A link in the place of a file is followed by nobody.
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(filepath.Join(path, id+".stdout"), elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(path, id+".stdout")); err != nil {
		t.Fatal(err)
	}
	if err := d.Read(id, command.Stdout, e, 0, make([]byte, 4)); !errors.Is(err, ErrDamaged) {
		t.Errorf("read through a link: %v", err)
	}
	if _, err := d.Write(id, command.Stdout, []command.Chunk{{Offset: 4, Data: []byte("more")}}); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("written through a link: %v", err)
	}
	for _, err := range []error{d.Cut(id, command.Stdout, 0), d.Free(id, command.Stdout, BlockSize)} {
		if !errors.Is(err, syscall.ELOOP) {
			t.Errorf("changed through a link: %v", err)
		}
	}
	if err := d.Remove(id); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(elsewhere); err != nil || string(data) != "data" {
		t.Errorf("elsewhere is %q, %v", data, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, make := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, nil, 0o600) },
		func(path string) error { return os.Symlink(t.TempDir(), path) },
	} {
		path := filepath.Join(t.TempDir(), "output")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%v", err)
		}
	}
	if _, err := Open("/dev/null/output"); err == nil {
		t.Error("opened in a file")
	}
}

// TestDamage does to a file what may happen to one: a read gives what was written
// or says that it does not.
func TestDamage(t *testing.T) {
	const at = 70_000
	data := randomBytes(5 * BlockSize)
	for name, harm := range map[string]func(file string) error{
		"removed":   os.Remove,
		"empty":     func(file string) error { return os.Truncate(file, 0) },
		"cut":       func(file string) error { return os.Truncate(file, at+int64(len(data))-1) },
		"a hole":    func(file string) error { return errors.Join(os.Truncate(file, 0), os.Truncate(file, 1<<20)) },
		"the other": func(file string) error { return os.WriteFile(file, randomBytes(1<<20), 0o600) },
		"one bit": func(file string) error {
			b, err := os.ReadFile(file)
			if err == nil {
				b[at+3*BlockSize] ^= 4
				err = os.WriteFile(file, b, 0o600)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, filepath.Join(t.TempDir(), "output"))
			e := write(t, d, command.Stderr, at, data)
			if err := harm(d.name(id, command.Stderr)); err != nil {
				t.Fatal(err)
			}
			whole := make([]byte, len(data))
			if err := d.Read(id, command.Stderr, e, at, whole); !errors.Is(err, ErrDamaged) {
				t.Fatalf("all of it: %v", err)
			}
			for from := 0; from < len(data); from += 10_000 {
				p := make([]byte, min(10_000, len(data)-from))
				err := d.Read(id, command.Stderr, e, at+int64(from), p)
				if err == nil && !bytes.Equal(p, data[from:from+len(p)]) || err != nil && !errors.Is(err, ErrDamaged) {
					t.Fatalf("at %d: wrong bytes, or %v", from, err)
				}
			}
			// Output goes on, also where there is no file any more.
			more := write(t, d, command.Stderr, e.End(), data)
			if err := d.Read(id, command.Stderr, more, more.Offset, whole); err != nil || !bytes.Equal(whole, data) {
				t.Fatalf("what came later: %v", err)
			}
		})
	}
}

// FuzzExtent reads extents as a damaged database might give them: no panic, and
// what is read is what was written.
func FuzzExtent(f *testing.F) {
	const size = 3*BlockSize + 5
	data := randomBytes(size)
	d := open(f, filepath.Join(f.TempDir(), "output"))
	e := write(f, d, command.Stdout, 0, data)
	f.Add(e.Offset, e.Length, e.Sums, int64(10), 100)
	f.Add(int64(-1), int64(math.MaxInt64), e.Sums, int64(0), 1)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), []byte{}, int64(math.MaxInt64), 1<<16)
	f.Fuzz(func(t *testing.T, offset, length int64, sums []byte, from int64, n int) {
		p := make([]byte, min(max(n, 0), 1<<20))
		err := d.Read(id, command.Stdout, Extent{Offset: offset, Length: length, Sums: sums}, from, p)
		if err == nil && len(p) > 0 && !bytes.Equal(p, data[from:from+int64(len(p))]) {
			t.Fatal("wrong bytes")
		}
	})
}

// TestFree looks at what the disk holds.
func TestFree(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		d := open(t, filepath.Join(t.TempDir(), "output"))
		d.plain.Store(plain)
		data := randomBytes(4 << 20)
		e := write(t, d, command.Stdout, 0, data)
		held := func() int64 {
			info, err := os.Stat(d.name(id, command.Stdout))
			if err != nil {
				t.Fatal(err)
			}
			return info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		before := held()
		const from = 3<<20 + 12345
		if err := d.Free(id, command.Stdout, from); err != nil {
			t.Fatal(err)
		}
		if after := held(); after > before-3<<20 {
			t.Errorf("%d bytes are held, %d before", after, before)
		}
		p := make([]byte, len(data)-from)
		if err := d.Read(id, command.Stdout, e, from, p); err != nil || !bytes.Equal(p, data[from:]) {
			t.Errorf("what is left: %v", err)
		}
		if err := d.Read(id, command.Stdout, e, 0, p); !errors.Is(err, ErrDamaged) {
			t.Errorf("what is freed: %v", err)
		}
		// Nothing there, nothing to do.
		if err := errors.Join(d.Free(id, command.Stderr, 1<<20), d.Cut(id, command.Stderr, 0), d.Free(id, command.Stdout, 5)); err != nil {
			t.Error(err)
		}
	})
}

// TestDiskFull fills a file system: the error says so, and cutting gives back what
// the failed write took.
func TestDiskFull(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		path := t.TempDir()
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=2m"); err != nil {
			t.Skipf("mounting a small file system needs root: %v", err)
		}
		defer syscall.Unmount(path, 0)
		d := open(t, filepath.Join(path, "output"))
		d.plain.Store(plain)
		data := randomBytes(1<<20 + 77)
		e := write(t, d, command.Stdout, 5, data)
		for range 3 {
			_, err := d.Write(id, command.Stdout, []command.Chunk{{Offset: e.End(), Data: data}})
			if _, told := errors.AsType[*fs.PathError](err); !told || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("error %v", err)
			}
			if err := d.Cut(id, command.Stdout, e.End()); err != nil {
				t.Fatal(err)
			}
			write(t, d, command.Stderr, 0, data[:500_000])
			if err := d.Cut(id, command.Stderr, 0); err != nil {
				t.Fatal(err)
			}
		}
		p := make([]byte, len(data))
		if err := d.Read(id, command.Stdout, e, 5, p); err != nil || !bytes.Equal(p, data) {
			t.Fatalf("what was there: %v", err)
		}
	})
}

// TestNotAligned has writes around the cache refused, as file systems may.
func TestNotAligned(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "output"))
	write(t, d, command.Stdout, 0, []byte("x"))
	name := d.name(id, command.Stdout)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refusing, err := openDirect(name)
	if err != nil {
		t.Skip(err)
	}
	// Memory at an odd address, which no disk can take.
	odd := (*stroke)(make([]byte, strokeSize+1)[1:])
	p := pen{file: f, direct: refusing, stroke: odd, at: alignment}
	p.fill = copy(odd[:], randomBytes(2*alignment+10))
	want := bytes.Clone(odd[:p.fill])
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, alignment); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("what was written is not there: %v", err)
	}
	p.stroke = nil // it must not come back to others
	p.close()
}

func TestHold(t *testing.T) {
	d := open(t, t.TempDir())
	var n, most int
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			release, err := d.Hold(t.Context(), id)
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			n++ // the race detector would tell, too
			most = max(most, n)
			n--
		})
	}
	wait.Wait()
	if most != 1 {
		t.Errorf("held by %d at once", most)
	}
	release, err := d.Hold(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Hold(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Hold(ctx, id); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	other()
	release()
	if len(d.held) != 0 {
		t.Errorf("%d are remembered", len(d.held))
	}
}

func TestNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	d := open(t, path)
	for _, err := range d.Names() {
		t.Fatalf("names, %v, in no directory", err)
	}
	write(t, d, command.Stdout, 0, []byte("x"))
	write(t, d, command.Stderr, 0, []byte("x"))
	for _, name := range []string{"README", "a.b", ".stdout", "not-an-id.stdout", "other.stderr"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := func() (ids []string) {
		for id, err := range d.Names() {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		slices.Sort(ids)
		return ids
	}
	if got := list(); !slices.Equal(got, []string{id, id, "other"}) {
		t.Errorf("%q", got)
	}
	for range d.Names() {
		break
	}
	if err := d.Remove(id); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("../../etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if got := list(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("%q", got)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range d.Names() {
		if err == nil {
			t.Error("a file has names")
		}
	}
	// A directory in the place of a file is not removed.
	d = open(t, t.TempDir())
	if err := os.MkdirAll(filepath.Join(d.name(id, command.Stdout), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(id); err == nil {
		t.Error("no error")
	}
}

func TestNamed(t *testing.T) {
	for id, want := range map[string]bool{
		id: true, "a": true, "": false, "a/b": false, "..": false, "a.b": false, "a\x00": false, "ä": false,
		fmt.Sprintf("%065d", 1): false,
	} {
		if Named(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}

// TestDirectoryRemoved has somebody tidy up while the store is open.
func TestDirectoryRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	d := open(t, path)
	e := write(t, d, command.Stdout, 0, []byte("data"))
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Read(id, command.Stdout, e, 0, make([]byte, 4)); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	e = write(t, d, command.Stdout, 4, []byte("more"))
	p := make([]byte, 4)
	if err := d.Read(id, command.Stdout, e, 4, p); err != nil || string(p) != "more" {
		t.Errorf("%q, %v", p, err)
	}
}

// TestDescriptors does everything many times at once: nothing stays open.
func TestDescriptors(t *testing.T) {
	descriptors := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(names)
	}
	d := open(t, filepath.Join(t.TempDir(), "output"))
	before := descriptors()
	var wait sync.WaitGroup
	for i := range 100 {
		wait.Go(func() {
			id := fmt.Sprint("command", i)
			data := randomBytes(100_000)
			e, err := d.Write(id, command.Stdout, []command.Chunk{{Data: data}})
			p := make([]byte, 50_000)
			if err := errors.Join(err, d.Read(id, command.Stdout, e, 10, p), d.Cut(id, command.Stdout, 10)); err != nil {
				t.Error(err)
			}
			if err := d.Read(id, command.Stdout, e, 10, p); !errors.Is(err, ErrDamaged) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// FuzzExtended adds pieces one after the other: the extent is that of all of them at
// once, with the same sums, and reads back.
func FuzzExtended(f *testing.F) {
	f.Add(int64(0), []byte("abc"), uint32(1), uint32(2))
	f.Add(int64(BlockSize), bytes.Repeat([]byte{1}, 3), uint32(BlockSize-1), uint32(BlockSize+1))
	f.Add(int64(77), []byte{}, uint32(3*BlockSize), uint32(0))
	f.Fuzz(func(t *testing.T, offset int64, seed []byte, first, second uint32) {
		if offset < 0 || offset > 1<<40 || len(seed) > 1<<10 {
			return
		}
		var data []byte
		e := Extent{Offset: offset}
		for i, n := range []uint32{uint32(len(seed)), first % (3 * BlockSize), second % (3 * BlockSize), 1} {
			piece := bytes.Repeat(append([]byte{byte(i)}, seed...), int(n)/(len(seed)+1)+1)[:n]
			before := slices.Clone(e.Sums)
			next := e.Extended(piece)
			if !slices.Equal(e.Sums, before) {
				t.Fatal("what was given has changed")
			}
			e, data = next, append(data, piece...)
			whole := Extent{Offset: offset}.Extended(data)
			if e.Offset != whole.Offset || e.Length != whole.Length || !slices.Equal(e.Sums, whole.Sums) {
				t.Fatalf("after %d bytes: %+v, want %+v", len(data), e, whole)
			}
			if len(data) > 0 && !e.valid() {
				t.Fatalf("%+v is not valid", e)
			}
		}
		for at := offset; at < e.End(); {
			from, to := e.block(at)
			block := slices.Clone(data[from-offset : to-offset])
			if !e.matches(from, block) {
				t.Fatalf("the block at %d does not match", from)
			}
			block[len(block)-1]++
			if e.matches(from, block) {
				t.Fatalf("another block at %d matches", from)
			}
			at = to
		}
	})
}

// A directory whose files end otherwise knows those alone.
func TestOtherEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recordings")
	d, err := Open(path, "cast")
	if err != nil {
		t.Fatal(err)
	}
	var e Extent
	var whole []byte
	for _, n := range []int{100, BlockSize, 5000, 1, 2 * BlockSize} {
		data := randomBytes(n)
		write(t, d, 0, e.End(), data)
		e, whole = e.Extended(data), append(whole, data...)
		p := make([]byte, len(whole))
		if err := d.Read(id, 0, e, 0, p); err != nil || !bytes.Equal(p, whole) {
			t.Fatalf("after %d bytes: %v", len(whole), err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(path, id+".cast")); err != nil || !bytes.Equal(data, whole) {
		t.Errorf("the file has %d bytes, %v", len(data), err)
	}
	if err := os.WriteFile(filepath.Join(path, id+".stdout"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, err := range d.Names() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if !slices.Equal(names, []string{id}) {
		t.Errorf("names are %q", names)
	}
	if err := d.Remove(id); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 1 || entries[0].Name() != id+".stdout" {
		t.Errorf("left is %v, %v", entries, err)
	}
}
