package screen

import (
	"strconv"
	"unicode/utf8"
)

// cursor puts the cursor where it is, and has everything about what is printed next as it
// is. Nothing here may move the cursor, once it is there.
func (w *writer) cursor() {
	s := w.s
	b, row := s.buf, s.row()
	place := func(x int) {
		y := b.y
		if s.modes.origin {
			y = max(y-b.top, 0)
		}
		w.cursorTo(x, y)
	}
	w.last = true
	if w.reprints() {
		w.charsets(true)
		w.next(true)
		place(b.x - s.join)
		w.write(&row.cells[b.x-s.join])
		return
	}
	if b.x < s.columns {
		w.charsets(true)
		w.next(true)
		place(b.x)
		return
	}
	// The next character wraps: print the last one again.
	x := s.columns - 1
	c := shown(row.cells, x)
	if c.half() {
		x--
		c = row.cells[x]
	}
	empty := !c.hasContent()
	if empty {
		c.content = ' ' | 1<<widthShift
	}
	before := w.writable(&c)
	if before {
		w.charsets(true)
	}
	place(x)
	w.style(c.attr)
	if c.width() == 0 {
		w.out = append(w.out, "\x1b\\"...)
	}
	if before {
		w.write(&c)
	} else {
		w.out = s.appendContent(w.out, &c)
	}
	if empty && uniform(row.cells[:s.columns], row.cells[x]) && erasable(row.cells[x]) {
		w.out = append(w.out, "\x1b[1K"...) // which leaves the cursor
	}
	if b.x > s.columns {
		w.out = append(w.out, "\x1b\\\u200b"...) // so far only a character without a width gets
	}
	if !before {
		w.charsets(false)
	}
	w.next(false)
}

// reprints reports whether the character that was printed last is printed at the very end:
// what comes may combine with it, or repeat it.
func (w *writer) reprints() bool {
	s := w.s
	x := s.buf.x - s.join
	if s.join == 0 || x < 0 || s.buf.x > s.columns {
		return false
	}
	c := s.row().cells[x]
	return c.hasContent() && c.width() == s.join && w.writable(&c)
}

// writable reports whether the character set in use has what is in a cell.
func (w *writer) writable(c *cell) bool {
	first, _ := utf8.DecodeRune(w.s.appendContent(nil, c))
	_, ok := w.s.charset.wrote(first)
	return ok
}

// write writes what is in a cell, in the character set in use.
func (w *writer) write(c *cell) {
	for i, r := range string(w.s.appendContent(nil, c)) {
		if i == 0 {
			r, _ = w.s.charset.wrote(r)
		}
		w.out = utf8.AppendRune(w.out, r)
	}
}

// charsets sets the character sets. DECRC may have brought back one that is none of the four;
// to do that here too the cursor must be free to move.
func (w *writer) charsets(moves bool) {
	s := w.s
	w.designate()
	if moves && s.charset != s.sets[s.level] && s.charset == s.buf.saved.charset {
		w.out = append(w.out, "\x1b8"...)
		w.attr = unknown
	}
}

// designate sets the character sets.
func (w *writer) designate() {
	for i, set := range w.s.sets {
		if set != nil {
			w.printf("\x1b%c%c", "()*+"[i], set.final)
		}
	}
	w.level()
}

// level selects one of the four.
func (w *writer) level() {
	w.out = append(w.out, []string{"\x0f", "\x0e", "\x1bn", "\x1bo"}[w.s.level]...)
}

