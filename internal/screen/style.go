package screen

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// rgb is a color.
type rgb [3]uint8

// table gives things numbers, so that a cell can have one of them in few bits. Number 0 is
// the zero value.
type table[T comparable] struct {
	values  []T
	numbers map[T]uint32
}

func newTable[T comparable]() table[T] {
	var zero T
	return table[T]{[]T{zero}, map[T]uint32{zero: 0}}
}

// tables has what cells have numbers of.
type tables struct {
	extended table[extended]
	combined table[string] // the characters of cells that have several
	links    table[link]
	bytes    int // about what they take
	limit    int // from there on it is looked for what no cell has any more
	asked    int // how often since that was done
}

// How much the tables may take before it is looked for what no cell has any more, at most
// once in so many new things, for all cells are gone through; and at all: what is new then
// is shown without.
const (
	tablesStart = 1 << 20
	tablesMost  = 16 << 20
	sweepEvery  = 4096
	entryBytes  = 64
)

// reset forgets everything.
func (ts *tables) reset() {
	ts.extended.reset()
	ts.combined.reset()
	ts.links.reset()
	ts.bytes, ts.limit, ts.asked = 0, tablesStart, 0
}

// reset leaves number 0. What has grown is not kept: making a large map empty takes as long
// as it is large.
func (t *table[T]) reset() {
	const few = 64
	var zero T
	switch n := len(t.values); {
	case n == 1:
	case n <= few:
		for _, v := range t.values[1:] {
			delete(t.numbers, v)
		}
		clear(t.values[1:])
		t.values = t.values[:1]
	default:
		*t = table[T]{[]T{zero}, map[T]uint32{zero: 0}}
	}
}

func newTables() tables {
	return tables{extended: newTable[extended](), combined: newTable[string](), links: newTable[link](), limit: tablesStart}
}

// number gives the number of v in one of the tables of ts; ok is false where there is no
// room for it.
func number[T comparable](ts *tables, t *table[T], v T, length int) (n uint32, ok bool) {
	if n, ok = t.numbers[v]; ok {
		return n, true
	}
	if ts.bytes > tablesMost {
		return 0, false
	}
	ts.bytes += entryBytes + length
	n = uint32(len(t.values))
	t.values = append(t.values, v)
	t.numbers[v] = n
	return n, true
}

func (ts *tables) combination(text string) (uint32, bool) {
	return number(ts, &ts.combined, text, len(text))
}

func (ts *tables) style(e extended) uint32 {
	n, _ := number(ts, &ts.extended, e, 0)
	return n
}

func (ts *tables) link(l link) uint32 {
	n, _ := number(ts, &ts.links, l, len(l.id)+len(l.uri))
	return n
}

// setExtended sets what follows is underlined with, or linked to. The flag is another matter.
func (s *Screen) setExtended(e extended) {
	s.extended = e
	s.sweep()
	s.attr.ext = s.tables.style(s.extended)
}

// sweep gives all cells new numbers once there are too many, so that what is not used any
// more is forgotten.
func (s *Screen) sweep() {
	old := &s.tables
	if old.asked++; old.bytes < old.limit || old.asked < sweepEvery {
		return
	}
	ts := newTables()
	renew := func(e extended) extended {
		if e.link != 0 {
			e.link = ts.link(old.links.values[e.link])
		}
		return e
	}
	each := func(cells []cell) {
		for i := range cells {
			c := &cells[i]
			if c.ext != 0 {
				c.ext = ts.style(renew(old.extended.values[c.ext]))
			}
			if c.content&flagCombined != 0 {
				n, _ := ts.combination(old.combined.values[c.content&codeMask])
				c.content = c.content&^codeMask | n
			}
		}
	}
	s.rewrite(each)
	for _, b := range []*buffer{&s.main, &s.alt} {
		for _, l := range b.rows {
			if !l.even { // else what is in the cells is of no table any more
				each(l.cells[:l.used])
			}
		}
	}
	s.extended = renew(s.extended)
	s.attr.ext = ts.style(s.extended)
	ts.limit = max(tablesStart, 2*ts.bytes)
	s.tables = ts
}

// updateExtended sets the flag that says that there is something beyond colors and flags.
func (s *Screen) updateExtended() {
	if s.extended.empty() {
		s.attr.bg &^= flagExtended
	} else {
		s.attr.bg |= flagExtended
	}
}

