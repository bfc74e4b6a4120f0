package terminal

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// keyboardFor is how long after the last key somebody has the keyboard who did not take
// it.
const keyboardFor = 10 * time.Second

// typingEvery is how often the audit is told at most that somebody types.
const typingEvery = time.Minute

// A viewer may move the keyboard so often: the audit has each time.
const (
	moveEvery = time.Second
	movesMost = 20 // at once
)

// keyboard is who has the keyboard. Who types while nobody has it gets it for a while;
// who took it or was given it has it until it is released, handed over, taken, or its
// holder has left. It is the owner's.
type keyboard struct {
	holder string // id of a viewer; empty: nobody
	taken  bool   // not only by typing
	last   time.Time
}

// keyboardTaken is the refusal of what somebody else types.
func (l *live) keyboardTaken() error {
	who := l.keyboard.holder
	if v := l.viewer(who); v != nil {
		who = v.by.Name
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonKeyboardTaken, "%s has the keyboard of session %s", who, l.name).
		WithHint("Ask for it, take it, or wait until it is released").With("session", l.id).With("viewer", l.keyboard.holder).With("principal", who)
}

// keyboardOfAnother reports whether somebody else has the keyboard than the caller, as
// whichever viewer.
func (l *live) keyboardOfAnother(by access.Caller) bool {
	holder := l.viewer(l.keyboard.holder)
	return holder != nil && holder.by.Name != by.Name
}

// viewer gives a viewer by its id; nil where it has left.
func (l *live) viewer(id string) *Viewer {
	if i := slices.IndexFunc(l.viewers, func(v *Viewer) bool { return v.id == id }); i >= 0 {
		return l.viewers[i]
	}
	return nil
}

// keyboardIdle gives back a keyboard that was not taken, and that nobody types on.
func (l *live) keyboardIdle() {
	k := &l.keyboard
	if k.holder == "" || k.taken {
		return
	}
	if left := keyboardFor - l.now.Sub(k.last); left > 0 {
		l.after(keyboardAlarm, left)
		return
	}
	l.keyboard = keyboard{}
	l.fit()
	l.publish()
}

// mayType is why the viewer does not type; nil where it does. Who may is another one
// where the policy is, which may have changed since it was attached.
func (v *Viewer) mayType() error {
	l := v.live
	if v.role != session.Writer {
		return observes(l.name)
	}
	return l.set.rights.MayType(v.by, l.set.thing(&l.s))
}

// Input types. TYPING_NOT_ALLOWED of an observer, or where it may no more, KEYBOARD_TAKEN while somebody else has
// the keyboard, CONNECTION_LOST while there is no connection. It waits while the programs
// do not read what was typed before.
func (v *Viewer) Input(ctx context.Context, data []byte) error {
	l := v.live
	return l.enter(ctx, func() (full *wanting, err error) {
		if err := v.mayType(); err != nil {
			return nil, err
		}
		switch {
		case l.viewer(v.id) == nil:
			return nil, gone(v.id)
		case l.keyboard.holder != "" && l.keyboard.holder != v.id:
			return nil, l.keyboardTaken()
		}
		l.fitForKeys()
		if full, err = l.key(data); full != nil || err != nil {
			return full, err
		}
		v.info.LastInput = l.now
		if l.keyboard.last = l.now; l.keyboard.holder == "" {
			l.keyboard.holder = v.id
			l.after(keyboardAlarm, keyboardFor)
			l.fit()
			l.publish()
		}
		l.typed(v.by, data)
		l.tellTyping(v.by, v.info)
		return nil, nil
	})
}

// wanting is what has no room yet; without keys it is not noted yet: see behind.go.
type wanting struct {
	keys *keys
	size int
}

// enter has the owner type, again and again while there is no room.
func (l *live) enter(ctx context.Context, typing func() (full *wanting, err error)) error {
	for {
		var full *wanting
		var err error
		if asked := l.do(ctx, func() { full, err = typing() }); asked != nil {
			return asked
		}
		if err != nil || full == nil {
			return err
		}
		if full.keys == nil {
			l.noteBehind(ctx)
		} else if err := full.keys.wait(ctx, full.size, l.over); err != nil {
			return err
		}
	}
}

