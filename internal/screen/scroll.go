package screen

import "slices"

func (s *Screen) scrollRegion() {
	p := &s.params
	top, bottom := p.get(0, 1), p.get(1, s.rows)
	bottom = min(bottom, s.rows)
	if bottom > top {
		s.buf.top, s.buf.bottom = top-1, bottom-1
		s.moveTo(0, 0)
	}
}

// scroll moves the rows of the scroll region up by one; the topmost goes into the
// scrollback where the region begins at the top.
func (s *Screen) scroll(wrapped bool) {
	b := s.buf
	top := b.rows[b.top]
	if b.top == 0 && b == &s.main {
		s.history.push(s, top)
	}
	s.renew(top, s.eraseAttr(), wrapped)
	if b.top == 0 && b.bottom == len(b.rows)-1 {
		b.roll()
		return
	}
	copy(b.rows[b.top:b.bottom], b.rows[b.top+1:b.bottom+1])
	b.rows[b.bottom] = top
}

// roll puts the first row behind the others, without moving them most of the time.
func (b *buffer) roll() {
	n := len(b.rows)
	if cap(b.rows) == n {
		if b.room == nil {
			b.room = make([]*line, 16*n)
		}
		b.rows = b.room[:copy(b.room, b.rows)]
	}
	b.rows = append(b.rows, b.rows[0])[1:]
}

// shift moves the rows from first to last by n, up where n is negative, and fills those
// that are free then. Rows that are pushed out are lost.
func (s *Screen) shift(first, last, n int, fill attr) {
	rows := s.buf.rows[first : last+1]
	n = min(max(n, -len(rows)), len(rows))
	out := rows[len(rows)-max(n, 0):]
	if n < 0 {
		out = rows[:-n]
	}
	for _, l := range out {
		s.renew(l, fill, false)
	}
	rotate(rows, n)
}

// rotate moves rows by n, up where n is negative; those that are pushed out come in at the
// other end.
func rotate(rows []*line, n int) {
	if n < 0 {
		n += len(rows)
	}
	slices.Reverse(rows)
	slices.Reverse(rows[:n])
	slices.Reverse(rows[n:])
}

// renew makes a row that was scrolled off a new one.
func (s *Screen) renew(l *line, fill attr, wrapped bool) {
	l.cut(s.columns) // of the alternate screen it may have more, see resize.go
	l.reset(fill, wrapped)
}

// insertLines inserts rows at the cursor, or deletes them where n is negative.
func (s *Screen) insertLines(n int) {
	b := s.buf
	s.restrict(s.columns - 1)
	if b.y > b.bottom || b.y < b.top {
		return
	}
	s.shift(b.y, b.bottom, n, s.eraseAttr())
	b.x = 0
}

// columnsOfRegion does something to all lines of the scroll region, when the cursor is in it.
func (s *Screen) columnsOfRegion(do func(*line)) {
	b := s.buf
	if b.y > b.bottom || b.y < b.top {
		return
	}
	for _, l := range b.rows[b.top : b.bottom+1] {
		do(l)
		l.wrapped = false
	}
}
