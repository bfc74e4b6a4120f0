package terminal

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// What viewers are given.
const (
	windowUsual     = 256 << 10
	windowLeast     = 16 << 10
	windowMost      = ringMost
	viewerRead      = 64 << 10 // bytes of an EventOutput at most
	scrollbackUsual = 1000
	behindAfter     = time.Second            // it is told that a viewer is waited for after so long
	typedEvery      = 250 * time.Millisecond // it is told that somebody types at most so often
	sessionEvery    = 100 * time.Millisecond // … and at most so often that the session has changed, but for what cannot wait
	takenAfter      = time.Minute            // a viewer who takes nothing is told of the end after so long
	viewersMost     = 100                    // of one session
	labelMost       = 64
	notesMost       = 1024
	namesMost       = 4096
)

// Viewer is somebody who is attached to a session: a cursor in its output. Next is for
// one goroutine, the rest may be called concurrently. Whoever attached it closes it.
type Viewer struct {
	live       *live
	by         access.Caller
	id         string
	role       session.Role
	window     int64
	scrollback int

	// Of the goroutine that calls Next.
	attached bool // EventAttached was given
	over     bool // EventEnded was given
	first    *Picture
	resumed  bool
	changes  int64 // of the session, told last, …
	looks    looks // … as it was, …
	told     time.Time
	wait     time.Duration // until then there is something to tell; 0: until the bell rings
	noted    int64         // notes told
	typings  int64         // told
	buf      []byte

	// Guarded by live.mu.
	at, acked int64
	blocked   time.Time // since when it is waited for; zero: it is not
	left      bool

	// The owner's.
	info  session.Viewer
	size  *session.Size
	sized int64 // when it told its size, in the order of all viewers
	moves int   // how often it has moved the keyboard lately, …
	moved time.Time

	once sync.Once
}

// looks is what a viewer must be told at once when it changes: what comes next is not
// understood without it.
type looks struct {
	state      session.State
	connection command.Connection
	size       session.Size
	keyboard   string
}

func looksOf(s *session.Session) looks { return looks{s.State, s.Connection, s.Size, s.Keyboard} }

// note is that a command was begun, or has ended, at an offset.
type note struct {
	id     string
	offset int64
	over   bool  // it has ended
	known  int64 // where the output ended when this became known, which may be much later
}

// note tells viewers of a command.
func (l *live) note(id string, offset int64, over bool) {
	if id == "" {
		return // what was typed is not a command yet
	}
	l.mu.Lock()
	if len(l.notes) == notesMost {
		l.notes = slices.Delete(l.notes, 0, notesMost/2)
	}
	l.notes = append(l.notes, note{id, offset, over, l.ring.end})
	l.noted++
	l.mu.Unlock()
	l.bell.Ring()
}

// names has the ids of commands by their numbers, which is what the screen knows them by.
type names struct {
	ids   map[int64]string
	order []int64
}

func (n *names) name(number int64, id string) {
	if number == 0 || id == "" || n.ids[number] == id {
		return
	}
	if n.ids == nil {
		n.ids = make(map[int64]string)
	}
	if len(n.order) == namesMost {
		delete(n.ids, n.order[0])
		n.order = slices.Delete(n.order, 0, 1)
	}
	n.ids[number] = id
	n.order = append(n.order, number)
}

// Attach makes the caller a viewer of a session. As Writer it must be one who may type:
// TYPING_NOT_ALLOWED. SESSION_ENDED where there is nothing to see any more,
// TOO_MANY_STREAMS where too many see it.
func (t *Terminals) Attach(ctx context.Context, by access.Caller, ref string, o AttachOptions) (*Viewer, error) {
	l, err := t.open(ctx, by, access.Look, ref)
	if err != nil {
		return nil, err
	}
	s := l.snapshot()
	switch err := t.rights.MayType(by, t.thing(&s)); {
	case o.Role == "" && err == nil:
		o.Role = session.Writer
	case o.Role == "":
		o.Role = session.Observer
	case o.Role == session.Writer && err != nil:
		return nil, err
	}
	v := &Viewer{live: l, by: by, role: o.Role, window: windowUsual, scrollback: o.Scrollback}
	if o.Window > 0 {
		v.window = int64(min(max(o.Window, windowLeast), windowMost))
	}
	if v.scrollback < 0 {
		v.scrollback = scrollbackUsual
	}
	var full error
	admit := func() { full = l.admit(v, o) }
	if l.resumable(o.From) {
		err = l.do(ctx, admit)
	} else {
		err = l.look(ctx, v.scrollback, admit)
	}
	if err = cmp.Or(err, full); err != nil {
		return nil, err
	}
	return v, nil
}

