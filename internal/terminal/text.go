package terminal

import (
	"context"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/session"
)

// settleMost is how long Keys waits at most for the screen to be still.
const settleMost = 10 * time.Second

// Screen gives what is on the screen, behind so many lines of scrollback.
func (t *Terminals) Screen(ctx context.Context, by access.Caller, ref string, scrollback int) (Text, error) {
	l, err := t.open(ctx, by, access.Look, ref)
	if err != nil {
		return Text{}, err
	}
	var text Text
	err = l.look(ctx, scrollback, func() { text = l.text(scrollback) })
	return text, err
}

func (l *live) text(scrollback int) Text {
	var t Text
	t.Lines, t.Scrollback = l.screen.Lines(scrollback)
	t.CursorRow, t.CursorColumn = l.screen.Cursor()
	t.Alternate = l.screen.Alternate()
	t.Session = l.snapshot()
	return t
}

// Keys types, and gives the screen when nothing was printed for as long as settle, or
// after settleMost. It needs what Viewer.Input needs of a writer; whoever has the
// keyboard as a viewer may use it too.
func (t *Terminals) Keys(ctx context.Context, by access.Caller, ref string, pressed []session.Key, settle time.Duration, scrollback int) (text Text, settled bool, err error) {
	l, err := t.open(ctx, by, access.Act, ref)
	if err != nil {
		return text, false, err
	}
	s := l.snapshot()
	if err := t.rights.MayType(by, t.thing(&s)); err != nil {
		return text, false, err
	}
	var at int64
	err = l.enter(ctx, func() (full *wanting, err error) {
		if l.keyboardOfAnother(by) {
			return nil, l.keyboardTaken()
		}
		var data []byte
		for _, k := range pressed {
			b, err := keyBytes(k, l.screen.ApplicationCursor())
			if err != nil {
				return nil, err
			}
			data = append(data, b...)
		}
		at = l.offset()
		if full, err = l.key(data); full == nil && err == nil {
			l.typed(by, data)
			l.tellTyping(by, session.Viewer{Actor: by.Actor(), Role: session.Writer})
		}
		return full, err
	})
	if err != nil {
		return text, false, err
	}
	settled, err = l.still(ctx, at, settle)
	if err != nil {
		return text, false, err
	}
	err = l.look(ctx, scrollback, func() { text = l.text(scrollback) })
	return text, settled, err
}

// still waits until nothing is printed for as long as settle.
func (l *live) still(ctx context.Context, at int64, settle time.Duration) (bool, error) {
	most := time.NewTimer(settleMost)
	defer most.Stop()
	quiet := time.NewTimer(settle)
	defer quiet.Stop()
	for {
		rung := l.bell.Rung()
		l.mu.Lock()
		end := l.ring.end
		l.mu.Unlock()
		if end != at {
			at = end
			quiet.Reset(settle)
		}
		select {
		case <-rung:
		case <-quiet.C:
			return true, nil
		case <-most.C:
			return false, nil
		case <-l.over:
			return true, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