// next has what is printed next be as it would here. The cursor may be moved by it where
// that is still to be placed.
func (w *writer) next(moves bool) {
	s := w.s
	saved := s.buf.saved
	switch {
	case moves && odd(s.attr, s.extended) && s.attr.fg == saved.fg && s.attr.bg == saved.bg:
		w.open(s.extended.link)
		w.sgr(attr{}, s.extended)
		w.out = append(w.out, "\x1b8"...)
		if s.charset == s.sets[s.level] {
			w.level()
		}
	default:
		e := s.extended
		switch {
		case s.attr.fg&flagUnderline == 0:
			e.style = 0
		case e.style == 0:
			e.style = 1
		}
		if s.attr.bg&flagExtended == 0 {
			e.link = 0
		}
		w.open(e.link)
		w.sgr(s.attr, e)
	}
	m := &s.modes
	for _, mode := range []struct {
		on       bool
		sequence string
	}{{m.noWrap, "\x1b[?7l"}, {m.insert, "\x1b[4h"}, {m.keep.newline, "\x1b[20h"}, {m.synchronized, "\x1b[?2026h"}} {
		if mode.on {
			w.out = append(w.out, mode.sequence...)
		}
	}
}

// uniform reports whether all cells are the same.
func uniform(cells []cell, c cell) bool {
	for i := range cells {
		if cells[i] != c {
			return false
		}
	}
	return true
}

// unfinished writes the sequence, and the character, that the output ends in the middle of.
func (w *writer) unfinished() {
	s := w.s
	collected := func() {
		for shift := 16; shift >= 0; shift -= 8 {
			if c := byte(s.collect >> shift); c != 0 {
				w.out = append(w.out, c)
			}
		}
	}
	switch s.state {
	case escape, escapeIntermediate:
		w.out = append(w.out, 0x1b)
		collected()
	case csiEntry:
		w.out = append(w.out, "\x1b["...)
	case csiParam, csiIntermediate:
		w.out = append(w.out, "\x1b["...)
		w.params()
	case csiIgnore:
		w.out = append(w.out, "\x1b[<<"...)
	case ignoredString:
		w.out = append(w.out, "\x1bX"...)
	case oscString:
		w.out = append(w.out, "\x1b]"...)
		switch {
		case s.refused, s.tooLong:
			w.out = append(w.out, 'x')
		case s.numbered && !s.meant():
			w.out = append(w.out, "0x"...)
		default:
			if s.number >= 0 {
				w.printf("%d", s.number)
			}
			if s.numbered {
				w.out = append(w.out, ';')
			}
			w.out = append(w.out, s.body...)
		}
	case dcsEntry:
		w.out = append(w.out, "\x1bP"...)
	case dcsParam, dcsIntermediate:
		w.out = append(w.out, "\x1bP"...)
		collected()
		if s.state == dcsParam && s.collect == 0 {
			w.out = append(w.out, '0')
		}
	case dcsIgnore:
		w.out = append(w.out, "\x1bP<<"...)
	case dcsPassthrough:
		if s.number == requestStatus && !s.tooLong {
			w.out = append(append(w.out, "\x1bP$q"...), s.body...)
		} else {
			w.out = append(w.out, "\x1bPz"...)
		}
	}
	w.out = append(w.out, s.held[:s.nheld]...)
}

// params writes the parameters of a CSI sequence, and what is collected: a prefix before
// them, and intermediates behind.
func (w *writer) params() {
	s := w.s
	p := &s.params
	var prefix, intermediates []byte
	for shift := 16; shift >= 0; shift -= 8 {
		switch c := byte(s.collect >> shift); {
		case c >= '<':
			prefix = append(prefix, c)
		case c != 0:
			intermediates = append(intermediates, c)
		}
	}
	w.out = append(w.out, prefix...)
	if p.n > 1 || p.value[0] != 0 || p.nsub > 0 || p.digitsSub || s.state == csiParam && s.collect == 0 {
		for i := range p.n {
			if i > 0 {
				w.out = append(w.out, ';')
			}
			w.out = strconv.AppendInt(w.out, int64(p.value[i]), 10)
			for _, v := range p.subs(i) {
				w.out = append(w.out, ':')
				if v >= 0 {
					w.out = strconv.AppendInt(w.out, int64(v), 10)
				}
			}
		}
		if p.full {
			w.out = append(w.out, ';')
		}
		if p.subFull {
			w.out = append(w.out, ':')
		}
	}
	w.out = append(w.out, intermediates...)
}