// key sends keys to the shell. full is where there is room for them soon; nil: they were
// taken.
func (l *live) key(data []byte) (full *wanting, err error) {
	if n := l.turn.nesting; n != nil && l.link != nil {
		if len(n.keys)+len(data) <= keysMost {
			n.keys = append(n.keys, data...)
			return nil, nil
		}
		l.notIntegrated()
	}
	switch {
	case l.link == nil:
		return nil, l.noLink()
	case l.typesBehind(data):
		l.turn.noted = true
		l.save()
		return &wanting{}, nil
	case bytes.IndexByte(data, interrupt) >= 0:
		// What is on its way is read at full speed, so that the prompt is soon back.
		l.lift = l.now.Add(liftFor)
		l.link.keys.forget()
	}
	if !l.link.keys.put(data, false) {
		return &wanting{l.link.keys, len(data)}, nil
	}
	return nil, nil
}

// tellTyping tells viewers, and the audit, that somebody types.
func (l *live) tellTyping(by access.Caller, who session.Viewer) {
	l.typing = who
	l.sooner(typingAlarm, typedEvery-l.now.Sub(l.typingTold))
	if told, ok := l.heard[by.Name]; !ok || l.now.Sub(told) >= typingEvery {
		if len(l.heard) > 1000 {
			clear(l.heard)
		}
		l.heard[by.Name] = l.now
		l.scribe.tell(entry(audit.SessionTyped, by, &l.s))
	}
}

// tellTypist tells viewers who typed last.
func (l *live) tellTypist() {
	l.typingTold = l.now
	l.mu.Lock()
	l.typist = l.typing
	l.typings++
	l.mu.Unlock()
	l.bell.Ring()
}

// Keyboard takes the keyboard, gives it back, or gives it to another writer.
// UNKNOWN_VIEWER where nobody of that id is there, KEYBOARD_TAKEN where it is somebody
// else's to give, TYPING_NOT_ALLOWED where an observer would get it.
func (v *Viewer) Keyboard(ctx context.Context, a KeyboardAction, viewer string) error {
	l := v.live
	var err error
	if asked := l.do(ctx, func() { err = l.move(v, a, viewer) }); asked != nil {
		return asked
	}
	return err
}

// move moves the keyboard.
func (l *live) move(v *Viewer, a KeyboardAction, to string) error {
	k := &l.keyboard
	switch {
	case l.viewer(v.id) == nil:
		return gone(v.id)
	case v.role != session.Writer:
		return observes(l.name)
	case a != ReleaseKeyboard && v.mayType() != nil:
		return v.mayType()
	case a != TakeKeyboard && k.holder != "" && k.holder != v.id:
		return l.keyboardTaken()
	}
	if v.moves = max(0, v.moves-int(l.now.Sub(v.moved)/moveEvery)); v.moves >= movesMost {
		return fault.New(fault.Exhausted, fault.ReasonRateLimited, "the keyboard of session %s is moved too often", l.name).
			WithHint("Wait a moment").WithRetry(moveEvery)
	}
	v.moves, v.moved = v.moves+1, l.now
	told := entry(audit.SessionKeyboard, v.by, &l.s)
	switch a {
	case TakeKeyboard:
		told.Detail = "taken"
		if other := l.viewer(k.holder); other != nil && other != v {
			told.Detail = "taken from " + other.by.Name
		}
		*k = keyboard{holder: v.id, taken: true, last: l.now}
	case ReleaseKeyboard:
		if k.holder == "" {
			return nil
		}
		told.Detail = "released"
		*k = keyboard{}
	case HandOverKeyboard:
		other := l.viewer(to)
		switch {
		case other == nil:
			return gone(to)
		case other.role != session.Writer:
			return fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "%s observes the session %s, and does not type", other.by.Name, l.name).
				WithHint("Hand the keyboard to a writer")
		case k.holder != v.id:
			return fault.New(fault.FailedPrecondition, fault.ReasonKeyboardTaken, "nobody has the keyboard of session %s, so it cannot be handed over", l.name).
				WithHint("Take it first")
		}
		told.Detail = "handed over to " + other.by.Name
		*k = keyboard{holder: to, taken: true, last: l.now}
	default:
		return fault.New(fault.Invalid, fault.ReasonInvalidRequest, "there is nothing of this kind to do with a keyboard").WithHint("Take it, release it or hand it over")
	}
	l.scribe.tell(told)
	l.fit()
	l.publish()
	return nil
}

func observes(name string) error {
	return fault.New(fault.PermissionDenied, fault.ReasonTypingNotAllowed, "an observer of session %s does not type", name).
		WithHint("Attach as a writer")
}

func gone(viewer string) error {
	return fault.New(fault.NotFound, fault.ReasonUnknownViewer, "nobody with the id %q is attached", viewer).
		WithHint("The session tells who is there").With("viewer", viewer)
}
