// Package screen keeps the state of a terminal: what somebody who comes late must be given
// to see the exact screen first, and then what happens.
//
//	output ──▶ Write ──▶ Screen ──▶ Snapshot ──▶ a terminal that was newly reset
//	                        ├─────▶ Lines, Row, LineToCursor: as text
//	                        └─────▶ Answers: what the terminal would send back
//
// The reference is xterm.js 6, which the web UI shows terminals with: Screen does what it
// does with every sequence, so that whoever gets a Snapshot sees what those see who were
// there from the beginning, cell by cell, and goes on seeing it. Tests feed both, and
// compare. Package x/ansi and the emulators on it are not used, for they differ in what
// xterm.js makes of broken sequences, of widths and of wrapping.
//
// Start with Screen. parser.go takes bytes apart, control.go and style.go do what sequences
// say (with cursor.go, scroll.go, erase.go, mode.go and charset.go), print.go writes
// characters, history.go keeps the scrollback packed, resize.go lays lines out anew,
// snapshot.go writes it all down: redraw.go what is to be seen, restyle.go how it looks,
// resume.go where it goes on. It is longer than most rooms, for a
// terminal has that many sequences, and there is no line to cut it along that would not
// have all of its state on both sides.
//
// What differs from xterm.js, knowingly: a cell keeps at most 128 bytes that combine;
// REP repeats at most 4,096 times, and what combines fewer where nothing wraps; a title or link longer than 64 KiB is passed over; the
// scrollback ends also where its lines take more than 1 KiB each on the average. A half of a
// wide character that was left behind without the other, as inserting in its middle does,
// comes as a blank in a Snapshot. OSC 52 (clipboard) does nothing here and is in no
// Snapshot.
package screen

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of New and Resize.
const (
	minColumns = 2
	maxColumns = 1000
	maxRows    = 500
)

// Screen is a terminal without a window. It is for one goroutine at a time.
type Screen struct {
	columns, rows int
	main, alt     buffer
	buf           *buffer // one of the two
	history       history // of main
	widths        *[0x10000]uint8

	// The parser, see there.
	state    state
	params   params
	collect  uint32 // prefix and intermediates
	held     [3]byte
	nheld    int    // bytes of a character that is not complete
	number   int    // of an OSC, or what a DCS is
	numbered bool   // the number of the OSC is complete
	refused  bool   // it is no number
	tooLong  bool   // the payload is, and was dropped
	body     []byte // payload so far
	join     int    // width of the character that was printed just now, 0 for none: what a combining one joins

	// How things are printed.
	attr     attr
	extended extended // what attr.ext is the number of
	sets     [4]*charset
	level    int
	charset  *charset // the one in use: DECRC may have another than sets[level]
	modes    modes
	guarding bool // something may be protected since the last reset

	tables tables // what cells have numbers of

	title   string
	titled  bool          // it was set, be it to nothing
	colors  map[uint8]rgb // of the palette, as far as they were set
	special [3]*rgb       // foreground, background, cursor, as far as they were set
	answers []byte
}

// modes are what programs switch. A reset sets those to their defaults that are above keep.
type modes struct {
	insert, applicationCursor, applicationKeypad, bracketedPaste bool
	origin, reverseWrap, focus, synchronized, noWrap             bool
	cursorStyle                                                  int // as DECSCUSR has it, 0 is the viewer's own

	keep keptModes
}

// keptModes outlast RIS and DECSTR in xterm.js, as far as those do not say otherwise.
type keptModes struct {
	newline, hidden bool
	blink           byte // of mode 12: 0 where nobody said, 'h' or 'l'
	mouse           int  // 9, 1000, 1002 or 1003; 0 is none
	mouseEncoding   int  // 1006 or 1016; 0 is the default
}

// buffer is the screen proper, of which there are two: the alternate one has no scrollback.
type buffer struct {
	rows        []*line
	spare       []*line // of the alternate screen while it is away, for its return at the same size
	room        []*line // rows are a window on it that slides, see roll
	x, y        int     // x may be columns: the next character wraps
	top, bottom int     // scroll region, both included
	tabs        []bool
	tabbed      bool // tabs are not those that there are at first

	saved savedCursor
}

