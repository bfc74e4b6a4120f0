package screen

import (
	"bytes"
	"slices"
)

// Lines that were wrapped are laid out anew when the width changes, as xterm.js does it: on
// the main screen and in its scrollback, but for the line that the cursor is in, which the
// shell writes again. The alternate screen is not: what has it writes it again. Its lines
// keep what a smaller width hides, until a larger one.

// Resize changes the size, to at least 2 × 1 and at most 1,000 × 500.
func (s *Screen) Resize(columns, rows int) {
	columns, rows = clampSize(columns, rows)
	if columns == s.columns && rows == s.rows {
		return
	}
	s.solid()
	before := layout{columns: s.columns, rows: s.rows}
	s.columns, s.rows = columns, rows
	s.resizeMain(before)
	s.resizeAlternate(before)
	for _, b := range []*buffer{&s.main, &s.alt} {
		if b.rows != nil {
			b.x = min(b.x, columns-1)
			b.saved.x = min(b.saved.x, columns-1)
		}
		b.top, b.bottom = 0, rows-1
		b.widenTabs(columns)
	}
}

// layout is the main screen while it is laid out anew: its lines with those of the
// scrollback, whose cells are unpacked only where they are asked for.
type layout struct {
	s             *Screen
	columns, rows int // before
	lines         []*line
	base          int // lines of scrollback
	y, savedY     int
	most          int // lines at most
}

func (s *Screen) resizeMain(l layout) {
	l.s = s
	h := &s.history
	l.base, l.y, l.savedY = h.len(), s.main.y, s.main.saved.y
	l.lines = make([]*line, 0, l.base+max(l.rows, s.rows))
	for i := range l.base {
		p := h.at(i)
		l.lines = append(l.lines, &line{wrapped: p.wrapped, marks: p.marks, packed: p.data})
	}
	l.lines = append(l.lines, s.main.rows...)
	l.most = h.limit + s.rows

	l.changeRows()
	switch {
	case s.columns > l.columns:
		l.widen()
	case s.columns < l.columns:
		l.narrow()
	}

	for len(l.lines) < l.base+s.rows {
		l.lines = append(l.lines, newLine(s.columns, attr{}, false))
	}
	s.main.rows, s.main.room = slices.Clip(slices.Clone(l.lines[l.base:l.base+s.rows])), nil
	for _, row := range s.main.rows {
		l.load(row)
		l.fit(row)
	}
	s.main.y, s.main.saved.y = min(l.y, s.rows-1), l.savedY
	h.slots = nil // lines have its memory
	h.clear()
	for _, line := range l.lines[:l.base] {
		if !l.surely(line) {
			l.load(line)
			line.cells = line.cells[:min(len(line.cells), s.columns)]
			line.used = min(line.used, len(line.cells))
		}
		h.push(s, line)
	}
}

// load unpacks the cells of a line.
func (l *layout) load(line *line) *line {
	if line.packed != nil {
		line.cells = l.s.unpack(make([]cell, 0, max(l.columns, l.s.columns)), line.packed)
		line.used, line.packed = len(line.cells), nil
	}
	return line
}

// fit gives a line exactly as many cells as there are columns.
func (l *layout) fit(line *line) {
	line.widenTo(l.s.columns)
	line.cells = line.cells[:l.s.columns]
	line.used = min(line.used, l.s.columns)
}

// widenTo gives a line at least so many cells.
func (l *line) widenTo(columns int) {
	for len(l.cells) < columns {
		l.cells = append(l.cells, blank)
	}
}

// at gives a cell of a line that may have been packed.
func (l *line) at(i int) cell {
	if i < 0 || i >= len(l.cells) {
		return blank
	}
	return l.cells[i]
}

// changeRows gives the screen more rows, from the scrollback as far as the cursor is at the
// bottom, or fewer, from below the cursor first.
func (l *layout) changeRows() {
	s := l.s
	added := 0
	for range s.rows - l.rows {
		if len(l.lines) >= s.rows+l.base {
			continue
		}
		if l.base > 0 && len(l.lines) <= l.base+l.y+added+1 {
			l.base--
			added++
		} else {
			l.lines = append(l.lines, newLine(s.columns, attr{}, false))
		}
	}
	for range l.rows - s.rows {
		if len(l.lines) <= s.rows+l.base {
			continue
		}
		if len(l.lines) > l.base+l.y+1 {
			l.lines = l.lines[:len(l.lines)-1]
		} else {
			l.base++
		}
	}
	if over := len(l.lines) - l.most; over > 0 {
		l.lines = l.lines[over:]
		l.base = max(l.base-over, 0)
		l.savedY = max(l.savedY-over, 0)
	}
	l.y = min(l.y, s.rows-1) + added
}

