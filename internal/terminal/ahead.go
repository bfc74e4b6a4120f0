package terminal

import (
	"bytes"
	"context"
	"strings"
	"unicode/utf8"
)

// typedAhead is what was typed while a command was sent or ran. The command may read it;
// what it leaves the shell reads behind it, line by line, before anything else. It is the
// owner's.
type typedAhead struct {
	any    bool   // there is something
	lines  int    // that were ended, and may still come
	text   []byte // as much of it as may be needed
	before bool   // the shell may still come to such a line before one that the service has typed
}

// aheadMost is how much of it is remembered.
const aheadMost = 4 << 10

func (a *typedAhead) add(data []byte) {
	a.any = true
	a.lines += bytes.Count(data, []byte{'\r'}) + bytes.Count(data, []byte{'\n'})
	a.text = append(a.text, data[:min(len(data), aheadMost-len(a.text))]...)
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
	a.lines--
	if end := bytes.IndexAny(a.text, "\r\n"); end >= 0 {
		a.text = a.text[end+1:]
	}
	a.any = a.lines > 0 || len(a.text) > 0
}

// aheadIsOver is asked when the shell has read for a while and has not told of a line that
// was typed ahead: the command before has read it, or it is late. A shell that does not
// tell starts may be running one: then it is asked who has the terminal, and pull comes
// again.
func (l *live) aheadIsOver() bool {
	t := &l.turn
	pid := t.top().pid
	if t.guessing() || t.tellsStart() || pid == 0 || l.link == nil {
		t.ahead.lines, t.ahead.before = 0, true
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
			if p := l.typedProcess(t.ahead.line()); err == nil && !fg.Shell && p.line != "" {
				l.run(p, at)
				return
			}
			t.ahead.lines, t.ahead.before = 0, true
			l.pull()
		}
	})
	return false
}
