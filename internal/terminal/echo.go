package terminal

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/telexec/telexec/internal/completion"
)

// echo follows how the terminal shows what is typed at a prompt, so that it is known what
// the line was, and, where no mark tells it, where the output behind it begins.
//
// A line that the service has typed is known. What a terminal does not show as it was
// typed, though it does not edit lines, is no echo, but output of a device that has none.
// What somebody types is what stands behind the prompt when the line ends: other lines
// may be shown in between, such as what a name can be completed to.
type echo struct {
	active   bool
	prompt   string // what stands before it
	from     int64  // offset at which it was sent
	seen     bool   // a line of it has ended
	end      int64  // offset behind it so far
	persons  bool
	entered  bool     // of a person: Enter was typed
	lines    []string // of a person
	expected string   // of the service: how it begins; empty: that is not known
	left     int      // of the service: line ends that are still to come
	behind   string   // of the service: prompts for the rest of the line, which may come behind those
}

// editors are the shells that edit lines but do not tell when a command starts: they show
// a line in their own way.
var editors = []string{"ash", "ksh", "mksh"}

// typedEcho is the echo of what the service types.
func typedEcho(kind, prompt string, columns int, typed []byte, from int64) echo {
	e := echo{active: true, prompt: prompt, from: from}
	lines := strings.Split(string(typed), "\r")
	for i, line := range lines[:len(lines)-1] {
		e.left++
		if kind == "ash" { // it ends each row by itself
			if i > 0 {
				prompt = "> "
			}
			e.left += max(0, utf8.RuneCountInString(prompt)+utf8.RuneCountInString(line)-1) / columns
		}
	}
	if !slices.Contains(editors, kind) {
		first := lines[0][:min(len(lines[0]), 20)]
		if strings.IndexFunc(first, unicode.IsControl) < 0 {
			e.expected = strings.ToValidUTF8(first, "")
		}
		if e.left > 1 && kind != "" {
			e.behind = strings.Repeat("> ", e.left-1)
		}
	}
	return e
}

// line gives what was sent, without prompts.
func (e *echo) line() string { return strings.TrimSpace(strings.Join(e.lines, "\n")) }

// What is kept of the lines that somebody types.
const (
	rowsMost = 1000    // lines
	rowMost  = 4 << 10 // bytes of each, but of the first
)

// row takes the text of a line on the screen that ends at an offset, with its line end.
// It reports whether there are no more.
func (e *echo) row(text string, end int64) bool {
	if e.persons {
		e.seen, e.end = true, end
		if rest, ok := strings.CutPrefix(text, strings.TrimRight(e.prompt, " ")); ok {
			e.lines = []string{strings.TrimSpace(rest)}
		} else {
			text = strings.TrimSpace(strings.TrimPrefix(text, ">")) // a line that goes on
			e.lines = append(e.lines, strings.Clone(text[:min(len(text), rowMost)]))
			if len(e.lines) > rowsMost { // a job in the background prints
				e.lines = slices.Delete(e.lines, 0, rowsMost/2)
			}
		}
		return e.entered
	}
	e.left--
	if e.expected != "" && !e.seen && !strings.Contains(squeeze(text), squeeze(e.expected)) {
		e.seen, e.end, e.left, e.behind = true, e.from, 0, ""
		return true
	}
	e.seen, e.end = true, end
	return e.left <= 0
}

// squeeze leaves blanks out: a long line may be broken anywhere.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// output takes output of the shell between marks.
func (l *live) output(data []byte) {
	t := &l.turn
	if t.nesting != nil && l.swallow(data) {
		return
	}
	for len(data) > 0 {
		n := len(data)
		switch e := &t.echo; {
		case t.shown && !e.persons: // a prompt that is shown anew, with all its lines
			l.append(data)
		case !e.active || t.phase != sent && t.phase != reading:
			l.append(data)
			t.printed = true
		case e.left > 0 || e.persons:
			if i := bytes.IndexByte(data, '\n'); i >= 0 {
				n = i + 1
				l.echoRow(data[:n])
			} else {
				l.append(data)
			}
		case e.behind != "":
			if data[0] == e.behind[0] {
				n = 1
				l.append(data[:1])
				e.behind, e.end = e.behind[1:], l.offset()
			} else {
				e.behind, n = "", 0
			}
			if e.behind == "" {
				l.echoed()
			}
		default:
			l.append(data)
		}
		data = data[n:]
	}
	l.watchQuiet()
}

