package screen

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
