package bulk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"

	"github.com/telexec/telexec/internal/command"
)

// Write writes those chunks that are of stream s, which follow each other without
// gap, and returns when they will survive a loss of power. The caller holds id,
// which is Named, and nothing recorded lies at or behind the first chunk. After
// an error (of the file system: a *fs.PathError) nothing may be recorded, and
// Cut gives back the space.
func (d *Dir) Write(id string, s command.Stream, chunks []command.Chunk) (Extent, error) {
	d.slots <- struct{}{}
	defer func() { <-d.slots }()
	f, err := d.forWriting(id, s)
	if err != nil {
		return Extent{}, err
	}
	defer f.Close() // what closing could say, the sync has said
	p := pen{file: f, direct: d.around(f.Name())}
	defer p.close()
	sums := summer{offset: -1}
	for _, c := range chunks {
		if c.Stream != s || len(c.Data) == 0 {
			continue
		}
		if err := p.write(c); err != nil {
			return Extent{}, err
		}
		sums.add(c)
	}
	if err := p.flush(); err != nil {
		return Extent{}, err
	}
	if err := datasync(f); err != nil {
		return Extent{}, &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return sums.extent(), nil
}

// forWriting opens the file and, where it is new, makes its name durable.
func (d *Dir) forWriting(id string, s command.Stream) (*os.File, error) {
	const flags = os.O_WRONLY | syscall.O_NOFOLLOW
	name := d.name(id, s)
	f, err := os.OpenFile(name, flags, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = os.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := syncDir(filepath.Dir(d.path)); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if err := syncDir(d.path); err != nil {
		// The next Write must not take it for one whose name is durable.
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return f, nil
}

// around opens a file for writing around the page cache; nil where that is not to
// be had, which costs time and nothing else.
func (d *Dir) around(name string) *os.File {
	if d.plain.Load() {
		return nil
	}
	f, err := openDirect(name)
	if err != nil {
		d.plain.Store(errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL))
		return nil
	}
	return f
}

const (
	// alignment is what the place in the file, the length and the memory of a write
	// around the cache must be a multiple of: the largest that disks ask for.
	alignment = 4 << 10
	// strokeSize is how much is written at once.
	strokeSize = 1 << 20
)

// pen writes bytes that follow each other: whole multiples of alignment around
// the page cache, what is before the first and behind the last through it. So a
// page is written the one way or the other, but for what was never recorded.
type pen struct {
	file, direct *os.File // of the same file; direct may be nil
	stroke       *stroke  // nil before the first write
	fill         int      // so much of it is to be written
	at           int64    // there
}

func (p *pen) write(c command.Chunk) error {
	if p.direct == nil {
		_, err := p.file.WriteAt(c.Data, c.Offset)
		return err
	}
	if p.stroke == nil {
		p.stroke, p.at = strokes.Get().(*stroke), c.Offset
	}
	for data := c.Data; len(data) > 0; {
		room := strokeSize
		if short := p.at % alignment; short != 0 {
			room = int(alignment - short)
		}
		n := copy(p.stroke[p.fill:room], data)
		p.fill, data = p.fill+n, data[n:]
		if p.fill == room {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes what is in the stroke.
func (p *pen) flush() error {
	whole := p.fill - p.fill%alignment
	if p.at%alignment != 0 {
		whole = 0
	}
	if whole > 0 {
		switch _, err := p.direct.WriteAt(p.stroke[:whole], p.at); {
		// The file system opens files so but does not write them so, or it wrote a
		// part that is no multiple: the cache takes it, or says what is wrong.
		case errors.Is(err, syscall.EINVAL):
			whole = 0
		case err != nil:
			return err
		}
	}
	if whole < p.fill {
		if _, err := p.file.WriteAt(p.stroke[whole:p.fill], p.at+int64(whole)); err != nil {
			return err
		}
	}
	p.at, p.fill = p.at+int64(p.fill), 0
	return nil
}

// close lets go of the memory and the second descriptor; flush has done the rest.
func (p *pen) close() {
	if p.stroke != nil {
		strokes.Put(p.stroke)
	}
	if p.direct != nil {
		p.direct.Close()
	}
}

// stroke is memory that is aligned.
type stroke [strokeSize]byte

var strokes = sync.Pool{New: func() any {
	b := make([]byte, strokeSize+alignment)
	// What was allocated does not move.
	short := int(reflect.ValueOf(b).Pointer() % alignment)
	return (*stroke)(b[alignment-short:])
}}