// lengthOf is how many cells line i of a wrapped group has, at so many columns: all of them,
// but for the last line, and where a wide character did not fit.
func lengthOf(group []*line, i, columns int) int {
	if i == len(group)-1 {
		return group[i].trimmed()
	}
	last := group[i].at(columns - 1)
	next := group[i+1].at(0)
	if !last.hasContent() && last.width() == 1 && next.width() == 2 {
		return columns - 1
	}
	return columns
}

// copyCells copies cells between the lines of a group. Behind the columns that there were is
// the other half of a wide character that was cut in two.
func (l *layout) copyCells(to *line, at int, from *line, first, n int) {
	to.widenTo(at + n)
	from.widenTo(l.columns)
	for len(from.cells) < first+n {
		from.cells = append(from.cells, cell{})
	}
	copy(to.cells[at:at+n], from.cells[first:first+n])
	to.used = max(to.used, at+n)
}

// widen lays wrapped lines out on more columns.
func (l *layout) widen() {
	columns := l.s.columns
	gone := map[*line]bool{}
	for y := 0; y < len(l.lines)-1; y++ {
		end := y + 1
		for end < len(l.lines) && l.lines[end].wrapped {
			end++
		}
		group := l.lines[y:end]
		if len(group) == 1 {
			continue
		}
		y = end - 1
		if cursor := l.base + l.y; cursor >= end-len(group) && cursor < end {
			continue
		}
		for _, line := range group {
			l.load(line).widenTo(columns)
		}
		to, at := 0, lengthOf(group, 0, l.columns)
		for from, first := 1, 0; from < len(group); {
			length := lengthOf(group, from, l.columns)
			n := min(length-first, columns-at)
			l.copyCells(group[to], at, group[from], first, n)
			at += n
			if at == columns {
				to, at = to+1, 0
			}
			first += n
			if first == length {
				from, first = from+1, 0
			}
			if at == 0 && to != 0 && group[to-1].widthAt(columns-1) == 2 {
				l.copyCells(group[to], 0, group[to-1], columns-1, 1)
				at = 1
				group[to-1].set(columns-1, blank)
			}
		}
		if to < len(group) { // else all of them are full to the end
			group[to].replace(at, columns, attr{}, false)
		}
		for i := len(group) - 1; i > 0 && (i > to || group[i].trimmed() == 0); i-- {
			gone[group[i]] = true
			group[i-1].marks = append(slices.Clip(group[i-1].marks), group[i].marks...)
		}
	}
	if len(gone) == 0 {
		return
	}
	l.lines = slices.DeleteFunc(l.lines, func(line *line) bool { return gone[line] })
	for range len(gone) {
		if l.base > 0 {
			l.base--
			continue
		}
		l.y = max(l.y-1, 0)
		if len(l.lines) < l.s.rows {
			l.lines = append(l.lines, newLine(columns, attr{}, false))
		}
	}
	l.savedY = max(l.savedY-len(gone), 0)
}

