package output

import (
	"bytes"
	"time"

	"github.com/telexec/telexec/internal/command"
)

// Bounds of what a Gauge looks at and remembers.
const (
	mostMeter  = 512       // bytes of a line that are looked at
	mostLabel  = 120       // bytes of a label
	gaugeTail  = 1 << 10   // bytes that are read of every Write, however much there is
	gaugeRate  = 1 << 20   // bytes per second that are read beside them
	gaugeBurst = 256 << 10 // of which so many may come at once
)

// Gauge finds in one stream of output what it says about the command's progress.
// It knows the forms in which package managers, downloads, builds and copies show
// theirs (see meters.go and docs/progress.md); whatever else is in the output
// tells nothing.
//
// It has one user at a time, and 2 KiB of memory whatever a stream holds. Bulk is
// not read whole: of a stream faster than 1 MiB/s only the end of each Write is,
// where the latest progress stands. Of any other, the last progress is the same
// however it is cut into Writes.
type Gauge struct {
	line   []byte // the line that is being drawn, without escapes, up to mostMeter bytes
	long   bool   // it has more than that
	lost   bool   // its beginning was not read
	over   bool   // it is drawn over another: a carriage return or a move of the cursor came before
	cr     bool   // a carriage return came, and what follows says whether it ends the line or begins it anew
	looked int    // how much of line the last look saw
	escape escape

	credit int       // bytes that may be read beyond gaugeTail
	filled time.Time // when credit was last raised

	told  command.Progress // what was told last; no label and no Time before the first
	news  bool             // it was told in this Write
	title []byte           // the line before: what a bar without words is about
	apt   aptRun
	steps [2]int  // of the last line that began with [n/m]
	grew  portion // the last percentage of no known form
	taken bool    // that it grows was seen, so it is progress
}

// portion is a percentage and what it is of.
type portion struct {
	of    string
	value float64
}

// escape is where in a terminal's escape sequence a stream is.
type escape uint8

const (
	plain     escape = iota
	escaped          // behind ESC
	charset          // behind ESC and an intermediate byte: one more follows
	control          // in CSI …
	osc              // in a string for the terminal, as OSC is
	oscEscape        // behind ESC in such a string
)

const (
	esc = 0x1b
	bel = 0x07
)

// Write takes the next bytes of the stream, cut anywhere, and gives the last
// progress in them; news is false where they tell nothing that was not told before.
// data is not kept.
func (g *Gauge) Write(data []byte, now time.Time) (p command.Progress, news bool) {
	g.news = false
	if skip := len(data) - g.afford(len(data), now); skip > 0 {
		g.Skip()
		data = data[skip:]
	}
	for len(data) > 0 {
		if g.escape == plain {
			n := text(data)
			if n > 0 {
				g.add(data[:n])
				data = data[n:]
				continue
			}
		}
		g.step(data[0])
		data = data[1:]
	}
	// A bar that is drawn anew by a carriage return in front of it stands there
	// without an end for as long as it is the latest.
	switch {
	case g.over && g.cr: // and one that has both has its end
		g.look(true)
		g.line, g.looked = g.line[:0], 0
	case len(g.line) > g.looked && (g.over || g.cr):
		g.looked = len(g.line)
		g.look(false)
	}
	if g.news {
		g.told.Time = now
	}
	return g.told, g.news
}

// text is how many bytes at the beginning of data are neither line ends nor
// escapes.
func text(data []byte) int {
	for i, b := range data {
		if b < ' ' && (b == '\n' || b == '\r' || b == esc) {
			return i
		}
	}
	return len(data)
}

// afford is how many of n bytes are read now.
func (g *Gauge) afford(n int, now time.Time) int {
	if since := now.Sub(g.filled); g.filled.IsZero() || since > time.Second {
		g.credit, g.filled = gaugeBurst, now
	} else if more := int(since * gaugeRate / time.Second); more > 0 {
		g.credit, g.filled = min(g.credit+more, gaugeBurst), now
	}
	if n > g.credit {
		return min(n, gaugeTail)
	}
	g.credit -= n
	return n
}

// Skip says that what comes next does not follow what came before, or that the
// stream is not read from its start: what the line there begins with is not known.
func (g *Gauge) Skip() {
	g.line, g.long, g.lost, g.over, g.cr, g.looked = g.line[:0], false, true, false, false, 0
	g.escape = plain
	g.title = g.title[:0]
	g.apt = aptRun{}
}

func (g *Gauge) add(data []byte) {
	if g.cr {
		g.end(false)
	}
	if room := mostMeter - len(g.line); len(data) > room {
		data, g.long = data[:room], true
	}
	g.line = append(g.line, data...)
}

// step takes a byte that is a line end or belongs to an escape.
func (g *Gauge) step(b byte) {
	switch g.escape {
	case plain:
		switch b {
		case '\n':
			g.end(true)
		case '\r':
			g.cr = true
		case esc:
			g.escape = escaped
		}
	case escaped:
		switch {
		case b == '[':
			g.escape = control
		case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
			g.escape = osc
		case b >= ' ' && b <= '/':
			g.escape = charset
		case b == esc:
		default:
			g.escape = plain
			if b == '8' || b == 'M' || b == 'D' || b == 'E' || b == 'c' { // the cursor goes elsewhere
				g.end(false)
			}
		}
	case charset:
		g.escape = plain
	case control:
		switch {
		case b == esc:
			g.escape = escaped
		case b < ' ': // a terminal obeys it in the middle of a sequence
			if b == '\n' || b == '\r' {
				g.escape = plain
				g.step(b)
			}
		case b >= '@':
			g.escape = plain
			if bytes.IndexByte([]byte("ABEFGHJdfsu"), b) >= 0 { // the cursor goes elsewhere
				g.end(false)
			}
		}
	case osc:
		switch b {
		case bel:
			g.escape = plain
		case esc:
			g.escape = oscEscape
		case '\n', '\r': // no terminal's string has one: it was never ended
			g.escape = plain
			g.step(b)
		}
	case oscEscape:
		if b == '\\' {
			g.escape = plain
		} else {
			g.escape = escaped
			g.step(b)
		}
	}
}

// end looks at the line that is over: by a line feed, or because it is drawn over
// or left.
func (g *Gauge) end(fed bool) {
	if !fed {
		// A line that will be drawn over is as good as one that is drawn over another.
		g.over = g.over || g.cr
	}
	g.look(true)
	g.line, g.long, g.lost, g.looked = g.line[:0], false, false, 0
	g.over, g.cr = !fed, false
}

// look has the line told where it is a meter. One that is not complete is told
// only where nothing that follows could change what it says.
func (g *Gauge) look(complete bool) {
	line := bytes.TrimSpace(g.line)
	if g.lost || len(line) == 0 {
		return
	}
	complete = complete && !g.long
	p, ok := portion{}, false
	if mayTell(line, g.over) {
		p, ok = g.read(string(line), complete)
	}
	switch {
	case !ok && complete && !g.over:
		g.title = append(g.title[:0], line...)
	case ok:
		p.value = float64(int(p.value*10+1e-6)) / 10 // cut, not rounded: 99.96 % is not all
		if !g.telling() || p.of != g.told.Label || p.value != g.told.Percent {
			g.told.Label, g.told.Percent, g.news = p.of, p.value, true
		}
	}
}

// telling reports whether anything was told yet.
func (g *Gauge) telling() bool { return g.news || !g.told.Time.IsZero() }
