package screen

import "unicode/utf8"

// combinedLimit is how many bytes a cell may have.
const combinedLimit = 128

// printASCII prints a run of printable ASCII: almost all there is.
func (s *Screen) printASCII(run []byte) {
	if s.charset != nil || s.modes.insert {
		for _, c := range run {
			s.print(rune(c))
		}
		return
	}
	b := s.buf
	row := s.row()
	s.unpair(row)
	// Cells are written by hand here: this loop is what the speed of it all depends on.
	c := put(0, 1, s.attr)
	for len(run) > 0 {
		if b.x >= s.columns {
			if s.modes.noWrap {
				// Each is written over the one before.
				row.set(s.columns-1, put(uint32(run[len(run)-1]), 1, s.attr))
				b.x = s.columns
				break
			}
			row = s.wrap(0, row)
		}
		n := min(len(run), s.columns-b.x)
		cells := row.cells[b.x : b.x+n]
		for i, r := range run[:n] {
			cells[i] = cell{c.content | uint32(r), c.attr}
		}
		b.x += n
		row.used = max(row.used, b.x)
		run = run[n:]
	}
	s.join = 1
	s.repair(row)
}

// unpair makes the first half of a wide character empty, whose second half is about to be
// written to.
func (s *Screen) unpair(row *line) {
	if x := s.buf.x; x > 0 && row.widthAt(x-1) == 2 {
		row.set(x-1, put(0, 1, s.attr))
	}
}

// repair makes the second half of a wide character empty, whose first half was written to.
func (s *Screen) repair(row *line) {
	if x := s.buf.x; x < s.columns && row.cells[x].half() {
		row.set(x, put(0, 1, s.attr))
	}
}

// wrap goes to the beginning of the next row, for a character that does not fit any more.
// It gives that row.
func (s *Screen) wrap(x int, row *line) *line {
	b := s.buf
	column := b.x - x
	b.x = x
	b.y++
	if b.y == b.bottom+1 {
		b.y--
		// What did not fit is filled before the line may go into the scrollback.
		for i := column; i < s.columns; i++ {
			row.set(i, put(0, 1, s.attr))
		}
		s.scroll(true)
		return s.row()
	}
	b.y = min(b.y, s.rows-1)
	next := s.row()
	next.wrapped = true
	for i := column; i < s.columns; i++ {
		row.set(i, put(0, 1, s.attr))
	}
	return next
}

// print prints one character.
func (s *Screen) print(r rune) {
	b := s.buf
	row := s.row()
	s.unpair(row)
	r = s.charset.show(r)
	width := s.width(r)
	joins := width == 0 && s.join != 0
	if joins {
		width = s.join
	}
	before := 0 // the width of what is joined
	if joins {
		before = s.join
	}
	s.join = width
	if b.x+width-before > s.columns {
		if s.modes.noWrap {
			b.x = s.columns - 1
			if width == 2 {
				return
			}
		} else {
			if before > 0 {
				// The character that is joined comes along.
				column, joined := b.x-before, row
				moved := [2]cell{}
				for i := range before {
					if column+i >= 0 && column+i < s.columns {
						moved[i] = joined.cells[column+i]
					} else {
						moved[i] = blank
					}
				}
				row = s.wrap(before, row)
				for i := range before {
					row.set(i, moved[i])
				}
			} else {
				row = s.wrap(0, row)
			}
		}
	}
	switch {
	case joins && b.x > 0:
		at := b.x - 1
		if row.widthAt(at) == 0 {
			at--
		}
		if at >= 0 {
			s.combine(row, at, r, width)
		}
	default:
		if s.modes.insert {
			row.insert(b.x, width-before, s.attr)
			if row.cells[s.columns-1].width() == 2 {
				row.set(s.columns-1, put(0, 1, s.attr))
			}
		}
		row.set(b.x, put(uint32(r), width, s.attr))
		b.x++
		if width == 2 {
			row.set(b.x, put(0, 0, s.attr))
			b.x++
		}
	}
	s.repair(row)
}

// printCopies prints what was printed just now so many times again. Nothing may be special:
// the cursor wraps, and nothing is moved.
func (s *Screen) printCopies(n int) {
	b, width := s.buf, s.join
	row := s.row()
	c := row.cells[b.x-width]
	for range n {
		s.unpair(row)
		if b.x+width > s.columns {
			row = s.wrap(0, row)
		}
		row.set(b.x, c)
		if width == 2 {
			row.set(b.x+1, put(0, 0, s.attr))
		}
		b.x += width
		s.repair(row)
	}
}

// combine adds a character to a cell.
func (s *Screen) combine(row *line, at int, r rune, width int) {
	if at >= len(row.cells) {
		return
	}
	c := &row.cells[at]
	if !c.hasContent() {
		c.content = uint32(r)
	} else if text := s.appendContent(nil, c); len(text) < combinedLimit {
		s.sweep()
		if n, ok := s.tables.combination(string(utf8.AppendRune(text, r))); ok {
			c.content = flagCombined | n
		}
	}
	c.content = c.content&contentMask | uint32(width)<<widthShift
	row.used = max(row.used, at+1)
}

// repeatMost is how often REP repeats at most: more than any program wants, and less than
// would take long.
const repeatMost = 4096

// repeat is REP: the last character again.
func (s *Screen) repeat(n int) {
	x, row := s.buf.x-s.join, s.row()
	if s.join == 0 || x < 0 || x >= s.columns || !row.cells[x].hasContent() {
		return
	}
	n = min(n, repeatMost)
	text := s.appendContent(make([]byte, 0, combinedLimit+utf8.UTFMax), &row.cells[x])
	if text[0] < utf8.RuneSelf && len(text) == 1 {
		var run [128]byte
		for i := range run {
			run[i] = text[0]
		}
		for ; n > 0; n -= len(run) {
			s.printASCII(run[:min(n, len(run))])
		}
		return
	}
	several := string(text)
	plain := !s.modes.noWrap && !s.modes.insert
	for i, r := range several {
		plain = plain && (s.width(s.charset.show(r)) > 0) == (i == 0) // one that others join
	}
	if !plain {
		n = min(n, max(1, repeatMost/utf8.RuneCountInString(several)))
	}
	for range n {
		for _, r := range several {
			s.print(r)
		}
		if plain {
			s.printCopies(n - 1)
			return
		}
	}
}
