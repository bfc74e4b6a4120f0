package screen

import (
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Snapshot gives what a terminal of this size, newly reset, must be given to show the last
// lines of the scrollback, at most so many, and the screen, and to go on from there exactly:
// with the same modes, attributes, character sets, tabs, scroll regions and saved cursors,
// with the main screen behind the alternate one, and in the middle of a sequence or a
// character where the output so far ends in one.
//
// The terminal must be xterm.js, or do what it does; with others it looks the same, but for
// what they do not know.
func (s *Screen) Snapshot(scrollback int) []byte {
	s.solid()
	w := writer{s: s}
	w.out = append(w.out, "\x1b[20l"...) // a reset of xterm.js leaves it
	scrolled := s.scrolled(scrollback)
	w.main(scrolled)
	w.state(&s.main)
	if s.Alternate() {
		// Where the cursor was when it was left matters when the size changes.
		w.cursorTo(s.main.x, s.main.y)
		w.style(attr{})
		w.out = append(w.out, "\x1b[?47h\x1b[H"...)
		w.rows(s.alt.rows)
		w.state(&s.alt)
	} else if s.alt.saved != (savedCursor{}) {
		w.style(attr{})
		w.out = append(w.out, "\x1b[?47h"...)
		w.saved(&s.alt, 0)
		w.out = append(w.out, "\x1b[?47l"...)
	}
	w.modes()
	w.cursor()
	w.unfinished()
	return w.out
}

// writer writes a Snapshot. It keeps in mind how the terminal that will get it stands.
type writer struct {
	s       *Screen
	out     []byte
	attr    attr
	link    uint32 // the one that is open
	unsaved bool   // the saved cursor of the buffer was written over
	last    bool   // nothing may write over it any more
	dirty   []bool // the columns of the row that is being written where something is that must not stay
}

func (w *writer) printf(format string, args ...any) { w.out = fmt.Appendf(w.out, format, args...) }

// csi writes a sequence with one number.
func (w *writer) csi(n int, final byte) {
	w.out = append(w.out, "\x1b["...)
	w.out = strconv.AppendInt(w.out, int64(n), 10)
	w.out = append(w.out, final)
}

// cursorTo moves to a place of the screen. The origin is its corner.
func (w *writer) cursorTo(x, y int) {
	w.printf("\x1b[%d;%dH", y+1, min(x, w.s.columns-1)+1)
}

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

// erasable reports whether an empty cell is as erasing leaves it.
func erasable(c cell) bool { return c.fg == 0 && c.bg == c.bg&colorMask }

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

// style has what follows look so.
func (w *writer) style(a attr) {
	if a.bg&flagExtended == 0 {
		a.ext = 0
	}
	if a == w.attr {
		return
	}
	e := w.s.tables.extended.values[a.ext]
	w.attr = a
	if odd(a, e) && !w.last {
		w.oddStyle(a, e)
		return
	}
	w.open(e.link)
	w.sgr(a, e)
}

// odd reports whether colors and flags do not belong to what is beyond them. DECRC leads to
// that: it brings back the former, and leaves the latter as it is.
func odd(a attr, e extended) bool {
	return a.bg&flagExtended != 0 == e.empty() || a.fg&flagUnderline != 0 != (e.style != 0)
}

// open opens a link, or closes the one that is open.
func (w *writer) open(number uint32) {
	if number == w.link {
		return
	}
	w.link = number
	w.hyperlink(w.s.tables.links.values[number])
}

func (w *writer) hyperlink(l link) {
	w.out = append(w.out, "\x1b]8;"...)
	if l.id != "" {
		w.out = append(append(w.out, "id="...), l.id...)
	}
	w.out = append(append(append(w.out, ';'), l.uri...), "\x1b\\"...)
}

// sgr sets everything but the link.
func (w *writer) sgr(a attr, e extended) {
	w.out = append(w.out, "\x1b[0"...)
	flag := func(set uint32, code string) {
		if set != 0 {
			w.out = append(append(w.out, ';'), code...)
		}
	}
	flag(a.fg&flagBold, "1")
	flag(a.bg&flagDim, "2")
	flag(a.bg&flagItalic, "3")
	switch e.style {
	case 0:
	case 1:
		w.out = append(w.out, ";4"...)
	default:
		w.printf(";4:%d", e.style)
	}
	flag(a.fg&flagBlink, "5")
	flag(a.fg&flagInverse, "7")
	flag(a.fg&flagInvisible, "8")
	flag(a.fg&flagStrikethrough, "9")
	flag(a.bg&flagOverline, "53")
	w.color(a.fg, 30)
	w.color(a.bg, 40)
	switch c := e.color; c & colorMode {
	case color256, color16:
		w.printf(";58:5:%d", c&0xff)
	case colorRGB:
		w.printf(";58:2::%d:%d:%d", c>>16&0xff, c>>8&0xff, c&0xff)
	}
	w.out = append(w.out, 'm')
	if a.bg&flagProtected != 0 {
		w.out = append(w.out, "\x1b[1\"q"...)
	}
}

// color adds a color to a sequence: that of the foreground where base is 30, of the
// background where it is 40.
func (w *writer) color(c uint32, base int) {
	n := int(c & 0xff)
	switch c & colorMode {
	case color16:
		if n >= 8 {
			n += 60 - 8
		}
		w.printf(";%d", base+n)
	case color256:
		w.printf(";%d;5;%d", base+8, n)
	case colorRGB:
		w.printf(";%d;2;%d;%d;%d", base+8, c>>16&0xff, c>>8&0xff, n)
	}
}

// oddStyle sets an odd style, the way that it comes about.
func (w *writer) oddStyle(a attr, e extended) {
	w.save(a.fg, a.bg)
	w.sgr(attr{}, e)
	w.open(e.link)
	w.out = append(w.out, "\x1b8"...)
	w.attr, w.unsaved = a, true
}

// save saves the cursor where it is, with those colors and flags.
func (w *writer) save(fg, bg uint32) {
	var e extended
	if fg&flagUnderline != 0 {
		e.style = 1
	}
	w.open(0)
	linked := bg&flagExtended != 0 && e.style == 0
	if linked {
		w.hyperlink(link{uri: "-"})
	}
	w.sgr(attr{fg: fg, bg: bg}, e)
	w.out = append(w.out, "\x1b7"...)
	if linked {
		w.hyperlink(link{})
	}
	w.attr = unknown
}

// unknown is no attribute, so that the next is set anew.
var unknown = attr{fg: ^uint32(0)}

// state writes what belongs to one of the two buffers, which is the one that is shown.
func (w *writer) state(b *buffer) {
	s := w.s
	w.tabs(b)
	base := 0
	if b == &s.main {
		base = s.history.len()
	}
	w.saved(b, base)
	if b.top != 0 || b.bottom != s.rows-1 {
		w.printf("\x1b[%d;%dr", b.top+1, b.bottom+1)
	}
}

func (w *writer) tabs(b *buffer) {
	usual := true
	for x := range w.s.columns {
		usual = usual && b.hasTab(x) == (x%8 == 0)
	}
	if usual {
		return
	}
	w.out = append(w.out, "\x1b[3g"...)
	for x := range w.s.columns {
		if b.hasTab(x) {
			w.csi(x+1, 'G')
			w.out = append(w.out, "\x1bH"...)
		}
	}
}

// saved writes the saved cursor of a buffer. One that was never saved is at the corner.
func (w *writer) saved(b *buffer, base int) {
	c := b.saved
	if c == (savedCursor{}) && !w.unsaved {
		return
	}
	c.y = min(max(c.y-base, 0), w.s.rows-1)
	w.unsaved = false
	w.cursorTo(c.x, c.y)
	if c.charset != nil {
		w.printf("\x1b(%c", c.charset.final)
	}
	w.save(c.fg, c.bg)
	if c.charset != nil {
		w.out = append(w.out, "\x1b(B"...)
	}
}

// modes writes all modes, colors, the title and the character sets.
func (w *writer) modes() {
	s, m := w.s, &w.s.modes
	set := func(on bool, sequence string) {
		if on {
			w.out = append(w.out, sequence...)
		}
	}
	if s.titled {
		w.printf("\x1b]2;%s\x1b\\", s.title)
	}
	w.out = s.setColors(w.out)
	set(m.applicationCursor, "\x1b[?1h")
	set(m.applicationKeypad, "\x1b=")
	set(m.bracketedPaste, "\x1b[?2004h")
	set(m.focus, "\x1b[?1004h")
	set(m.reverseWrap, "\x1b[?45h")
	if m.keep.blink != 0 {
		w.printf("\x1b[?12%c", m.keep.blink)
	}
	if m.keep.mouse != 0 {
		w.printf("\x1b[?%dh", m.keep.mouse)
	}
	if m.keep.mouseEncoding != 0 {
		w.printf("\x1b[?%dh", m.keep.mouseEncoding)
	}
	if m.cursorStyle != 0 {
		w.printf("\x1b[%d q", m.cursorStyle)
	}
	if m.keep.hidden {
		w.out = append(w.out, "\x1b[?25l"...)
	} else {
		w.out = append(w.out, "\x1b[?25h"...)
	}
	set(m.origin, "\x1b[?6h")
}

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
