package screen

func (s *Screen) eraseDisplay(keep bool) {
	b := s.buf
	s.restrict(s.columns)
	fill := s.eraseAttr()
	keep = keep && s.guarding
	switch s.params.value[0] {
	case 0:
		s.eraseCells(b.x, s.columns, b.x == 0, keep)
		for _, l := range b.rows[b.y+1:] {
			l.fill(fill, keep)
		}
	case 1:
		s.eraseCells(0, b.x+1, true, keep)
		if b.x+1 >= s.columns {
			// xterm.js counts from the first line of the scrollback here.
			switch i := b.y + 1; {
			case i < s.base():
				s.history.at(i).wrapped = false
			case i-s.base() < s.rows:
				b.rows[i-s.base()].wrapped = false
			case b == &s.alt:
				b.rows[0].wrapped = false
			}
		}
		for _, l := range b.rows[:b.y] {
			l.fill(fill, keep)
		}
	case 2:
		for _, l := range b.rows {
			l.fill(fill, keep)
		}
	case 3:
		if b == &s.main {
			s.history.clear()
		}
	}
}

func (s *Screen) eraseLine(keep bool) {
	b := s.buf
	s.restrict(s.columns)
	switch s.params.value[0] {
	case 0:
		s.eraseCells(b.x, s.columns, b.x == 0, keep)
	case 1:
		s.eraseCells(0, b.x+1, false, keep)
	case 2:
		s.eraseCells(0, s.columns, true, keep)
	}
}

// eraseCells erases in the cursor's row.
func (s *Screen) eraseCells(start, end int, unwrap, keep bool) {
	l := s.buf.rows[s.buf.y]
	l.replace(start, end, s.eraseAttr(), keep)
	if unwrap {
		l.wrapped = false
	}
	if start == 0 && end >= s.columns {
		l.marks = nil
	}
}