// savedCursor is what DECSC keeps.
type savedCursor struct {
	x       int
	y       int // counted from the first line of the scrollback, so that it moves with what is there
	fg, bg  uint32
	charset *charset
}

// New makes a terminal of that size with nothing on it, which keeps so many lines of
// scrollback.
func New(columns, rows, scrollback int) *Screen {
	s := &Screen{widths: basicWidths()}
	s.columns, s.rows = clampSize(columns, rows)
	s.history.limit = max(scrollback, 0)
	s.tables = newTables()
	s.params.reset()
	s.main.tabbed, s.alt.tabbed = true, true
	s.resetBuffers()
	return s
}

func clampSize(columns, rows int) (int, int) {
	return min(max(columns, minColumns), maxColumns), min(max(rows, 1), maxRows)
}

// resetBuffers makes both buffers empty.
func (s *Screen) resetBuffers() {
	s.history.clear()
	for _, b := range []*buffer{&s.main, &s.alt} {
		b.saved = savedCursor{}
		b.clear(s.columns, s.rows)
	}
	s.main.lines(s.columns, s.rows, attr{})
	s.buf = &s.main
}

// clear takes everything from b but the saved cursor. The memory of its lines is for those
// that it gets next: programs come here by two bytes.
func (b *buffer) clear(columns, rows int) {
	if b.rows != nil {
		b.rows, b.spare = nil, b.rows
	}
	b.x, b.y, b.top, b.bottom = 0, 0, 0, rows-1
	if b.tabbed {
		b.tabs, b.tabbed = b.tabs[:0], false
		b.defaultTabs(columns, 0)
	}
}

// lines gives b empty lines where it has none.
func (b *buffer) lines(columns, rows int, fill attr) {
	if b.rows != nil {
		return
	}
	if len(b.spare) == rows {
		b.rows, b.spare = b.spare, nil
		for _, l := range b.rows {
			l.cut(columns)
			l.reset(fill, false)
		}
		return
	}
	b.spare, b.room = nil, nil
	b.rows = make([]*line, rows)
	for i := range b.rows {
		b.rows[i] = newLine(columns, fill, false)
	}
}

// base is how many lines of scrollback stand before the rows of the active buffer.
func (s *Screen) base() int {
	if s.buf == &s.main {
		return s.history.len()
	}
	return 0
}

// row is the cursor's.
func (s *Screen) row() *line { return s.buf.rows[s.buf.y].solid() }

// solid writes the cells of all rows, where that was put off.
func (s *Screen) solid() {
	for _, b := range []*buffer{&s.main, &s.alt} {
		for _, l := range b.rows {
			l.solid()
		}
	}
}

// eraseAttr is how cells look that are erased.
func (s *Screen) eraseAttr() attr { return attr{bg: s.attr.bg & colorMask} }

// Size is the size in characters.
func (s *Screen) Size() (columns, rows int) { return s.columns, s.rows }

// Cursor is where the cursor is, counted from 0; its column is always on the screen.
func (s *Screen) Cursor() (row, column int) { return s.buf.y, min(s.buf.x, s.columns-1) }

// Alternate reports whether a full-screen program has the screen.
func (s *Screen) Alternate() bool { return s.buf == &s.alt }

// Title is what programs call the window.
func (s *Screen) Title() string { return s.title }

// ApplicationCursor reports whether cursor keys are to send ESC O instead of ESC [.
func (s *Screen) ApplicationCursor() bool { return s.modes.applicationCursor }

// BracketedPaste reports whether what is pasted is to be wrapped in ESC [ 200~ and 201~.
func (s *Screen) BracketedPaste() bool { return s.modes.bracketedPaste }

// Answers takes what the terminal would have sent back since the last call: answers to DA,
// DSR and other queries. Nobody needs to call it: it keeps the first 64 KiB.
func (s *Screen) Answers() []byte {
	a := s.answers
	s.answers = nil
	return a
}

func (s *Screen) answer(a string) {
	if len(s.answers)+len(a) <= 64<<10 {
		s.answers = append(s.answers, a...)
	}
}

// Row is the text of row n of the screen, without spaces at its end.
func (s *Screen) Row(n int) string {
	if n < 0 || n >= s.rows {
		return ""
	}
	return s.text(s.buf.rows[n], s.columns)
}

