// Package bulk keeps output that is too much for a database: in files, one for
// each stream of a command that has such output; and recordings of sessions, a file
// for each, in a directory of their own. What is said of a command is true of a
// session, whose recording is its only stream.
//
//	database:  rows for short output ─┐          ┌─ extents: offset, length, checksums
//	stream:    [ short ][ bulk ........ ][ short ][ bulk .... ]
//	file:      (  hole )[ bytes ........ ](  hole )[ bytes ... ]
//
// A byte lies in the file at its offset in the stream, so that nothing has to
// say where; what the database holds is a hole, which takes no space. A file
// knows nothing of itself: only an Extent, which the database keeps, says what in
// it is output. Whatever else is there (of a write that was never recorded, or
// nothing at all, because somebody removed the file) is not believed: every read
// is checked against the checksums.
//
// The order that makes this safe is the caller's:
//
//   - Write returns when the bytes are on the disk, name included. Only then is
//     the extent recorded.
//   - Nothing recorded is ever written again. What is written for one command is
//     written by the one that Holds it, behind all that is recorded.
//   - Free and Remove come after the commit that makes the bytes history. A crash
//     between leaves bytes that no record names; Names finds their files.
//
// Writing goes around the page cache where the system can do that (O_DIRECT):
// bytes that nobody may ever ask for again would push out what is in use, and
// filling the cache takes several times the processor time of all the rest.
// Readers do go through the cache; the kernel keeps the two in step, and the
// checksums would tell.
//
// Start with Write and Read.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/telexec/telexec/internal/command"
)

// ErrDamaged is in the error of a read that did not find what was written.
var ErrDamaged = errors.New("bulk: the file does not hold what was written")

// writers is how many files are written at a time. It bounds the descriptors and
// the memory that writing takes; more would only queue for the disk.
const writers = 8

// Dir is the directory of the files. Its methods may be called concurrently.
type Dir struct {
	path  string
	ends  []string      // of the names of its files, by stream
	slots chan struct{} // capacity writers: one for each Write under way
	plain atomic.Bool   // the file system writes through its cache only

	mu   sync.Mutex // guards held
	held map[string]*hold
}

// hold is a command that somebody holds or waits for.
type hold struct {
	turn    chan struct{} // capacity 1: full while it is held
	callers int           // Dir.mu guards it
}

// Open gives the directory at path. ends are how the names of its files end, by
// stream; without any, the streams' own names. The first Write makes it; one that is there
// is made private and its names durable, which a process that ended in the
// middle of a Write may not have come to.
func Open(path string, ends ...string) (*Dir, error) {
	if len(ends) == 0 {
		for _, s := range command.Streams {
			ends = append(ends, s.String())
		}
	}
	d := &Dir{path: path, ends: ends, slots: make(chan struct{}, writers), held: make(map[string]*hold)}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, err
	}
	return d, syncDir(path)
}

// Hold makes the caller the one who writes, frees or removes what belongs to a
// command, until release. It waits for its turn, or fails with the error of ctx.
// Reading needs no hold.
func (d *Dir) Hold(ctx context.Context, id string) (release func(), err error) {
	d.mu.Lock()
	h := d.held[id]
	if h == nil {
		h = &hold{turn: make(chan struct{}, 1)}
		d.held[id] = h
	}
	h.callers++
	d.mu.Unlock()
	leave := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if h.callers--; h.callers == 0 {
			delete(d.held, id)
		}
	}
	select {
	case h.turn <- struct{}{}:
		return func() { <-h.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// Named reports whether a command with this id can have files: an id becomes a
// name, so it may not be a path.
func Named(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z':
		default:
			return false
		}
	}
	return true
}

func (d *Dir) name(id string, s command.Stream) string {
	return filepath.Join(d.path, id+"."+d.ends[s])
}

// Read fills p with the bytes of e from an offset on; all of them must be in e. It
// fails with ErrDamaged where the file does not hold what was written.
func (d *Dir) Read(id string, s command.Stream, e Extent, offset int64, p []byte) error {
	if !e.valid() || offset < e.Offset || offset+int64(len(p)) > e.End() {
		return fmt.Errorf("%w: %d bytes at %d of an extent of %d at %d", ErrDamaged, len(p), offset, e.Length, e.Offset)
	}
	f, err := os.OpenFile(d.name(id, s), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var spare *[BlockSize]byte // for blocks of which p wants a part
	for len(p) > 0 {
		from, to := e.block(offset)
		n := min(to-offset, int64(len(p)))
		block := p[:n]
		if n < to-from {
			if spare == nil {
				spare = spares.Get().(*[BlockSize]byte)
				defer spares.Put(spare)
			}
			block = spare[:to-from]
		}
		if _, err := f.ReadAt(block, from); errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it ends before %d", ErrDamaged, to)
		} else if err != nil {
			return err
		}
		if !e.matches(from, block) {
			return fmt.Errorf("%w: wrong checksum at %d", ErrDamaged, from)
		}
		if n < to-from {
			copy(p[:n], block[offset-from:])
		}
		offset, p = offset+n, p[n:]
	}
	return nil
}

var spares = sync.Pool{New: func() any { return new([BlockSize]byte) }}

// Free gives back the space of what lies before an offset, up to a block that is
// needed whole to check the byte there. Where the file system cannot do that, the
// space stays taken until Remove. The caller holds id.
func (d *Dir) Free(id string, s command.Stream, before int64) error {
	if before -= before % BlockSize; before == 0 {
		return nil
	}
	return d.change(id, s, func(f *os.File) error {
		if err := punch(f, before); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return &fs.PathError{Op: "punch", Path: f.Name(), Err: err}
		}
		return nil
	})
}

// Cut removes what lies at an offset and behind: bytes that were never recorded.
// The caller holds id.
func (d *Dir) Cut(id string, s command.Stream, end int64) error {
	return d.change(id, s, func(f *os.File) error {
		if info, err := f.Stat(); err != nil || info.Size() <= end {
			return err
		}
		return f.Truncate(end)
	})
}

// change does something to a file if there is one.
func (d *Dir) change(id string, s command.Stream, do func(f *os.File) error) error {
	f, err := os.OpenFile(d.name(id, s), os.O_WRONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// Remove removes the files of a command, of which there may be none. The caller
// holds id. A loss of power may bring them back.
func (d *Dir) Remove(id string) error {
	if !Named(id) {
		return nil
	}
	var errs []error
	for s := range d.ends {
		if err := os.Remove(d.name(id, command.Stream(s))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Names gives the ids of the commands that have files, some perhaps twice, and
// last the error that ended the reading, if any. Files of other names are not
// told.
func (d *Dir) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir, err := os.Open(d.path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield("", err)
			return
		}
		defer dir.Close()
		for {
			names, err := dir.Readdirnames(256)
			for _, name := range names {
				id, end, _ := strings.Cut(name, ".")
				if slices.Contains(d.ends, end) && Named(id) && !yield(id, nil) {
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield("", err)
				}
				return
			}
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