// resumable reports whether a viewer can go on at an offset.
func (l *live) resumable(from *int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return from != nil && l.ring.has(*from)
}

// admit lets a viewer in.
func (l *live) admit(v *Viewer, o AttachOptions) error {
	if len(l.viewers) >= viewersMost {
		return fault.New(fault.Exhausted, fault.ReasonTooManyStreams, "%d viewers are attached to the session %s, and no more can be", len(l.viewers), l.name).
			WithHint("Close some that are not needed any more; ReadScreen shows what is to be seen without attaching").With("session", l.id)
	}
	l.visitors++
	v.id = "v" + strconv.Itoa(l.visitors)
	v.info = session.Viewer{ID: v.id, Actor: v.by.Actor(), Role: v.role, Label: plainText(o.Label, labelMost), Since: l.now}
	l.mu.Lock()
	v.noted, v.typings = l.noted, l.typings
	v.resumed = o.From != nil && l.ring.has(*o.From)
	if v.resumed {
		v.at = *o.From
		// What became known of commands meanwhile it was not told either.
		if i := slices.IndexFunc(l.notes, func(n note) bool { return n.known >= v.at }); i >= 0 {
			v.noted -= int64(len(l.notes) - i)
		}
	}
	l.mu.Unlock()
	l.viewers = append(l.viewers, v)
	if o.Size != nil {
		l.resized(v, *o.Size) // before the picture, which is then of a size that its window has
	}
	if !v.resumed {
		v.first = l.picture(v.scrollback)
		v.at = v.first.Offset
	}
	v.acked = v.at
	l.sooner(behindAlarm, behindAfter)
	l.publish()
	l.mu.Lock()
	v.changes, v.looks = l.changes, looksOf(&l.pub) // EventAttached has it
	l.mu.Unlock()
	return nil
}

// picture gives the terminal as it is.
func (l *live) picture(scrollback int) *Picture {
	p := &Picture{Offset: l.offset(), Data: l.screen.Snapshot(scrollback)}
	p.Size.Columns, p.Size.Rows = l.screen.Size()
	for _, m := range l.screen.Marks(scrollback) {
		number, _ := strconv.ParseInt(m.ID, 10, 64) // read has made it
		if id := l.marks.ids[number]; id != "" {
			p.Marks = append(p.Marks, Mark{ID: id, Line: m.Line})
		}
	}
	return p
}

// ID is of session.Viewer.
func (v *Viewer) ID() string { return v.id }

// Role is what it may do.
func (v *Viewer) Role() session.Role { return v.role }

// Next waits for what is to be told next. Behind EventEnded it gives io.EOF, and an
// error where the service stops. When ctx ends it gives ctx's error and may be called
// again: nothing is lost. An event's Data is good until the next call.
func (v *Viewer) Next(ctx context.Context) (Event, error) {
	for {
		rung := v.live.bell.Rung()
		e, ok, err := v.poll(ctx)
		if ok || err != nil {
			return e, err
		}
		if err := v.rest(ctx, rung); err != nil {
			return Event{}, err
		}
	}
}

