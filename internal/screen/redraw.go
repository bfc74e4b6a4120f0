package screen

import "slices"

// main writes the scrollback and the main screen.
func (w *writer) main(scrolled int) {
	h := &w.s.history
	lines := make([]*line, 0, scrolled+w.s.rows)
	for i := h.len() - scrolled; i < h.len(); i++ {
		lines = append(lines, h.line(w.s, i))
	}
	w.rows(append(lines, w.s.main.rows...))
}

// rows writes lines from the cursor's on, which is at the beginning of an empty one.
func (w *writer) rows(lines []*line) {
	var joined *line
	if w.reprints() && w.s.modes.insert {
		joined = w.joined()
	}
	if lines[0].wrapped && w.s.rows > 1 {
		// Of something that is not there any more: it is pushed out.
		w.csi(w.s.columns, 'G')
		w.out = append(w.out, "\u3000\x1b[S\x1b[H\x1b[2X"...)
	}
	for i, l := range lines {
		var next *line
		if i+1 < len(lines) {
			next = lines[i+1]
		}
		if joined != nil && l == w.s.row() {
			l = joined
		}
		w.line(l, next)
	}
}

// joined is the cursor's row without the character that was printed last, where it is to be
// printed at the very end and moves what is behind it.
func (w *writer) joined() *line {
	s := w.s
	row := *s.row()
	row.cells = slices.Clone(row.cells)
	row.remove(s.buf.x-s.join, s.join, attr{})
	return &row
}

// line writes one line and goes to the beginning of the next, which may be nil.
func (w *writer) line(l, next *line) {
	columns := w.s.columns
	wraps := next != nil && next.wrapped
	cells := l.cells[:min(l.used, columns)]
	for len(cells) > 0 && cells[len(cells)-1] == blank {
		cells = cells[:len(cells)-1]
	}
	lastEmpty := true
	if len(cells) == columns {
		last := shown(cells, columns-1)
		lastEmpty = !last.hasContent() && !last.half()
	}
	if wraps && lastEmpty {
		cells = cells[:min(len(cells), columns-1)]
	}
	at := w.cells(cells)
	if next == nil {
		return
	}
	if !wraps {
		if w.attr.bg&colorMask != 0 { // a line that is scrolled in would be filled with it
			w.style(attr{})
		}
		w.out = append(w.out, "\r\n"...)
		return
	}
	// What follows is wrapped: only a character that does not fit does that. Where the last
	// cell is empty it is a wide one, which leaves it so.
	last := attr{}
	if lastEmpty {
		if len(l.cells) >= columns && l.used >= columns {
			last = shown(l.cells, columns-1).attr
		}
		if at != columns-1 {
			w.csi(columns, 'G')
		}
		w.style(last)
		w.out = append(w.out, "\u3000"...)
	} else {
		w.style(attr{})
		w.out = append(w.out, ' ')
	}
	w.style(attr{})
	w.out = append(w.out, '\r')
	if lastEmpty && last.bg&colorMask != 0 {
		w.csi(columns, 'X') // scrolling filled it
	} else if lastEmpty {
		w.csi(2, 'X')
	} else {
		w.csi(1, 'X')
	}
}

// cells writes cells from the first column on, and gives the column that the cursor is in
// after them.
func (w *writer) cells(cells []cell) (at int) {
	end := max(len(cells), w.emptied(cells))
	moveTo := func(i int) {
		if i != at {
			w.csi(i+1, 'G')
			at = i
		}
	}
	cellAt := func(i int) (c cell, dirty bool) {
		c = blank
		if i < len(cells) {
			c = shown(cells, i)
		}
		return c, len(w.dirty) > 0 && w.dirty[i]
	}
	for i := 0; i < end; i++ {
		c, dirty := cellAt(i)
		switch {
		case c == blank && !dirty:
		case c.hasContent():
			moveTo(i)
			w.style(c.attr)
			if c.width() == 0 {
				w.out = append(w.out, "\x1b\\"...) // it is not to join what is before it
			}
			w.out = w.s.appendContent(w.out, &c)
			at += max(c.width(), 1)
			i += max(c.width(), 1) - 1
		case erasable(c):
			n := 1
			for ; i+n < end; n++ {
				if next, dirty := cellAt(i + n); next != c || c == blank && !dirty {
					break
				}
			}
			moveTo(i)
			w.style(c.attr)
			w.csi(n, 'X')
			i += n - 1
		}
	}
	return at
}

// erasable reports whether an empty cell is as erasing leaves it.
func erasable(c cell) bool { return c.fg == 0 && c.bg == c.bg&colorMask }

// emptied makes those cells of an empty row empty that have a style which erasing does not
// give: what is left of a wide character when half of it is written over. It is done before
// everything else, for something stays in another cell each time, which is dirty then. The
// column behind the last one of those is given.
func (w *writer) emptied(cells []cell) (end int) {
	w.dirty = w.dirty[:0]
	empty := func(i, other int) {
		if c := shown(cells, i); c.hasContent() || c.half() || erasable(c) {
			return
		}
		if len(w.dirty) == 0 {
			w.dirty = append(w.dirty, make([]bool, w.s.columns)...)
		}
		w.csi(min(i, other)+1, 'G')
		w.style(cells[i].attr)
		w.out = append(w.out, "\u3000"...)
		w.csi(other+1, 'G')
		w.out = append(w.out, ' ')
		w.dirty[i], w.dirty[other] = false, true
		end = max(end, other+1)
	}
	if len(cells) > 0 {
		empty(0, 1)
	}
	for i := len(cells) - 1; i > 0; i-- {
		empty(i, i-1)
	}
	if end > 0 {
		w.out = append(w.out, '\r')
	}
	return end
}
