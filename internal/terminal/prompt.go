package terminal

import (
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
)

// silence is what ends a command where no prompt is known.
const silence = completion.Silence

// watchQuiet has it looked at the screen when nothing more is printed for a while.
func (l *live) watchQuiet() {
	t := &l.turn
	t.asked = false
	switch {
	case !t.guessing():
		if t.phase == running || t.unheard() {
			l.after(quietAlarm, nestedQuiet)
		}
		return
	case t.phase == reading:
		return
	case t.phase == starting && !t.printed:
		return // it may be slow to greet; the time it has for that tells
	}
	l.after(quietAlarm, promptQuiet)
	// What is printed before anything was sent is the greeting of a device.
	if t.printed || t.phase == starting || t.phase == between {
		l.after(silenceAlarm, silence)
	} else {
		l.after(silenceAlarm, noOutput)
	}
}

// quiet is called when nothing was printed for a while.
func (l *live) quiet() {
	t := &l.turn
	if l.link == nil || l.screen.Alternate() {
		return
	}
	line := l.screen.LineToCursor()
	switch {
	case t.shown:
		t.shown = false
		l.prompted()
	case !t.guessing():
		if (t.phase == running || t.unheard()) && !t.asked && l.prompts.Is(line) {
			t.asked = true
			l.askNested()
		}
	case t.phase == reading, t.phase == sent && t.echo.active && !t.echo.seen:
		// The prompt that is seen may be the one from before.
	case l.prompts.Is(line):
		t.prompted = true
		l.complete(command.ByPrompt)
		if t.cur != nil {
			l.endCommand(t.cur, nil, command.ByPrompt)
		}
		l.read()
	}
}

// silent is called when nothing was printed for long, where no marks tell of ends.
func (l *live) silent() {
	t := &l.turn
	if !t.guessing() || t.phase == reading || l.link == nil || l.screen.Alternate() {
		return
	}
	line := l.screen.LineToCursor()
	by := command.BySilence
	switch {
	case l.prompts.Is(line):
		by, t.prompted = command.ByPrompt, true
	case t.prompted && t.phase == running:
		return // its prompt is known, and will come
	case t.tells && t.phase == starting:
		return // a shell, whose login files take long; so will its prompt
	}
	if p := t.typing; p != nil { // a device that does not show what is typed
		t.typing = nil
		l.run(p, l.begunAt())
	}
	l.complete(by)
	if t.cur != nil {
		l.endCommand(t.cur, nil, by)
	}
	l.read()
}
