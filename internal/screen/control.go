package screen

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// execute does what a C0 or C1 control says.
func (s *Screen) execute(r rune) {
	b := s.buf
	s.join = 0
	switch r {
	case '\n', '\v', '\f':
		s.lineFeed()
	case '\r':
		b.x = 0
	case '\b':
		s.backspace()
	case '\t':
		if b.x < s.columns {
			b.x = b.nextTab(b.x, s.columns)
		}
	case 0x0e:
		s.setLevel(1)
	case 0x0f:
		s.setLevel(0)
	case 0x84:
		s.index()
	case 0x85:
		b.x = 0
		s.index()
	case 0x88:
		b.setTab(b.x)
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

// renew makes a row that was scrolled off a new one.
func (s *Screen) renew(l *line, fill attr, wrapped bool) {
	l.cut(s.columns) // of the alternate screen it may have more, see resize.go
	l.reset(fill, wrapped)
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

// Sequences that begin with ESC.

func (s *Screen) dispatchEscape(final rune) {
	if s.collect != 0 {
		s.selectCharset(byte(final))
		return
	}
	switch final {
	case '7':
		s.saveCursor()
	case '8':
		s.restoreCursor()
	case 'D':
		s.index()
	case 'E':
		s.buf.x = 0
		s.index()
	case 'H':
		s.buf.setTab(s.buf.x)
	case 'M':
		s.reverseIndex()
	case '=':
		s.modes.applicationKeypad = true
	case '>':
		s.modes.applicationKeypad = false
	case 'c':
		s.reset()
	case 'n', '}':
		s.setLevel(2)
	case 'o', '|':
		s.setLevel(3)
	case '~':
		s.setLevel(1)
	}
}

// selectCharset does what is selected with an intermediate.
func (s *Screen) selectCharset(final byte) {
	switch s.collect {
	case '#':
		if final == '8' {
			s.alignmentPattern()
		}
		return
	case '%':
		if final == '@' || final == 'G' {
			s.setLevel(0)
			s.designate(0, nil)
		}
		return
	}
	set, known := charsets[final]
	if !known {
		return
	}
	switch s.collect {
	case '(':
		s.designate(0, set)
	case ')', '-':
		s.designate(1, set)
	case '*', '.':
		s.designate(2, set)
	case '+':
		s.designate(3, set)
	}
}

func (s *Screen) setLevel(level int) { s.level, s.charset = level, s.sets[level] }

func (s *Screen) designate(level int, set *charset) {
	s.sets[level] = set
	if s.level == level {
		s.charset = set
	}
}

func (s *Screen) resetCharsets() { s.sets, s.level, s.charset = [4]*charset{}, 0, nil }

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

// alignmentPattern is DECALN: a screen full of E.
func (s *Screen) alignmentPattern() {
	s.moveTo(0, 0)
	a := attr{fg: s.attr.fg, bg: s.attr.bg} // without what is beyond flags
	first := s.buf.y
	if s.buf == &s.alt {
		first = 0
	}
	for _, l := range s.buf.rows[first:] {
		l.reset(a, false)
		l.all(put('E', 1, a))
	}
	s.moveTo(0, 0)
}

// reset is RIS.
func (s *Screen) reset() {
	s.attr, s.extended = attr{}, extended{}
	s.resetBuffers()
	s.resetCharsets()
	s.guarding = false
	keep := s.modes.keep
	keep.mouse, keep.mouseEncoding = 0, 0
	s.modes = modes{keep: keep}
	s.tables.reset()
}

// softReset is DECSTR.
func (s *Screen) softReset() {
	b := s.buf
	b.top, b.bottom = 0, s.rows-1
	s.attr, s.extended = attr{}, extended{}
	s.modes = modes{keep: s.modes.keep}
	s.modes.keep.hidden = false
	s.resetCharsets()
	b.saved = savedCursor{y: s.base()}
}

// Sequences that begin with CSI.

// sequence names a CSI sequence by what it is collected of.
func sequence(collected string, final byte) (key uint32) {
	for i := range len(collected) {
		key = key<<8 | uint32(collected[i])
	}
	return key<<8 | uint32(final)
}

func (s *Screen) dispatchCSI(final rune) {
	if s.collect != 0 {
		if s.collect < 1<<16 {
			s.dispatchPrivate(s.collect<<8 | uint32(final))
		}
		return
	}
	b, p := s.buf, &s.params
	n := p.get(0, 1)
	switch final {
	case '@':
		s.restrict(s.columns - 1)
		s.row().insert(b.x, n, s.eraseAttr())
	case 'A':
		s.up(n)
	case 'B':
		s.down(n)
	case 'C', 'a':
		s.moveBy(n, 0)
	case 'D':
		s.moveBy(-n, 0)
	case 'E':
		s.down(n)
		b.x = 0
	case 'F':
		s.up(n)
		b.x = 0
	case 'G', '`':
		s.moveTo(n-1, b.y)
	case 'H', 'f':
		s.moveTo(p.get(1, 1)-1, n-1)
	case 'I':
		for n = min(n, s.columns); n > 0 && b.x < s.columns; n-- {
			before := b.x
			if b.x = b.nextTab(b.x, s.columns); b.x == before {
				break
			}
		}
	case 'Z':
		for n = min(n, s.columns); n > 0 && b.x > 0 && b.x < s.columns; n-- {
			b.x = b.previousTab(b.x, s.columns)
		}
	case 'J':
		s.eraseDisplay(false)
	case 'K':
		s.eraseLine(false)
	case 'L':
		s.insertLines(n)
	case 'M':
		s.insertLines(-n)
	case 'P':
		s.restrict(s.columns - 1)
		s.row().remove(b.x, n, s.eraseAttr())
	case 'S':
		s.shift(b.top, b.bottom, -n, s.eraseAttr())
	case 'T':
		s.shift(b.top, b.bottom, n, attr{})
	case 'X':
		s.restrict(s.columns - 1)
		s.row().replace(b.x, b.x+min(n, s.columns), s.eraseAttr(), false)
	case 'b':
		s.repeat(n)
	case 'c':
		if p.value[0] == 0 {
			s.answer("\x1b[?1;2c")
		}
	case 'd':
		s.moveTo(b.x, n-1)
	case 'e':
		s.moveBy(0, n)
	case 'g':
		switch p.value[0] {
		case 0:
			if b.hasTab(b.x) {
				b.tabs[b.x], b.tabbed = false, true
			}
		case 3:
			b.tabs, b.tabbed = b.tabs[:0], true
		}
	case 'h', 'l':
		for _, m := range p.value[:p.n] {
			switch m {
			case 4:
				s.modes.insert = final == 'h'
			case 20:
				s.modes.keep.newline = final == 'h'
			}
		}
	case 'm':
		s.style()
	case 'n':
		switch p.value[0] {
		case 5:
			s.answer("\x1b[0n")
		case 6:
			s.answer(fmt.Sprintf("\x1b[%d;%dR", b.y+1, min(b.x+1, s.columns)))
		}
	case 'r':
		s.scrollRegion()
	case 's':
		s.saveCursor()
	case 'u':
		s.restoreCursor()
	}
}

// Sequences with a prefix or an intermediate.
var (
	scrollLeft     = sequence(" ", '@')
	scrollRight    = sequence(" ", 'A')
	cursorStyle    = sequence(" ", 'q')
	selectiveED    = sequence("?", 'J')
	selectiveEL    = sequence("?", 'K')
	setPrivate     = sequence("?", 'h')
	resetPrivate   = sequence("?", 'l')
	privateStatus  = sequence("?", 'n')
	secondaryDA    = sequence(">", 'c')
	version        = sequence(">", 'q')
	softReset      = sequence("!", 'p')
	insertColumns  = sequence("'", '}')
	deleteColumns  = sequence("'", '~')
	protect        = sequence("\"", 'q')
	requestMode    = sequence("$", 'p')
	requestPrivate = sequence("?$", 'p')
)

func (s *Screen) dispatchPrivate(key uint32) {
	b, p := s.buf, &s.params
	n := p.get(0, 1)
	switch key {
	case setPrivate, resetPrivate:
		for _, m := range p.value[:p.n] {
			s.setMode(int(m), key == setPrivate)
		}
	case selectiveED:
		s.eraseDisplay(true)
	case selectiveEL:
		s.eraseLine(true)
	case scrollLeft:
		s.columnsOfRegion(func(l *line) { l.remove(0, n, s.eraseAttr()) })
	case scrollRight:
		s.columnsOfRegion(func(l *line) { l.insert(0, n, s.eraseAttr()) })
	case insertColumns:
		s.columnsOfRegion(func(l *line) { l.insert(b.x, n, s.eraseAttr()) })
	case deleteColumns:
		s.columnsOfRegion(func(l *line) { l.remove(b.x, n, s.eraseAttr()) })
	case cursorStyle:
		if style := int(p.value[0]); style <= 6 {
			s.modes.cursorStyle = style
		}
	case protect:
		switch p.value[0] {
		case 1:
			s.attr.bg |= flagProtected
			s.guarding = true
		case 0, 2:
			s.attr.bg &^= flagProtected
		}
	case softReset:
		s.softReset()
	case privateStatus:
		if p.value[0] == 6 {
			s.answer(fmt.Sprintf("\x1b[?%d;%dR", b.y+1, min(b.x+1, s.columns)))
		}
	case secondaryDA:
		if p.value[0] == 0 {
			s.answer("\x1b[>0;276;0c")
		}
	case version:
		if p.value[0] == 0 {
			s.answer("\x1bP>|telexec\x1b\\")
		}
	case requestMode:
		s.answer(fmt.Sprintf("\x1b[%d;%d$y", p.value[0], s.mode(int(p.value[0]))))
	case requestPrivate:
		s.answer(fmt.Sprintf("\x1b[?%d;%d$y", p.value[0], s.privateMode(int(p.value[0]))))
	}
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

func (s *Screen) scrollRegion() {
	p := &s.params
	top, bottom := p.get(0, 1), p.get(1, s.rows)
	bottom = min(bottom, s.rows)
	if bottom > top {
		s.buf.top, s.buf.bottom = top-1, bottom-1
		s.moveTo(0, 0)
	}
}

// setMode sets or resets a private mode.
func (s *Screen) setMode(mode int, on bool) {
	m := &s.modes
	switch mode {
	case 1:
		m.applicationCursor = on
	case 2:
		if on {
			s.sets, s.charset = [4]*charset{}, nil
		}
	case 6:
		m.origin = on
		s.moveTo(0, 0)
	case 7:
		m.noWrap = !on
	case 12:
		m.keep.blink = 'l'
		if on {
			m.keep.blink = 'h'
		}
	case 45:
		m.reverseWrap = on
	case 66:
		m.applicationKeypad = on
	case 9, 1000, 1002, 1003:
		m.keep.mouse = 0
		if on {
			m.keep.mouse = mode
		}
	case 1004:
		m.focus = on
	case 1006, 1016:
		m.keep.mouseEncoding = 0
		if on {
			m.keep.mouseEncoding = mode
		}
	case 25:
		m.keep.hidden = !on
	case 1048:
		if on {
			s.saveCursor()
		} else {
			s.restoreCursor()
		}
	case 47, 1047, 1049:
		if on {
			if mode == 1049 {
				s.saveCursor()
			}
			s.showAlternate()
			return
		}
		s.showMain()
		if mode == 1049 {
			s.restoreCursor()
		}
	case 2004:
		m.bracketedPaste = on
	case 2026:
		m.synchronized = on
	}
}

func (s *Screen) showAlternate() {
	if s.buf == &s.alt {
		return
	}
	s.alt.lines(s.columns, s.rows, s.eraseAttr())
	s.alt.x, s.alt.y = s.main.x, s.main.y
	s.buf = &s.alt
}

func (s *Screen) showMain() {
	if s.buf == &s.main {
		return
	}
	s.main.x, s.main.y = s.alt.x, s.alt.y
	s.alt.clear(s.columns, s.rows)
	s.buf = &s.main
}

// What DECRQM is told of a mode.
const (
	modeUnknown = iota
	modeSet
	modeReset
	modeAlwaysSet
	modeAlwaysReset
)

func modeIs(set bool) int {
	if set {
		return modeSet
	}
	return modeReset
}

func (s *Screen) mode(mode int) int {
	switch mode {
	case 2:
		return modeAlwaysReset
	case 4:
		return modeIs(s.modes.insert)
	case 12:
		return modeAlwaysSet
	case 20:
		return modeIs(s.modes.keep.newline)
	}
	return modeUnknown
}

func (s *Screen) privateMode(mode int) int {
	m := &s.modes
	switch mode {
	case 1:
		return modeIs(m.applicationCursor)
	case 6:
		return modeIs(m.origin)
	case 7:
		return modeIs(!m.noWrap)
	case 8, 1048:
		if mode == 8 {
			return modeAlwaysSet
		}
		return modeSet
	case 12:
		return modeIs(m.keep.blink == 'h')
	case 25:
		return modeIs(!m.keep.hidden)
	case 45:
		return modeIs(m.reverseWrap)
	case 66:
		return modeIs(m.applicationKeypad)
	case 67, 1005, 1015:
		return modeAlwaysReset
	case 9, 1000, 1002, 1003:
		return modeIs(m.keep.mouse == mode)
	case 1004:
		return modeIs(m.focus)
	case 1006, 1016:
		return modeIs(m.keep.mouseEncoding == mode)
	case 47, 1047, 1049:
		return modeIs(s.Alternate())
	case 2004:
		return modeIs(m.bracketedPaste)
	case 2026:
		return modeIs(m.synchronized)
	}
	return modeUnknown
}