// Lines gives the screen as text, without spaces at the ends of lines, behind up to so many
// lines of scrollback; scrolled is how many of those there are. A full-screen program has no
// scrollback.
func (s *Screen) Lines(scrollback int) (lines []string, scrolled int) {
	scrolled = min(max(scrollback, 0), s.base())
	lines = make([]string, 0, scrolled+s.rows)
	for i := s.base() - scrolled; i < s.base(); i++ {
		lines = append(lines, s.text(s.history.line(s, i), s.columns))
	}
	for _, l := range s.buf.rows {
		lines = append(lines, s.text(l, s.columns))
	}
	return lines, scrolled
}

// logicalRows is how many rows a logical line is followed upwards: a command line is not
// longer, and output may be.
const logicalRows = 500

// LineToCursor is the text of the cursor's line up to the cursor. Rows that were wrapped
// are one line.
func (s *Screen) LineToCursor() string {
	b, base := s.buf, s.base()
	at := func(i int) *line {
		if i < base {
			return s.history.line(s, i)
		}
		return b.rows[i-base].solid()
	}
	last := base + b.y
	first := last
	for first > 0 && last-first < logicalRows && at(first).wrapped {
		first--
	}
	var text strings.Builder
	for i := first; i < last; i++ {
		row := at(i)
		end := s.columns
		if next := at(i + 1); len(row.cells) < s.columns || !row.cells[end-1].hasContent() && row.cells[end-1].width() == 1 && next.widthAt(0) == 2 {
			end-- // a wide character did not fit
		}
		text.WriteString(s.textTo(row, end))
	}
	text.WriteString(s.textTo(at(last), min(b.x, s.columns)))
	return text.String()
}

// text is the text of the first columns of a line, without spaces at its end.
func (s *Screen) text(l *line, columns int) string {
	return strings.TrimRight(s.textTo(l, min(columns, l.solid().used)), " ")
}

// textTo is the text of the first columns of a line.
func (s *Screen) textTo(l *line, columns int) string {
	text := make([]byte, 0, columns)
	cells := l.cells[:min(len(l.cells), columns)]
	for i := 0; i < columns; i++ {
		var c cell
		if i < len(cells) {
			c = shown(cells, i)
		}
		if !c.hasContent() {
			text = append(text, ' ')
			continue
		}
		text = s.appendContent(text, &c)
		if c.width() == 2 {
			i++
		}
	}
	return string(text)
}

// appendContent appends the characters of a cell.
func (s *Screen) appendContent(b []byte, c *cell) []byte {
	code := c.content & codeMask
	if c.content&flagCombined != 0 {
		return append(b, s.tables.combined.values[code]...)
	}
	return utf8.AppendRune(b, rune(code))
}

// Mark is where a command begins.
type Mark struct {
	ID   string
	Line int // 0 is the first line of what Snapshot sends
}

// marksPerLine is how many commands may begin in one line; of more, the last count.
const marksPerLine = 16

// Mark says that the cursor's line begins the command id. It stays with the line, until
// that is erased or falls off the scrollback. While a full-screen program has the screen it
// is the line that will be the cursor's again.
func (s *Screen) Mark(id string) {
	l := s.main.rows[min(s.main.y, s.rows-1)]
	if len(l.marks) == marksPerLine {
		l.marks = l.marks[1:]
	}
	l.marks = append(slices.Clip(l.marks), id)
}

// Marks gives the marks of what Snapshot sends for the same argument, from above.
func (s *Screen) Marks(scrollback int) []Mark {
	var marks []Mark
	length := s.history.len()
	first := length - s.scrolled(scrollback)
	for i := first; i < length; i++ {
		for _, id := range s.history.at(i).marks {
			marks = append(marks, Mark{id, i - first})
		}
	}
	for i, l := range s.main.rows {
		for _, id := range l.marks {
			marks = append(marks, Mark{id, length - first + i})
		}
	}
	return marks
}

// scrolled is how many lines of scrollback there are for somebody who wants so many.
func (s *Screen) scrolled(scrollback int) int { return min(max(scrollback, 0), s.history.len()) }
