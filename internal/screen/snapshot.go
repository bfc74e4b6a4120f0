package screen

import (
	"fmt"
	"strconv"
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