// echoRow puts data with the end of a line into the stream and tells the echo what the
// line is.
func (l *live) echoRow(data []byte) {
	t := &l.turn
	last := len(data) - 1
	for last > 0 && data[last-1] == '\r' {
		last--
	}
	l.append(data[:last])
	row, _ := l.screen.Cursor()
	text := wholeLine(l.screen.LineToCursor(), l.screen.Row(row))
	l.append(data[last:])
	if t.echo.row(text, l.offset()) && t.echo.behind == "" {
		l.echoed()
	}
}

// wholeLine gives a line that is known up to the cursor, and the row in which that is,
// as one: the cursor need not be at its end.
func wholeLine(toCursor, row string) string {
	const rowMost = 4000
	for i := max(0, len(toCursor)-rowMost); i < len(toCursor); i++ {
		if rest, ok := strings.CutPrefix(row, toCursor[i:]); ok {
			return toCursor + rest
		}
	}
	return toCursor + strings.TrimPrefix(row, strings.TrimRight(toCursor, " "))
}

// echoed is called when all of a line that was sent has been shown. Where there is no
// mark for the start of a command, this is it.
func (l *live) echoed() {
	t := &l.turn
	switch p := t.typing; {
	case t.tellsStart():
	case p != nil:
		t.typing = nil
		l.run(p, t.echo.end)
	case t.echo.line() != "":
		l.run(l.typedProcess(t.echo.line()), t.echo.end)
	case t.guessing(): // an empty line
		l.after(silenceAlarm, silence)
	}
}

// frame is what a shell prints between its marks and a command's output.
type frame struct {
	lead *regexp.Regexp // matches the empty text too
	tail string
}

// frames are those of shells that print any: fish sets the title and resets colours when
// it runs a command, bash begins to take pastes in brackets before its prompt, and ksh
// has what encloses the marks.
var frames = map[string]frame{
	"fish": {lead: regexp.MustCompile(`^(?:\x1b\[\?(?:2004|1|25)[hl]|\x1b[=>]|\x1b\[[0-9;<>=?]*[muq]|\x1b\]0;[^\x07\x1b]*\x07|\x1b\(B|\r)*`)},
	"bash": {tail: "\x1b[?2004h"},
	"ksh":  {tail: "\x01\r\x01"},
}

// leadMost is how long a lead may be.
const leadMost = 8 << 10

// unfinishedEscape reports whether b may be the beginning of one more sequence of a lead.
func unfinishedEscape(b []byte) bool {
	return len(b) > 0 && b[0] == 0x1b && len(b) < leadMost &&
		(len(b) == 1 || b[1] == ']' && bytes.IndexByte(b, 7) < 0 || b[1] == '(' && len(b) == 2 ||
			b[1] == '[' && bytes.IndexFunc(b[2:], func(r rune) bool { return r >= '@' }) < 0)
}

// partOf is how many bytes at the end of b begin tail.
func partOf(tail string, b []byte) int {
	for n := min(len(tail), len(b)); n > 0; n-- {
		if string(b[len(b)-n:]) == tail[:n] {
			return n
		}
	}
	return 0
}

// typeLine types a command.
func (l *live) typeLine(p *Process) {
	t := &l.turn
	kind := t.top().kind
	if t.guessing() {
		kind = ""
	}
	typed := completion.Type(kind, p.line)
	l.link.keys.put(typed, true)
	t.echo = typedEcho(kind, t.prompt, l.s.Size.Columns, typed, l.offset())
	l.lineSent()
}

// enterTyped notes that somebody has typed Enter.
func (l *live) enterTyped() {
	t := &l.turn
	if t.echo.from = l.offset(); !t.echo.entered {
		t.echo.entered = true
		t.echo.seen = false
	}
	l.lineSent()
}

// lineSent is called when a line was sent to the shell.
func (l *live) lineSent() {
	t := &l.turn
	t.phase, t.dirty, t.printed = sent, false, false
	if t.guessing() {
		l.after(silenceAlarm, noOutput)
	}
}