// narrow lays lines out on fewer columns.
func (l *layout) narrow() {
	columns := l.s.columns
	type insertion struct {
		start int
		lines []*line
	}
	var insertions []insertion
	inserted := 0
	lines := l.lines // some are taken from its end meanwhile
	for y := len(lines) - 1; y >= 0; y-- {
		if line := lines[y]; !line.wrapped && l.fits(line) {
			continue
		}
		end := y + 1
		for lines[y].wrapped && y > 0 {
			y--
		}
		group := slices.Clone(lines[y:end])
		if cursor := l.base + l.y; cursor >= y && cursor < end {
			continue
		}
		for _, line := range group {
			l.load(line)
		}
		length := group[len(group)-1].trimmed()
		lengths := newLengths(group, l.columns, columns)
		add := len(lengths) - len(group)
		if add < 0 {
			continue
		}
		trimmed := len(l.lines)
		if l.base == 0 && l.y != len(l.lines)-1 {
			trimmed = l.y
		}
		trimmed = max(0, trimmed-l.most+add)
		if add > 0 {
			added := make([]*line, add)
			for i := range added {
				added[i] = newLine(columns, attr{}, true)
			}
			insertions = append(insertions, insertion{end + inserted, added})
			inserted += add
			group = append(group, added...)
		}
		// From the end, for what is moved goes down.
		to, at := len(lengths)-1, 0
		if to >= 0 {
			at = lengths[to]
		}
		from, first := len(group)-add-1, length
		for from >= 0 && to >= 0 {
			n := min(first, at)
			l.copyCells(group[to], at-n, group[from], first-n, n)
			if at -= n; at == 0 {
				if to--; to >= 0 {
					at = lengths[to]
				}
			}
			if first -= n; first == 0 {
				from--
				first = lengthOf(group, max(from, 0), l.columns)
			}
		}
		for i, length := range lengths {
			if length < columns {
				group[i].widenTo(columns)
				group[i].set(length, blank)
			}
		}
		for range add - trimmed {
			switch {
			case l.base > 0:
				if l.base < min(l.most, len(l.lines)+inserted)-l.s.rows {
					l.base++
				}
			case l.y < l.s.rows-1:
				l.y++
				l.lines = l.lines[:len(l.lines)-1]
			default:
				l.base++
			}
		}
		l.savedY = min(l.savedY+add, l.base+l.s.rows-1)
	}
	if inserted == 0 {
		return
	}
	// Put together from the end: what does not fit is lost at the beginning.
	before := l.lines
	all := make([]*line, min(l.most, len(before)+inserted))
	next, done := len(before)-1, 0
	for i := len(all) - 1; i >= 0; i-- {
		if len(insertions) > 0 && insertions[0].start > next+done {
			added := insertions[0].lines
			for k := len(added) - 1; k >= 0 && i >= 0; k-- {
				all[i] = added[k]
				i--
			}
			i++
			done += len(added)
			insertions = insertions[1:]
		} else {
			all[i] = before[next]
			next--
		}
	}
	l.lines = all
}

// surely reports whether it is clear from the length of a packed line that it has no more
// cells than there are columns now: of most it is.
func (l *layout) surely(line *line) bool {
	return line.packed != nil && len(line.packed) <= l.s.columns && bytes.IndexByte(line.packed, packedEmpty) < 0
}

// fits reports whether a line needs no more than the new columns.
func (l *layout) fits(line *line) bool {
	return l.surely(line) || l.load(line).trimmed() <= l.s.columns
}

// newLengths is how many cells each line of a group has that is laid out on fewer columns.
func newLengths(group []*line, before, columns int) (lengths []int) {
	needed := 0
	for i := range group {
		needed += lengthOf(group, i, before)
	}
	for have, column, from := 0, 0, 0; have < needed; {
		if needed-have < columns {
			return append(lengths, needed-have)
		}
		column += columns
		if length := lengthOf(group, from, before); column > length {
			column -= length
			from++
		}
		length := columns
		if c := group[min(from, len(group)-1)].at(column - 1); c.width() == 2 {
			column--
			length--
		}
		lengths = append(lengths, length)
		have += length
	}
	return lengths
}

func (s *Screen) resizeAlternate(before layout) {
	b := &s.alt
	if b.rows == nil {
		b.spare, b.room = nil, nil
		return
	}
	if s.columns > before.columns {
		before.s = s
		for _, l := range b.rows {
			before.fit(l)
		}
	}
	for range s.rows - before.rows {
		b.rows = append(b.rows, newLine(s.columns, attr{}, false))
	}
	for len(b.rows) > max(s.rows, b.y+1) {
		b.rows = b.rows[:len(b.rows)-1]
	}
	if over := len(b.rows) - s.rows; over > 0 {
		b.rows = slices.Clone(b.rows[over:])
		b.saved.y = max(b.saved.y-over, 0)
	}
	b.rows, b.room = slices.Clip(b.rows), nil
	b.y = min(b.y, s.rows-1)
}