// rest waits until there may be something to tell.
func (v *Viewer) rest(ctx context.Context, rung <-chan struct{}) error {
	var due <-chan time.Time
	if v.wait > 0 {
		timer := time.NewTimer(v.wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-rung:
	case <-due:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// poll gives what there is to tell now. Changes of the session come before output, unless
// there was one just before and they can wait.
func (v *Viewer) poll(ctx context.Context) (e Event, ok bool, err error) {
	l := v.live
	if v.over {
		return e, false, io.EOF
	}
	l.mu.Lock()
	v.wait = 0
	switch s := l.told(); {
	case v.left:
		err = fault.New(fault.Cancelled, fault.ReasonCallCancelled, "the viewer has left the session %s", l.name)
	case !v.attached:
		v.attached = true
		e, ok = Event{Kind: EventAttached, Session: &s, Offset: v.at, Resumed: v.resumed}, true
	case v.first != nil:
		e, ok = Event{Kind: EventScreen, Screen: v.first, Offset: v.first.Offset}, true
		v.first = nil
	case v.changed(&s):
		v.changes, v.looks, v.told = l.changes, looksOf(&s), time.Now()
		e, ok = Event{Kind: EventSession, Session: &s}, true
	case v.typings != l.typings && l.typist.ID != v.id:
		v.typings = l.typings
		typist := l.typist
		e, ok = Event{Kind: EventTyped, Typist: &typist}, true
	default:
		v.typings = l.typings
		e, ok = v.output()
		if ok || !v.through(s.Ended() || l.stopped) {
			break
		}
		switch {
		case s.Ended():
			v.over = true
			e, ok = Event{Kind: EventEnded, Session: &s}, true
		case l.stopped:
			err = fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down; the shell goes on").
				WithHint("Attach again in a moment, at the offset that was reached").WithRetry(time.Second)
		}
	}
	anew := !ok && err == nil && v.fell() && v.room() > 0
	l.mu.Unlock()
	if anew {
		return v.redraw(ctx)
	}
	return e, ok, err
}

// changed reports whether it is to be told now that the session, which is s, has changed.
// Its caller holds mu.
func (v *Viewer) changed(s *session.Session) bool {
	if v.changes == v.live.changes || s.Ended() {
		return false
	}
	v.wait = max(0, sessionEvery-time.Since(v.told))
	return v.wait == 0 || v.looks != looksOf(s)
}

// through reports whether nothing more can be given to it: it has all there is, or, where
// no more will come, it takes nothing. Its caller holds mu.
func (v *Viewer) through(over bool) bool {
	switch {
	case v.room() > 0:
		return !v.fell() && v.at == v.live.ring.end
	case v.at == v.live.ring.end:
		return true
	case !over:
		return false
	case v.fell(): // it would have to be given the screen
		return true
	}
	v.wait = max(0, takenAfter-time.Since(v.blocked))
	return v.wait == 0
}

// fell reports whether the next byte is not kept any more. Its caller holds mu.
func (v *Viewer) fell() bool { return v.at < v.live.ring.start }

// room is how many bytes it may be given now. Its caller holds mu.
func (v *Viewer) room() int64 { return v.window - (v.at - v.acked) }

// output gives what comes next of the output and of the notes in it. Its caller holds
// mu.
func (v *Viewer) output() (e Event, ok bool) {
	l := v.live
	until := l.ring.end
	if oldest := l.noted - int64(len(l.notes)); v.noted < oldest {
		v.noted = oldest
	}
	if v.noted < l.noted {
		n := l.notes[int64(len(l.notes))-(l.noted-v.noted)]
		if n.offset <= v.at {
			v.noted++
			return Event{Kind: EventCommand, CommandID: n.id, Offset: n.offset, Over: n.over}, true
		}
		until = min(until, n.offset)
	}
	room := v.room()
	if until > v.at && room <= 0 {
		if v.blocked.IsZero() {
			v.blocked = time.Now()
		}
		return e, false
	}
	n := min(until-v.at, room, viewerRead)
	if n <= 0 || v.fell() {
		return e, false
	}
	if int64(cap(v.buf)) < n {
		v.buf = make([]byte, max(n, 4<<10))
	}
	data := v.buf[:l.ring.read(v.buf[:n], v.at, until)]
	e = Event{Kind: EventOutput, Offset: v.at, Data: data}
	v.at += int64(len(data))
	return e, true
}

// redraw gives the screen anew to a viewer who was left behind.
func (v *Viewer) redraw(ctx context.Context) (Event, bool, error) {
	l := v.live
	var p *Picture
	take := func() {
		p = l.picture(v.scrollback)
		l.mu.Lock()
		v.at, v.acked, v.blocked = p.Offset, p.Offset, time.Time{}
		l.mu.Unlock()
	}
	if err := l.look(ctx, v.scrollback, take); err != nil {
		if ctx.Err() != nil {
			return Event{}, false, context.Cause(ctx)
		}
		l.late.Lock() // the owner is gone, and nobody changes the screen any more
		defer l.late.Unlock()
		take()
	}
	return Event{Kind: EventScreen, Screen: p, Offset: p.Offset}, true, nil
}

// Acknowledge says that all output before an offset was taken.
func (v *Viewer) Acknowledge(offset int64) {
	l := v.live
	l.mu.Lock()
	if offset = min(offset, v.at); offset > v.acked {
		v.acked, v.blocked = offset, time.Time{}
	}
	l.mu.Unlock()
	l.bell.Ring()
}

// Resize tells the size of the viewer's window.
func (v *Viewer) Resize(size session.Size) {
	v.live.post(func() { v.live.resized(v, size) })
}

// Close ends the attachment; Next then fails. It may be called twice.
func (v *Viewer) Close() {
	v.once.Do(func() {
		l := v.live
		l.mu.Lock()
		v.left = true
		l.mu.Unlock()
		l.bell.Ring()
		l.post(func() { l.leave(v) })
	})
}

// leave lets a viewer go.
func (l *live) leave(v *Viewer) {
	i := slices.Index(l.viewers, v)
	if i < 0 {
		return
	}
	l.viewers = slices.Delete(l.viewers, i, i+1)
	if l.keyboard.holder == v.id {
		l.keyboard = keyboard{}
	}
	l.fit()
	l.publish()
}

// lookBehind tells which viewers are waited for.
func (l *live) lookBehind() {
	if len(l.viewers) == 0 {
		return
	}
	l.after(behindAlarm, behindAfter)
	changed := false
	l.mu.Lock()
	for _, v := range l.viewers {
		behind := !v.blocked.IsZero() && l.now.Sub(v.blocked) >= behindAfter
		changed = changed || behind != v.info.Behind
		v.info.Behind = behind
	}
	l.mu.Unlock()
	if changed {
		l.publish()
	}
}

// resized takes the size of a viewer's window.
func (l *live) resized(v *Viewer, size session.Size) {
	if size.Columns < 2 || size.Columns > 1000 || size.Rows < 2 || size.Rows > 500 {
		return // the door refuses it; a terminal must not be of it
	}
	l.sizes++
	v.size, v.sized = &size, l.sizes
	l.fit()
}

// How often the terminal gets another size: that is work, and programs draw all anew.
const (
	fitEvery = 100 * time.Millisecond
	fitPause = 10 // times as long as the last one has taken
)

// fitForKeys gives the terminal the size that it is about to get, before somebody types:
// who types has seen it. Where that takes long it has its time all the same.
func (l *live) fitForKeys() {
	if !l.due[fitAlarm].IsZero() && l.fitCheap {
		l.unset(fitAlarm)
		l.fitNext = time.Time{}
		l.fit()
	}
}

// fit gives the terminal the size of whoever has the keyboard, else of the writer who
// told last, or does so soon, as it is then.
func (l *live) fit() {
	var of *Viewer
	for _, v := range l.viewers {
		if v.size == nil || v.role != session.Writer {
			continue
		}
		if v.id == l.keyboard.holder {
			of = v
			break
		}
		if of == nil || v.sized > of.sized {
			of = v
		}
	}
	if of == nil || *of.size == l.s.Size {
		return
	}
	if left := l.fitNext.Sub(l.now); left > 0 {
		l.after(fitAlarm, left)
		return
	}
	began := time.Now()
	defer func() {
		now := time.Now()
		l.fitCheap = fitPause*now.Sub(began) < fitEvery
		l.fitNext = now.Add(max(fitEvery, fitPause*now.Sub(began)))
	}()
	l.s.Size = *of.size
	l.screen.Resize(l.s.Size.Columns, l.s.Size.Rows)
	l.rec.resize(l.s.Size)
	if l.link != nil {
		l.link.keys.resize(l.s.Size)
	}
	l.publish()
}
