package terminal

import (
	"bytes"
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
)

// Times of what people type.
const (
	tellMost   = 20 * time.Second // what it may take to make a command of it
	unheldMost = 30 * time.Second // its output is kept so long for whoever takes it up
	typedMost  = 100              // so many wait to be taken up; until then the shell waits
)

// typed notes what somebody types, which goes to the shell.
func (l *live) typed(by access.Caller, data []byte) {
	t := &l.turn
	t.typist, t.typedAt = by, l.now
	t.unseen = t.unseen || t.unsure && t.phase == running // the shell may read already
	l.stayActive()
	behind := data
	if t.phase == reading && t.typing == nil {
		t.keyed = 0
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			i = len(data) - 1
		}
		behind = data[i+1:]
	}
	if len(behind) > 0 {
		t.keyed = behind[len(behind)-1]
	}
	if bytes.IndexByte(data, interrupt) >= 0 {
		t.ahead, t.dirty = typedAhead{}, false
	}
	end := bytes.LastIndexAny(data, "\r\n")
	switch {
	case t.typing == nil && (t.phase == reading || t.phase == sent):
		if end >= 0 {
			l.enterTyped()
		}
		t.dirty = t.dirty || end < len(data)-1 && data[len(data)-1] != interrupt
		if len(t.starts) > 0 {
			l.after(pullAlarm, typingMost)
		}
	default:
		t.ahead.add(data, l.offset())
	}
}

// typedProcess makes the command that somebody has typed. Its output is kept for whoever
// takes it up, from now on.
func (l *live) typedProcess(line string) *Process {
	p := newProcess(l, Run{})
	p.typed, p.line, p.by = true, line, l.turn.typist
	return p
}

// tellTyped has a command made of what was typed.
func (l *live) tellTyped(p *Process) {
	l.set.mu.Lock()
	commands := l.set.commands
	l.set.mu.Unlock()
	if commands == nil || p.by.Name == "" {
		return
	}
	p.hold(true)
	p.heldAt = l.now
	l.turn.typed[p.number] = p
	l.sooner(unheldAlarm, unheldMost)
	s, by, number, line := l.snapshot(), p.by, p.number, p.line
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, tellMost)
		defer stop()
		id, err := commands.Typed(ctx, by, s, number, line)
		return func() { l.toldTyped(p, id, err) }
	})
}

// toldTyped takes the id of a command that was typed.
func (l *live) toldTyped(p *Process, id string, err error) {
	if err != nil {
		l.set.log.Warn("what was typed is no command", "session", l.id, "host", l.host.Name, "principal", p.by.Name, "error", err)
		p.hold(false)
		delete(l.turn.typed, p.number)
		return
	}
	l.named(p, id)
}

// named gives a command that was typed its id, and tells of it.
func (l *live) named(p *Process, id string) {
	if p.id != "" {
		return
	}
	p.id = id
	l.marks.name(p.number, id)
	begin, end := p.bounds()
	l.note(id, begin, false)
	if end >= 0 {
		l.note(id, end, true)
	}
	l.publish()
}

// takeUp gives the command that was typed with a number to who asks for it.
func (l *live) takeUp(r Run) *Process {
	p := l.turn.typed[r.Spec.Typed]
	if p == nil {
		return nil
	}
	delete(l.turn.typed, r.Spec.Typed)
	l.named(p, r.ID)
	p.attach(r)
	return p
}

// dropUnheld lets go of the output of what nobody has taken up.
func (l *live) dropUnheld() {
	for number, p := range l.turn.typed {
		if l.end != nil || l.now.Sub(p.heldAt) >= unheldMost {
			p.hold(false)
			delete(l.turn.typed, number)
		} else {
			l.sooner(unheldAlarm, unheldMost-l.now.Sub(p.heldAt))
		}
	}
}
