package screen

// A cell has 16 bytes: what is in it, and how it looks. The layout of the bits is that of
// xterm.js, so that what holds there can be said of both.

// attr is how a cell looks, and how what is printed next will.
type attr struct {
	fg, bg uint32 // a color with its mode, and flags
	ext    uint32 // underline and link, see extended; counts only where bg has flagExtended
}

// Of a color: its mode, and in the lower bits a number of the palette or red, green, blue.
const (
	colorMode    = 0x3000000
	colorDefault = 0x0000000
	color16      = 0x1000000
	color256     = 0x2000000
	colorRGB     = 0x3000000
	colorMask    = 0x3ffffff // the mode and the color
)

// Flags beside the foreground.
const (
	flagInverse       = 0x04000000
	flagBold          = 0x08000000
	flagUnderline     = 0x10000000
	flagBlink         = 0x20000000
	flagInvisible     = 0x40000000
	flagStrikethrough = 0x80000000
)

// Flags beside the background.
const (
	flagItalic    = 0x04000000
	flagDim       = 0x08000000
	flagExtended  = 0x10000000
	flagProtected = 0x20000000
	flagOverline  = 0x40000000
)

// extended is what few cells have.
type extended struct {
	style uint32 // of the underline, 0 (none) to 5
	color uint32 // of the underline
	link  uint32 // number of an OSC 8 link; 0 is none
}

// empty is what xterm.js calls so: a color alone is no reason to keep it.
func (e extended) empty() bool { return e.style == 0 && e.link == 0 }

// link is an OSC 8 link.
type link struct{ id, uri string }

// cell is one position of a line. A wide character has two: the second has the width 0 and
// nothing in it.
type cell struct {
	content uint32 // a code point, or a number of tables.combined; and the width
	attr
}

const (
	codeMask     = 0x1fffff // of a code point; 0 is an empty cell
	flagCombined = 0x200000 // the code is a number of tables.combined
	contentMask  = codeMask | flagCombined
	widthShift   = 22
)

// blank is a cell that nothing was printed to.
var blank = cell{content: 1 << widthShift}

func (c *cell) width() int       { return int(c.content >> widthShift) }
func (c *cell) hasContent() bool { return c.content&contentMask != 0 }

// half reports whether it is the second one of a wide character.
func (c *cell) half() bool { return c.content == 0 }

// pair reports whether cell i begins a wide character that has its second half.
func pair(cells []cell, i int) bool {
	return i >= 0 && i+1 < len(cells) && cells[i].width() == 2 && cells[i+1].half()
}

// shown gives cell i as it is shown: half of a wide character without the other is empty.
func shown(cells []cell, i int) cell {
	c := cells[i]
	if c.width() == 2 && !pair(cells, i) || c.half() && !pair(cells, i-1) {
		return put(0, 1, c.attr)
	}
	return c
}

func put(code uint32, width int, a attr) cell {
	if a.bg&flagExtended == 0 {
		a.ext = 0
	}
	return cell{code | uint32(width)<<widthShift, a}
}

// line is a row of the screen, or a line of the scrollback that is being looked at.
//
// What fills a whole line, as a few bytes do to all of a screen, only says so: the cells
// are written when one of them is asked for.
type line struct {
	cells   []cell
	used    int  // behind it all cells are blank
	even    bool // all cells are tint; what is written in them does not count, see solid
	tint    cell
	wrapped bool     // it goes on with what did not fit the line above
	marks   []string // commands that begin here
	packed  []byte   // of a line of the scrollback, until its cells are asked for; see history
}

func newLine(columns int, fill attr, wrapped bool) *line {
	l := &line{cells: make([]cell, columns)}
	for i := range l.cells {
		l.cells[i] = blank
	}
	if l.wrapped = wrapped; fill != (attr{}) {
		l.all(put(0, 1, fill))
	}
	return l
}

// solid writes the cells, where that was put off.
func (l *line) solid() *line {
	if l.even {
		l.write()
	}
	return l
}

func (l *line) write() {
	l.even = false
	cells := l.cells
	if l.tint == blank {
		cells = cells[:l.used]
	}
	for i := range cells {
		cells[i] = l.tint
	}
	l.used = len(l.cells)
	if l.tint == blank {
		l.used = 0
	}
}

