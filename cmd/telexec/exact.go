package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// How a request is shown to somebody who is to decide about it. What he reads must
// be what runs, so that nothing in it may pass for something else:
//
//   - what has several lines has a bar before each, and what a terminal would have
//     broken stands behind a colon, so that no part of it looks like another row of
//     the view;
//   - nothing is cut;
//   - what is not to be seen is escaped, and then backslashes are too: two commands
//     that differ never look the same;
//   - letters beyond ASCII are named, for some look like those of ASCII.

// exact is a text as it is to be judged.
type exact struct {
	lines   []string // each fit for a terminal
	escaped bool     // characters are escaped in lines, and so are backslashes
	beyond  []rune   // characters beyond ASCII that stand in lines as they are
}

// judged gives s as it is to be judged. Its lines, and whether they are escaped,
// tell s to the byte.
func judged(s string) exact {
	var e exact
	for i, size := 0, 0; i < len(s) && !e.escaped; i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		e.escaped = r == utf8.RuneError && size == 1 || r != '\n' && !plainToSee(r)
	}
	for line := range strings.SplitSeq(s, "\n") {
		if e.escaped {
			line = escaped(line)
		}
		e.lines = append(e.lines, line)
	}
	seen := make(map[rune]bool)
	for _, line := range e.lines {
		for _, r := range line {
			if r > unicode.MaxASCII && !seen[r] {
				seen[r] = true
				e.beyond = append(e.beyond, r)
			}
		}
	}
	return e
}

// plainToSee reports whether r stands for itself. A mark does not: it changes the
// character before it.
func plainToSee(r rune) bool { return visible(r) && !unicode.IsMark(r) }

// escaped is printable, of backslashes and marks too.
func escaped(s string) string {
	var b strings.Builder
	for i, size := 0, 0; i < len(s); i += size {
		var r rune
		r, size = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case unicode.IsMark(r):
			b.WriteString(escapedRune(r))
		default:
			b.WriteString(printable(s[i : i+size]))
		}
	}
	return b.String()
}

// beyondShown is how many characters beyond ASCII are named.
const beyondShown = 8

// remarks are what a reader of the lines has to know.
func (e exact) remarks() []string {
	var out []string
	if e.escaped {
		out = append(out, `It holds characters that are not to be seen, or change how others look. They stand as \t, \x1b or \u202e, a backslash as \\.`)
	}
	if len(e.beyond) > 0 {
		var names []string
		for _, r := range e.beyond[:min(len(e.beyond), beyondShown)] {
			names = append(names, fmt.Sprintf("%c (U+%04X)", r, r))
		}
		text := "It holds characters beyond ASCII, which may look like others: " + strings.Join(names, ", ")
		if more := len(e.beyond) - beyondShown; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		out = append(out, text+".")
	}
	return out
}

// folded breaks a line into pieces that fit into width columns; 0: any. A character
// beyond ASCII counts as two, which is the most that a terminal gives it.
func folded(line string, width int) []string {
	if width <= 0 {
		return []string{line}
	}
	var out []string
	var b strings.Builder
	at := 0
	for _, r := range line {
		n := 1
		if r > unicode.MaxASCII {
			n = 2
		}
		if at+n > width && at > 0 {
			out = append(out, b.String())
			b.Reset()
			at = 0
		}
		b.WriteRune(r)
		at += n
	}
	return append(out, b.String())
}

// nameWidth is what the first column of a view for deciders takes.
const nameWidth = len("Asked for by  ")

// exactly adds a text from outside as it is to be judged.
func (f *facts) exactly(name, value string, width int) {
	e := judged(value)
	if width > 0 {
		width = max(width-nameWidth-len("| "), 20)
	}
	var rows []string
	for _, line := range e.lines {
		for i, piece := range folded(line, width) {
			rows = append(rows, []string{"| ", ": "}[min(i, 1)]+piece)
		}
	}
	if len(rows) == 1 {
		rows[0] = rows[0][len("| "):]
	}
	for _, row := range rows {
		f.paint(name, row, "")
		name = ""
	}
	for _, remark := range e.remarks() {
		f.paint("", remark, yellow)
	}
}

// screen is a printer of answers for whoever reads standard error.
func (p *printer) screen() *printer {
	s := *p
	s.stdout, s.colour, s.width = p.stderr, p.warnColour, 0
	if l, ok := p.stderr.(*lockedWriter); ok {
		if fd, ok := terminal(l.w); ok {
			s.width, _, _ = term.GetSize(fd) // 0 where it cannot tell
		}
	}
	return &s
}

// whole prints rows of which nothing is cut.
func (p *printer) whole(rows [][]cell) error {
	w := *p
	w.width = 0
	return w.columns(rows)
}
