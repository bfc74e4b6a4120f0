package screen

import "fmt"

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