// all makes all cells c, which is one wide.
func (l *line) all(c cell) { l.even, l.tint = true, c }

// cut takes the cells behind so many columns away.
func (l *line) cut(columns int) {
	if len(l.cells) > columns {
		l.cells = l.cells[:columns]
		l.used = min(l.used, columns)
	}
}

// reset makes all cells empty, with an attribute.
func (l *line) reset(fill attr, wrapped bool) {
	l.all(put(0, 1, fill))
	l.wrapped, l.marks = wrapped, nil
}

// set is what all writing goes through, but for text. Positions behind the line are left
// out: a character without a width may stand there.
func (l *line) set(i int, c cell) {
	if i >= len(l.cells) {
		return
	}
	l.cells[i] = c
	l.used = max(l.used, i+1)
}

// widthAt is the width of a cell; 0 behind the line.
func (l *line) widthAt(i int) int {
	if i >= len(l.cells) {
		return 0
	}
	return l.cells[i].width()
}

// insert moves the cells from pos on to the right, and fills the n that are free then.
func (l *line) insert(pos, n int, fill attr) {
	length, c := len(l.cells), put(0, 1, fill)
	if l.even && l.tint == c {
		return
	}
	l.solid()
	pos %= length
	if pos > 0 && l.cells[pos-1].width() == 2 {
		l.set(pos-1, c)
	}
	if pos >= l.used && c == blank {
		return
	}
	n = min(n, length-pos)
	copy(l.cells[pos+n:], l.cells[pos:max(pos, l.used)])
	for i := pos; i < pos+n; i++ {
		l.cells[i] = c
	}
	l.used = min(length, max(l.used, pos)+n)
	if l.cells[length-1].width() == 2 {
		l.set(length-1, c)
	}
}

// remove moves the cells behind pos+n to the left, and fills those that are free then.
func (l *line) remove(pos, n int, fill attr) {
	length, c := len(l.cells), put(0, 1, fill)
	if l.even && l.tint == c {
		return
	}
	l.solid()
	pos %= length
	n = min(n, length-pos)
	if c != blank {
		l.used = length
	}
	if pos < l.used { // behind, all is blank and stays so
		used := l.cells[:l.used]
		left := pos + copy(used[pos:], used[min(pos+n, l.used):])
		for i := left; i < l.used; i++ {
			used[i] = c
		}
		if c == blank {
			l.used = left
		}
	}
	if pos > 0 && l.cells[pos-1].width() == 2 {
		l.set(pos-1, c)
	}
	if l.cells[pos].half() {
		l.set(pos, c)
	}
}

// replace fills the cells from start up to end; protected ones are spared where keep says so.
func (l *line) replace(start, end int, fill attr, keep bool) {
	length, c := len(l.cells), put(0, 1, fill)
	if start <= 0 && end >= length && !keep || l.even && l.tint == c {
		l.all(c)
		return
	}
	l.solid()
	protected := func(i int) bool { return keep && i < length && l.cells[i].bg&flagProtected != 0 }
	if start > 0 && l.widthAt(start-1) == 2 && !protected(start-1) {
		l.set(start-1, c)
	}
	if end < length && end > 0 && l.widthAt(end-1) == 2 && !protected(end) {
		l.set(end, c)
	}
	end = min(end, length)
	if c == blank && !keep && end >= l.used {
		// The end of the line: what is blank already stays so.
		for i := start; i < l.used; i++ {
			l.cells[i] = c
		}
		l.used = min(l.used, max(start, 0))
		return
	}
	for i := start; i < end; i++ {
		if !protected(i) {
			l.cells[i] = c
		}
	}
	if start < end {
		l.used = max(l.used, end)
	}
}

// fill is replace for a whole line.
func (l *line) fill(a attr, keep bool) {
	if keep {
		l.replace(0, len(l.cells), a, true)
		l.wrapped, l.marks = false, nil
		return
	}
	l.reset(a, false)
}

// trimmed is the length of a line without the empty cells at its end, whatever their color.
func (l *line) trimmed() int {
	l.solid()
	for i := min(l.used, len(l.cells)) - 1; i >= 0; i-- {
		if l.cells[i].hasContent() {
			return i + l.cells[i].width()
		}
	}
	return 0
}
