package screen

import (
	"encoding/binary"
	"unicode/utf8"
)

// history is the scrollback: a ring of lines, packed, for ten thousand lines of cells would
// be a dozen MiB for every terminal.
//
// A packed line has, cell after cell, the UTF-8 of a character that is as wide as it is
// meant to be. What else there is begins with a byte that no character has:
//
//	0x01 fg bg ext     how the cells look that follow (uvarints)
//	0x02 n             n empty cells
//	0x03 content       a cell with anything else in it: several characters, another width
//
// What is blank at its end is left out.
type history struct {
	limit int      // lines at most
	slots []packed // a ring, which grows up to limit
	first int      // slot of the first line
	n     int      // lines
	bytes int      // of all of them
}

// packed is a line of the scrollback.
type packed struct {
	data    []byte
	wrapped bool
	marks   []string
}

const (
	packedStyle = 1 + iota
	packedEmpty
	packedCell
)

// lineBytes is how many bytes a line may have on the average.
const lineBytes = 1 << 10

func (h *history) len() int { return h.n }

// at gives line i, 0 being the oldest.
func (h *history) at(i int) *packed {
	i += h.first
	if i >= len(h.slots) {
		i -= len(h.slots)
	}
	return &h.slots[i]
}

// clear forgets all lines. A few slots are kept, so that clearing again and again costs
// nothing.
func (h *history) clear() {
	few := h.slots
	if cap(few) > fewSlots {
		few = nil
	}
	for i := range few {
		few[i] = packed{data: few[i].data}
	}
	*h = history{limit: h.limit, slots: few[:0]}
}

const fewSlots = 64

// push packs a line behind the others, and forgets the first where there is no room.
func (h *history) push(s *Screen, l *line) {
	if h.limit == 0 {
		return
	}
	p := h.next()
	if l.packed != nil {
		p.data = l.packed
	} else {
		if need := len(p.data); cap(p.data) > 256 && cap(p.data) > 4*need {
			p.data = nil // it had a long line once
		}
		p.data = s.pack(p.data[:0], l)
	}
	p.wrapped, p.marks = l.wrapped, l.marks
	h.bytes += len(p.data)
	for h.bytes > h.limit*lineBytes && h.n > 1 {
		h.drop()
		s.main.saved.y = max(s.main.saved.y-1, 0)
	}
}

// next gives the slot for a new line.
func (h *history) next() *packed {
	if h.n == h.limit {
		h.drop()
	}
	if h.n == len(h.slots) {
		if h.first > 0 {
			// In order, so that appending puts it at the end.
			h.slots = append(append(make([]packed, 0, h.n*2), h.slots[h.first:]...), h.slots[:h.first]...)
			h.first = 0
		}
		if len(h.slots) < cap(h.slots) {
			h.slots = h.slots[:len(h.slots)+1] // of clear
		} else {
			h.slots = append(h.slots, packed{})
		}
	}
	h.n++
	return h.at(h.n - 1)
}

// drop forgets the first line. Its memory is for the next one.
func (h *history) drop() {
	p := h.at(0)
	h.bytes -= len(p.data)
	p.marks = nil
	h.n--
	if h.first++; h.first == len(h.slots) {
		h.first = 0
	}
}

// line gives line i with its cells.
func (h *history) line(s *Screen, i int) *line {
	p := h.at(i)
	l := &line{wrapped: p.wrapped, marks: p.marks}
	l.cells = s.unpack(make([]cell, 0, min(len(p.data)+1, s.columns)), p.data)
	l.used = len(l.cells)
	return l
}

// pack appends a line, packed.
func (s *Screen) pack(b []byte, l *line) []byte {
	var a attr
	if l.even && l.tint.content == blank.content {
		if l.tint != blank {
			b = packStyle(b, l.tint.attr)
			b = binary.AppendUvarint(append(b, packedEmpty), uint64(len(l.cells)))
		}
		return b
	}
	cells := l.solid().cells[:l.used]
	for len(cells) > 0 && cells[len(cells)-1] == blank {
		cells = cells[:len(cells)-1]
	}
	for i := 0; i < len(cells); i++ {
		c := &cells[i]
		if c.attr != a {
			a = c.attr
			b = packStyle(b, a)
		}
		code := c.content & codeMask
		switch {
		case code < 0x7f && code >= 0x20 && c.content>>(widthShift-1) == 2: // not combined, 1 wide
			b = append(b, byte(code))
		case c.content == blank.content:
			n := 1
			for i+1 < len(cells) && cells[i+1].content == c.content && cells[i+1].attr == a {
				n++
				i++
			}
			b = append(b, packedEmpty)
			b = binary.AppendUvarint(b, uint64(n))
		case c.content&flagCombined == 0 && code >= 0x20 && c.width() > 0 && c.width() == s.width(rune(code)) &&
			(c.width() == 1 || i+1 < len(cells) && cells[i+1].half() && cells[i+1].attr == a):
			b = utf8.AppendRune(b, rune(code))
			i += c.width() - 1
		default:
			b = append(b, packedCell)
			b = binary.AppendUvarint(b, uint64(c.content))
		}
	}
	return b
}

func packStyle(b []byte, a attr) []byte {
	b = append(b, packedStyle)
	b = binary.AppendUvarint(b, uint64(a.fg))
	b = binary.AppendUvarint(b, uint64(a.bg))
	return binary.AppendUvarint(b, uint64(a.ext))
}

// unpack appends the cells of a packed line.
func (s *Screen) unpack(cells []cell, b []byte) []cell {
	var a attr
	number := func() uint32 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return uint32(v)
	}
	for len(b) > 0 {
		switch c := b[0]; c {
		default:
			if c < 0x80 {
				cells = append(cells, cell{uint32(c) | 1<<widthShift, a})
				b = b[1:]
				continue
			}
			r, size, _ := decode(b)
			b = b[size:]
			width := s.width(r)
			cells = append(cells, put(uint32(r), width, a))
			if width == 2 {
				cells = append(cells, put(0, 0, a))
			}
		case packedStyle:
			b = b[1:]
			a.fg, a.bg, a.ext = number(), number(), number()
		case packedEmpty:
			b = b[1:]
			for range number() {
				cells = append(cells, put(0, 1, a))
			}
		case packedCell:
			b = b[1:]
			cells = append(cells, cell{number(), a})
		}
	}
	return cells
}

// rewrite has each line's cells changed.
func (s *Screen) rewrite(each func([]cell)) {
	h := &s.history
	var l line
	h.bytes = 0
	for i := range h.n {
		p := h.at(i)
		l.cells = s.unpack(l.cells[:0], p.data)
		l.used = len(l.cells)
		each(l.cells)
		p.data = s.pack(p.data[:0], &l)
		h.bytes += len(p.data)
	}
}
