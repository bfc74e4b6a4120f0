package terminal

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
)

// A shell that is started in the shell (bash, sudo -i) tells no marks at first, and the
// command that started it would never end. When the screen looks like a prompt, the host
// is asked who has the terminal. An interactive shell of a kind that can tell marks is
// given the line that makes it do so, unseen; of others (ssh, su) prompts must do. The same
// line is for a shell whose marks were taken away, or that has never told one.

// nestedMost is how long a nested shell may take to tell its first mark.
const nestedMost = time.Second

// nesting is a nested shell that is being made to tell marks. What is printed meanwhile
// is swallowed, and what people type waits.
type nesting struct {
	at   level
	seen []byte // what was swallowed
	keys []byte // what was typed meanwhile
}

// nestable are the kinds of shells that can tell marks.
var nestable = []string{"bash", "zsh", "fish", "dash", "ash", "ksh", "mksh", "sh"}

// askNested asks who has the terminal.
func (l *live) askNested() {
	sh, p, pid, at := l.link.shell, l.turn.cur, l.turn.top().pid, l.offset()
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, asideMost)
		defer stop()
		fg, err := sh.Foreground(ctx, pid)
		return func() {
			if err == nil && l.turn.cur == p && l.offset() == at && l.link != nil && l.link.shell == sh {
				l.foreground(fg)
			}
		}
	})
}

// foreground takes who has the terminal while something looks like a prompt.
func (l *live) foreground(fg Foreground) {
	t := &l.turn
	switch {
	case fg.Nested != "" && slices.Contains(nestable, fg.Nested) && t.nested != "":
		l.integrateClean(level{pid: fg.NestedPID, kind: fg.Nested})
	case fg.Nested != "":
		l.foreignShell(level{pid: fg.NestedPID, kind: fg.Nested})
	case fg.Shell && t.nested != "" && (t.cur == nil && fg.Raw || t.cur != nil && setsPrompt.MatchString(t.cur.line)):
		// Another shell has taken its place, perhaps in its login files; or its prompt was
		// set anew, where the marks are in it.
		l.integrateClean(level{pid: t.top().pid})
	}
}

// setsPrompt matches lines that may take the marks away. Others that end in what looks
// like a prompt wait for an answer, with read say, and what was typed would be one.
var setsPrompt = regexp.MustCompile(`(^|[\s;&|({])(exec|eval|source|\.)\s|PS1|PROMPT`)

// unheard reports whether a shell has been started, and nothing heard of it.
func (t *turn) unheard() bool { return t.phase == starting && !t.heard }

// integrateClean is integrate where the line begins with what is typed: behind what somebody
// has typed it would be part of theirs. Elsewhere the next prompt is waited for.
func (l *live) integrateClean(at level) {
	t := &l.turn
	line := strings.TrimSpace(l.screen.LineToCursor())
	switch {
	case line == ">": // a line that goes on
	case t.keyed == 0:
		l.integrate(at)
	case l.now.Sub(t.typedAt) < nestedQuiet:
		t.asked = false
		l.after(quietAlarm, nestedQuiet)
	case !strings.ContainsRune("\r\n\x03\x04", rune(t.keyed)): // a line that was begun
	case at.kind == "fish" || !strings.HasSuffix(line, ">"): // the others end so where a line goes on
		l.integrate(at)
	}
}

// integrate makes a nested shell tell marks.
func (l *live) integrate(at level) {
	l.turn.nesting = &nesting{at: at}
	l.link.keys.put(append([]byte(l.turn.nested), '\r'), true)
	l.after(nestedAlarm, nestedMost)
}

// swallow takes what is printed before the first mark; false where nothing is to be
// swallowed.
func (l *live) swallow(data []byte) bool {
	n := l.turn.nesting
	if len(n.seen)+len(data) > ringLeast {
		l.notIntegrated() // that is no shell
		return false
	}
	n.seen = append(n.seen, data...)
	return true
}

// integrated is called at each mark: the first one shows that the nested shell tells
// them.
func (l *live) integrated(e completion.Event) {
	t := &l.turn
	n := t.nesting
	if n == nil {
		return
	}
	t.nesting = nil
	l.unset(nestedAlarm)
	if e.Kind == completion.ShellInfo { // not one of the shell that it was started in
		if t.cur != nil {
			l.endCommand(t.cur, nil, command.ByPrompt) // it waits inside
		}
		n.at.pid = cmp.Or(e.PID, n.at.pid)
		if n.at.pid == t.top().pid {
			*t.top() = n.at
		} else {
			t.levels = append(t.levels, n.at)
		}
		l.publish()
	}
	l.link.keys.put(n.keys, true)
}

// notIntegrated gives up: what was swallowed is shown, and prompts must do.
func (l *live) notIntegrated() {
	t := &l.turn
	n := t.nesting
	if n == nil {
		return
	}
	t.nesting = nil
	l.unset(nestedAlarm)
	l.append(n.seen)
	if l.link != nil {
		l.link.keys.put(n.keys, true)
	}
	l.foreignShell(n.at)
}

// foreignShell goes on with a shell that tells no marks.
func (l *live) foreignShell(at level) {
	t := &l.turn
	at.foreign = true
	t.levels = append(t.levels, at)
	t.prompted = true
	l.complete(command.ByPrompt) // before anybody hears of the end
	if t.cur != nil {
		l.endCommand(t.cur, nil, command.ByPrompt)
	}
	l.read()
}

// spoken finds the shell that tells a mark among those that were started in each other:
// what was started in it has ended.
func (l *live) spoken(e completion.Event) {
	t := &l.turn
	var before string
	if len(t.levels) > 0 {
		before = t.top().kind
	}
	i := slices.IndexFunc(t.levels, func(v level) bool { return v.pid == e.PID })
	switch {
	case e.PID == 0:
		t.levels = slices.DeleteFunc(t.levels, func(v level) bool { return v.foreign })
	case i >= 0:
		t.levels = t.levels[:i+1]
	case e.Kind == completion.ShellInfo && (len(t.levels) == 0 || t.top().pid == 0):
		t.levels = []level{{kind: t.known}}
	case e.Kind == completion.ShellInfo:
		t.levels = append(t.levels, level{})
	}
	if len(t.levels) == 0 {
		t.levels = []level{{}}
	}
	if e.Kind == completion.ShellInfo {
		// What was found on the host is surer than what a shell makes of itself.
		kind := cmp.Or(t.top().kind, e.Shell)
		if kind == "sh" { // a name that many go by
			kind = cmp.Or(e.Shell, kind)
		}
		*t.top() = level{pid: e.PID, kind: kind, starts: e.Starts}
	}
	if len(t.levels) == 1 && t.top().foreign {
		t.top().foreign = false
	}
	if t.top().kind != before {
		l.publish()
	}
}
