package terminal

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"unicode/utf8"
)

// typedAhead is what was typed while a command was sent or ran. The command may read it;
// what it leaves the shell reads behind it, line by line, before anything else. It is the
// owner's.
type typedAhead struct {
	any    bool    // there is something
	lines  int     // that were ended, and may still come; …
	more   bool    // … of at least so many: not all were seen
	text   []byte  // as much of it as may be needed, …
	begun  []int64 // … and the offset of the output at which each line in it was begun
	before bool    // the shell may still come to such a line before one that the service has typed
}

// aheadMost is how much of it is remembered.
const aheadMost = 4 << 10

func (a *typedAhead) add(data []byte, at int64) {
	a.any = true
	a.lines += bytes.Count(data, []byte{'\r'}) + bytes.Count(data, []byte{'\n'})
	for _, c := range data[:min(len(data), aheadMost-len(a.text))] {
		if n := len(a.text); n == 0 || a.text[n-1] == '\r' || a.text[n-1] == '\n' {
			a.begun = append(a.begun, at)
		}
		a.text = append(a.text, c)
	}
}

// line gives the first line, as it is when the keys that erase have done so; empty where
// that is not known.
func (a *typedAhead) line() string {
	end := bytes.IndexAny(a.text, "\r\n")
	if end < 0 {
		return ""
	}
	var line []byte
	for _, c := range a.text[:end] {
		switch {
		case c == 0x7f || c == '\b':
			_, n := utf8.DecodeLastRune(line)
			line = line[:len(line)-n]
		case c == 0x15 || c == 0x03: // Ctrl-U, Ctrl-C
			line = line[:0]
		case c == 0x1b:
			return "" // who knows what an editor makes of it
		case c >= ' ' || c == '\t':
			line = append(line, c)
		}
	}
	return strings.TrimSpace(string(line))
}

// runs notes that a command runs, which is such a line or not.
func (a *typedAhead) runs(typed bool) {
	if !typed {
		a.before = false
		return
	}
	if a.lines == 0 {
		*a = typedAhead{before: a.before}
		return
	}
	a.drop()
}

// drop takes the first line away.
func (a *typedAhead) drop() {
	if a.lines > 1 || !a.more {
		a.lines--
	}
	if end := bytes.IndexAny(a.text, "\r\n"); end >= 0 {
		a.text, a.begun = a.text[end+1:], a.begun[1:]
	}
	a.any = a.lines > 0 || len(a.text) > 0
}

// unseen notes that the shell reads, and may have been given more than was seen: each line
// of it runs before anything else.
func (a *typedAhead) unseen() { a.any, a.more, a.lines = true, true, max(1, a.lines) }

// over notes that no more of it is waited for; some may come all the same.
func (a *typedAhead) over() { a.lines, a.more, a.before = 0, false, true }

// aheadLine gives the first line that was typed ahead, for the shell has run one; empty
// where it is not known. What was typed and never shown is dropped: a program has read it
// without echo, as a password, and nobody else may see it.
func (l *live) aheadLine() string {
	a := &l.turn.ahead
	for a.lines > 0 && len(a.text) > 0 {
		line := a.line()
		if line == "" || l.wasShown(line, a.begun[0]) {
			return line
		}
		a.drop()
	}
	return ""
}

// aheadSeen is how much of the output is looked through for what was typed ahead, behind
// where it was typed and before where it is looked.
const aheadSeen = 64 << 10

// wasShown reports whether a line that was typed at an offset was shown since: by the
// terminal, or by an editor that has read it.
func (l *live) wasShown(line string, at int64) bool {
	r := &l.ring
	at = max(at, r.start)
	near := make([]byte, min(aheadSeen, r.end-at))
	near = near[:r.read(near, at, r.end)]
	from := max(at+int64(len(near)), r.end-aheadSeen)
	late := make([]byte, r.end-from)
	late = late[:r.read(late, from, r.end)]
	if from == at+int64(len(near)) {
		near, late = append(near, late...), nil
	}
	line = squeeze(line)
	return strings.Contains(printed(near), line) || strings.Contains(printed(late), line)
}

// escapes matches what terminals do not show.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]+[0-~]|[^\[\] -/])`)

// printed gives what output shows, without blanks and line ends, and without what was
// erased while it was typed.
func printed(data []byte) string {
	data = escapes.ReplaceAll(data, nil)
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '\b' && bytes.HasPrefix(data[i:], []byte("\b \b")):
			_, n := utf8.DecodeLastRune(out)
			out = out[:len(out)-n]
			i += 2
		case c >= ' ' || c == '\t':
			out = append(out, c)
		}
	}
	return squeeze(string(out))
}

// aheadIsOver is asked when the shell has read for a while and has not told of a line that
// was typed ahead: the command before has read it, or it is late. A shell that does not
// tell starts may be running one: then it is asked who has the terminal, and pull comes
// again.
func (l *live) aheadIsOver() bool {
	t := &l.turn
	pid := t.top().pid
	if t.guessing() || t.tellsStart() || pid == 0 || l.link == nil {
		t.ahead.over()
		return true
	}
	sh, lines, at := l.link.shell, t.ahead.lines, t.readFrom
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, asideMost)
		defer stop()
		fg, err := sh.Foreground(ctx, pid)
		return func() {
			if t.phase != reading || t.ahead.lines != lines || t.readFrom != at || l.link == nil || l.link.shell != sh {
				return // it was told meanwhile
			}
			if err == nil && !fg.Shell {
				// What is in the group of the shell may be part of its prompt.
				if line := l.aheadLine(); line != "" || fg.Group != pid {
					l.run(l.typedProcess(line), at)
					return
				}
			}
			t.ahead.over()
			l.pull()
		}
	})
	return false
}
