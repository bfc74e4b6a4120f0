package main

import (
	"context"
	"strings"
	"syscall"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// typing reads what is typed.
func (t *attachment) typing(ctx context.Context) {
	var e escapes
	p := make([]byte, 4<<10)
	for {
		n, err := t.env.Stdin.Read(p)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			t.leave(signalled(syscall.SIGHUP)) // the terminal is gone
			return
		}
		for rest := p[:n]; len(rest) > 0; {
			var keys []byte
			var want byte
			if keys, want, rest = e.scan(rest); len(keys) > 0 && t.mayType() {
				t.outbox.put(ctx, parcel{keys: keys})
			}
			if want != 0 {
				t.do(want)
			}
			if want == '.' {
				return // what is behind it is nobody's
			}
		}
	}
}

// mayType reports whether keys are to be sent, and tells once where they are not.
func (t *attachment) mayType() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.typed = t.typed || !t.observes
	if t.observes && !t.unsent {
		t.unsent = true
		t.remark("you only look here: nothing that is typed is sent; Enter ~. leaves")
	}
	return !t.observes
}

// do does what a key behind "~" asks for.
func (t *attachment) do(what byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch what {
	case '.':
		// Behind what was typed, which may be on its way, but not for ever: the service
		// may not answer, or the programs there may not read.
		time.AfterFunc(leaveWithin, t.leftBehind)
		t.outbox.add(parcel{leave: true})
	case 'k', 'r':
		t.keyboard(what)
	case 'w':
		for _, v := range t.session.GetViewers() {
			text := viewerText(v, t.session.GetKeyboard())
			if t.mine(v.GetId()) {
				text += " (you)"
			}
			t.say(text)
		}
	case '?':
		t.say("~. leave   ~k take the keyboard   ~r give it back   ~w who is here   ~? this   ~~ type ~")
	}
}

// keyboard asks for the keyboard ('k'), or gives it back ('r'). mu is held.
func (t *attachment) keyboard(what byte) {
	begins := t.taking // by --take, of which nobody who may not type needs be told twice
	t.taking = false
	switch {
	case t.observes && t.looks:
		t.say("you only look here: to type, and have the keyboard, attach without --observe")
	case t.observes && begins:
		t.fits()
	case t.observes:
		t.say("you may not type here, and so not have the keyboard")
	case what == 'k':
		if t.asked = what; t.mine(t.session.GetKeyboard()) { // and by typing alone: now it is kept
			t.asked = 0
			t.remark("you have the keyboard")
		}
		t.outbox.add(parcel{action: telexecv1.KeyboardAction_KEYBOARD_ACTION_TAKE})
	case what == 'r':
		t.asked = what
		t.outbox.add(parcel{action: telexecv1.KeyboardAction_KEYBOARD_ACTION_RELEASE})
	}
}

// leftBehind leaves though it is not known that what was typed has got there.
func (t *attachment) leftBehind() {
	t.mu.Lock()
	t.lost = true
	t.mu.Unlock()
	t.leave(errLeft)
}

// sending sends what was typed.
func (t *attachment) sending(ctx context.Context) {
	for {
		p, ok := t.outbox.take(ctx)
		if !ok {
			return
		}
		var err error
		switch {
		case p.leave:
			err := t.terminal.Leave(ctx)
			t.mu.Lock()
			t.lost = t.lost || err != nil && !t.gone // while it was away, what was typed was not sent, which was told
			t.mu.Unlock()
			t.leave(errLeft)
			return
		case p.action != 0:
			err = t.terminal.Keyboard(ctx, p.action, "")
		default:
			err = t.terminal.Input(ctx, p.keys)
		}
		if err != nil && ctx.Err() == nil {
			t.mu.Lock()
			if !t.unsent {
				t.unsent = true
				t.remark("not typed: there is no connection to the service just now; Enter ~. leaves")
			}
			t.mu.Unlock()
		}
	}
}

// escapes looks for "~" behind a new line in what is typed. What is pasted is not typed:
// in a bracketed paste nothing is looked for, since it would be a stranger's "~." that
// leaves, with the rest for the shell here.
type escapes struct {
	state  int  // 0: behind a new line, 1: behind its ~, 2: elsewhere
	pasted bool // within a bracketed paste
	seen   int  // bytes of the bracket that may be coming
}

// Brackets of what is pasted (xterm's ctlseqs, "Bracketed Paste Mode").
const (
	pasteBegin = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// scan gives the keys that are the session's up to the first that is not, which is what
// was behind "~", or 0; and what is left to look at.
func (e *escapes) scan(p []byte) (keys []byte, want byte, rest []byte) {
	for i, c := range p {
		e.bracket(c)
		switch {
		case e.pasted:
			e.state = 2
			keys = append(keys, c)
		case c == '\r' || c == '\n' || c == 3 || c == 4: // Ctrl-C and Ctrl-D give a new line, too
			if e.state == 1 {
				keys = append(keys, '~')
			}
			e.state = 0
			keys = append(keys, c)
		case e.state == 0 && c == '~':
			e.state = 1
		case e.state == 1 && strings.IndexByte(".krw?", c) >= 0:
			e.state = 0
			return keys, c, p[i+1:]
		case e.state == 1 && c == '~':
			e.state = 2
			keys = append(keys, c)
		case e.state == 1:
			e.state = 2
			keys = append(keys, '~', c)
		default:
			e.state = 2
			keys = append(keys, c)
		}
	}
	return keys, 0, nil
}

// bracket takes one byte and notes where a paste begins and ends.
func (e *escapes) bracket(c byte) {
	want := pasteBegin
	if e.pasted {
		want = pasteEnd
	}
	switch {
	case c == want[e.seen]:
		if e.seen++; e.seen == len(want) {
			e.pasted, e.seen = !e.pasted, 0
		}
	case c == esc:
		e.seen = 1
	default:
		e.seen = 0
	}
}