// style is SGR.
func (s *Screen) style() {
	p, a := &s.params, &s.attr
	for i := 0; i < p.n; i++ {
		switch v := uint32(p.value[i]); v {
		case 0:
			a.fg, a.bg = 0, 0
			if s.extended != (extended{link: s.extended.link}) {
				s.setExtended(extended{link: s.extended.link})
			}
			s.updateExtended()
		case 1:
			a.fg |= flagBold
		case 2:
			a.bg |= flagDim
		case 3:
			a.bg |= flagItalic
		case 4:
			style := int32(1)
			if subs := p.subs(i); len(subs) > 0 {
				style = subs[0]
			}
			s.underline(style)
		case 5:
			a.fg |= flagBlink
		case 7:
			a.fg |= flagInverse
		case 8:
			a.fg |= flagInvisible
		case 9:
			a.fg |= flagStrikethrough
		case 21:
			s.underline(2)
		case 22:
			a.fg &^= flagBold
			a.bg &^= flagDim
		case 23:
			a.bg &^= flagItalic
		case 24:
			s.underline(0)
		case 25:
			a.fg &^= flagBlink
		case 27:
			a.fg &^= flagInverse
		case 28:
			a.fg &^= flagInvisible
		case 29:
			a.fg &^= flagStrikethrough
		case 30, 31, 32, 33, 34, 35, 36, 37:
			a.fg = a.fg&^colorMask | color16 | (v - 30)
		case 40, 41, 42, 43, 44, 45, 46, 47:
			a.bg = a.bg&^colorMask | color16 | (v - 40)
		case 90, 91, 92, 93, 94, 95, 96, 97:
			a.fg = a.fg&^colorMask | color16 | (v - 90) | 8
		case 100, 101, 102, 103, 104, 105, 106, 107:
			a.bg = a.bg&^colorMask | color16 | (v - 100) | 8
		case 38, 48, 58:
			i += s.color(i)
		case 39:
			a.fg &^= colorMask
		case 49:
			a.bg &^= colorMask
		case 53:
			a.bg |= flagOverline
		case 55:
			a.bg &^= flagOverline
		case 59:
			e := s.extended
			e.color = colorMask // what xterm.js makes of it
			s.setExtended(e)
			s.updateExtended()
		}
	}
}

func (s *Screen) underline(style int32) {
	if style < 0 || style > 5 {
		style = 1
	}
	e := s.extended
	e.style = uint32(style)
	s.setExtended(e)
	if style == 0 {
		s.attr.fg &^= flagUnderline
	} else {
		s.attr.fg |= flagUnderline
	}
	s.updateExtended()
}

// color reads the color that begins at parameter i, in any of the ways they are written:
// 38;2;r;g;b, 38;2:r:g:b, 38:2::r:g:b, 38;5;n and so on. It gives how many parameters there
// were besides.
func (s *Screen) color(i int) (advance int) {
	p := &s.params
	found := [6]int32{0, 0, -1, 0, 0, 0}
	space := 0
	for {
		found[advance+space] = p.value[i+advance]
		if subs := p.subs(i + advance); len(subs) > 0 {
			for k, v := range subs {
				if found[1] == 5 {
					space = 1
				}
				if advance+k+1+space >= len(found) {
					break
				}
				found[advance+k+1+space] = v
			}
			break
		}
		if found[1] == 5 && advance+space >= 2 || found[1] == 2 && advance+space >= 5 {
			break
		}
		if found[1] != 0 {
			space = 1
		}
		advance++
		if advance+i >= p.n || advance+space >= len(found) {
			break
		}
	}
	for k := 2; k < len(found); k++ {
		found[k] = max(found[k], 0)
	}
	var c uint32
	switch found[1] {
	case 2:
		c = colorRGB | uint32(found[3]&0xff)<<16 | uint32(found[4]&0xff)<<8 | uint32(found[5]&0xff)
	case 5:
		c = color256 | uint32(found[3]&0xff)
	default:
		return advance
	}
	switch found[0] {
	case 38:
		s.attr.fg = s.attr.fg&^colorMask | c
	case 48:
		s.attr.bg = s.attr.bg&^colorMask | c
	case 58:
		e := s.extended
		e.color = c
		s.setExtended(e)
	}
	return advance
}

// OSC and DCS.

func (s *Screen) dispatchOSC(number int, body string) {
	switch number {
	case 0, 2:
		s.title, s.titled = body, true
	case 4:
		s.paletteColors(body)
	case 8:
		s.hyperlink(body)
	case 10, 11, 12:
		for i, spec := range strings.Split(body, ";") {
			if number+i > 12 {
				break
			}
			which := number + i - 10
			if spec == "?" {
				s.answer(fmt.Sprintf("\x1b]%d;%s\x1b\\", number+i, s.specialColor(which)))
			} else if c, ok := parseColor(spec); ok {
				s.special[which] = &c
			}
		}
	case 104:
		if body == "" {
			s.colors = nil
		}
		for spec := range strings.SplitSeq(body, ";") {
			if n, ok := colorIndex(spec); ok {
				delete(s.colors, n)
			}
		}
	case 110, 111, 112:
		s.special[number-110] = nil
	}
}

// hyperlink is OSC 8.
func (s *Screen) hyperlink(body string) {
	given, uri, ok := strings.Cut(body, ";")
	if !ok {
		return
	}
	given = strings.TrimSpace(given)
	e := s.extended
	switch {
	case uri != "":
		l := link{uri: uri}
		for p := range strings.SplitSeq(given, ":") {
			if id, ok := strings.CutPrefix(p, "id="); ok {
				l.id = id
				break
			}
		}
		s.sweep()
		e = s.extended // sweep gives new numbers
		e.link = s.tables.link(l)
	case given != "":
		return
	default:
		e.link = 0
	}
	s.setExtended(e)
	s.updateExtended()
}

