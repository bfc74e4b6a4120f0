package screen

// moveTo sets the cursor, counted from the origin.
func (s *Screen) moveTo(x, y int) {
	if s.modes.origin {
		y += s.buf.top
	}
	s.buf.x, s.buf.y = x, y
	s.restrict(s.columns - 1)
}

// moveBy moves the cursor. With the origin in the scroll region the row is, as in xterm.js,
// counted from there once more.
func (s *Screen) moveBy(x, y int) {
	s.restrict(s.columns - 1)
	s.moveTo(s.buf.x+x, s.buf.y+y)
}

// up and down stop at the ends of the scroll region, when they begin inside.
func (s *Screen) up(n int) {
	if room := s.buf.y - s.buf.top; room >= 0 {
		n = min(n, room)
	}
	s.moveBy(0, -n)
}

func (s *Screen) down(n int) {
	if room := s.buf.bottom - s.buf.y; room >= 0 {
		n = min(n, room)
	}
	s.moveBy(0, n)
}

// restrict keeps the cursor on the screen, or in the scroll region where that is the origin.
func (s *Screen) restrict(last int) {
	b := s.buf
	b.x = min(max(b.x, 0), last)
	if s.modes.origin {
		b.y = min(max(b.y, b.top), b.bottom)
	} else {
		b.y = min(max(b.y, 0), s.rows-1)
	}
}

func (s *Screen) lineFeed() {
	b := s.buf
	if s.modes.keep.newline {
		b.x = 0
	}
	b.y++
	switch {
	case b.y == b.bottom+1:
		b.y--
		s.scroll(false)
	case b.y >= s.rows:
		b.y = s.rows - 1
	default:
		b.rows[b.y].wrapped = false
	}
	if b.x >= s.columns {
		b.x--
	}
}

// index goes down a row, and scrolls at the end of the region.
func (s *Screen) index() {
	b := s.buf
	s.restrict(s.columns - 1)
	b.y++
	if b.y == b.bottom+1 {
		b.y--
		s.scroll(false)
	} else {
		b.y = min(b.y, s.rows-1)
	}
	s.restrict(s.columns - 1)
}

// reverseIndex goes up a row, and scrolls at the beginning of the region.
func (s *Screen) reverseIndex() {
	b := s.buf
	s.restrict(s.columns - 1)
	if b.y == b.top {
		s.shift(b.top, b.bottom, 1, s.eraseAttr())
		return
	}
	b.y--
	s.restrict(s.columns - 1)
}

func (s *Screen) backspace() {
	b := s.buf
	if !s.modes.reverseWrap {
		s.restrict(s.columns - 1)
		b.x = max(b.x-1, 0)
		return
	}
	s.restrict(s.columns)
	switch {
	case b.x > 0:
		b.x--
	case b.y > b.top && b.y <= b.bottom && s.row().wrapped:
		s.row().wrapped = false
		b.y--
		b.x = s.columns - 1
		if c := &s.row().cells[b.x]; c.width() > 0 && !c.hasContent() {
			b.x-- // left empty by a wide character that did not fit
		}
	}
	s.restrict(s.columns - 1)
}

func (s *Screen) saveCursor() {
	b := s.buf
	b.saved = savedCursor{b.x, s.base() + b.y, s.attr.fg, s.attr.bg, s.charset}
}

func (s *Screen) restoreCursor() {
	b := s.buf
	b.x, b.y = b.saved.x, max(b.saved.y-s.base(), 0)
	s.attr.fg, s.attr.bg = b.saved.fg, b.saved.bg
	s.charset = b.saved.charset
	s.restrict(s.columns - 1)
}

// Tabs.

func (b *buffer) setTab(x int) {
	b.tabbed = true
	b.addTab(x)
}

func (b *buffer) addTab(x int) {
	for len(b.tabs) <= x {
		b.tabs = append(b.tabs, false)
	}
	b.tabs[x] = true
}

func (b *buffer) hasTab(x int) bool { return x >= 0 && x < len(b.tabs) && b.tabs[x] }

// defaultTabs sets a tab at every eighth column from first on.
func (b *buffer) defaultTabs(columns, first int) {
	for x := first; x < columns; x += 8 {
		b.addTab(x)
	}
}

// widenTabs does so for columns that are new, or are not any more.
func (b *buffer) widenTabs(columns int) {
	first := columns
	if !b.hasTab(first) {
		first = b.previousTab(first, columns)
	}
	b.tabbed = true
	b.defaultTabs(columns, first)
}

func (b *buffer) nextTab(x, columns int) int {
	for x++; !b.hasTab(x) && x < columns; x++ {
	}
	return min(x, columns-1)
}

func (b *buffer) previousTab(x, columns int) int {
	for x--; !b.hasTab(x) && x > 0; x-- {
	}
	return min(max(x, 0), columns-1)
}