func (s *Screen) paletteColors(body string) {
	slots := strings.Split(body, ";")
	for ; len(slots) > 1; slots = slots[2:] {
		n, ok := colorIndex(slots[0])
		if !ok {
			continue
		}
		if slots[1] == "?" {
			s.answer(fmt.Sprintf("\x1b]4;%d;%s\x1b\\", n, s.paletteColor(n)))
		} else if c, ok := parseColor(slots[1]); ok {
			if s.colors == nil {
				s.colors = map[uint8]rgb{}
			}
			s.colors[n] = c
		}
	}
}

func colorIndex(spec string) (uint8, bool) {
	for _, c := range []byte(spec) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(spec, 10, 8)
	return uint8(n), err == nil
}

// parseColor reads rgb:r/g/b with 1 to 4 digits each, and #rgb likewise.
func parseColor(spec string) (c rgb, ok bool) {
	spec = strings.ToLower(spec)
	var parts []string
	if rest, ok := strings.CutPrefix(spec, "rgb:"); ok {
		parts = strings.Split(rest, "/")
		if len(parts) != 3 || len(parts[0]) != len(parts[1]) || len(parts[0]) != len(parts[2]) {
			return c, false
		}
	} else if rest, ok := strings.CutPrefix(spec, "#"); ok {
		if len(rest)%3 != 0 {
			return c, false
		}
		n := len(rest) / 3
		parts = []string{rest[:n], rest[n : 2*n], rest[2*n:]}
	} else {
		return c, false
	}
	digits := len(parts[0])
	if digits < 1 || digits > 4 {
		return c, false
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 16, 16)
		if err != nil {
			return c, false
		}
		if spec[0] == 'r' {
			c[i] = uint8(math.Round(float64(v) / float64(uint(1)<<(4*digits)-1) * 255))
		} else if digits == 1 {
			c[i] = uint8(v << 4)
		} else {
			c[i] = uint8(v >> (4 * (digits - 2)))
		}
	}
	return c, true
}

func (c rgb) String() string {
	return fmt.Sprintf("rgb:%02x%02x/%02x%02x/%02x%02x", c[0], c[0], c[1], c[1], c[2], c[2])
}

// specialColor is the foreground, the background or the color of the cursor: what was set,
// else white on black, which xterm.js has.
func (s *Screen) specialColor(which int) rgb {
	if c := s.special[which]; c != nil {
		return *c
	}
	if which == 1 {
		return rgb{}
	}
	return rgb{255, 255, 255}
}

// The first 16 colors as xterm.js has them.
var firstColors = [16]rgb{
	{0x2e, 0x34, 0x36}, {0xcc, 0x00, 0x00}, {0x4e, 0x9a, 0x06}, {0xc4, 0xa0, 0x00},
	{0x34, 0x65, 0xa4}, {0x75, 0x50, 0x7b}, {0x06, 0x98, 0x9a}, {0xd3, 0xd7, 0xcf},
	{0x55, 0x57, 0x53}, {0xef, 0x29, 0x29}, {0x8a, 0xe2, 0x34}, {0xfc, 0xe9, 0x4f},
	{0x72, 0x9f, 0xcf}, {0xad, 0x7f, 0xa8}, {0x34, 0xe2, 0xe2}, {0xee, 0xee, 0xec},
}

func (s *Screen) paletteColor(n uint8) rgb {
	if c, ok := s.colors[n]; ok {
		return c
	}
	switch {
	case n < 16:
		return firstColors[n]
	case n < 232: // a cube of 6 × 6 × 6
		level := func(v uint8) uint8 {
			if v == 0 {
				return 0
			}
			return 55 + v*40
		}
		n -= 16
		return rgb{level(n / 36), level(n / 6 % 6), level(n % 6)}
	}
	gray := 8 + (n-232)*10
	return rgb{gray, gray, gray}
}

// setColors gives the sequences that set what was set of the palette.
func (s *Screen) setColors(out []byte) []byte {
	for _, n := range slices.Sorted(maps.Keys(s.colors)) {
		out = fmt.Appendf(out, "\x1b]4;%d;%s\x1b\\", n, s.colors[n])
	}
	for i, c := range s.special {
		if c != nil {
			out = fmt.Appendf(out, "\x1b]%d;%s\x1b\\", 10+i, *c)
		}
	}
	return out
}

// requestStatus is DECRQSS.
const requestStatus = '$'<<8 | 'q'

func (s *Screen) dispatchDCS(ident int, body string) {
	if ident != requestStatus {
		return
	}
	answer := "0$r"
	switch body {
	case `"q`:
		answer = `1$r0"q`
		if s.attr.bg&flagProtected != 0 {
			answer = `1$r1"q`
		}
	case `"p`:
		answer = `1$r61;1"p`
	case "r":
		answer = fmt.Sprintf("1$r%d;%dr", s.buf.top+1, s.buf.bottom+1)
	case "m":
		answer = "1$r0m"
	case " q":
		answer = fmt.Sprintf("1$r%d q", max(s.modes.cursorStyle, 1))
	}
	s.answer("\x1bP" + answer + "\x1b\\")
}
