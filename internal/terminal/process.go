package terminal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/session"
)

// Sizes of pumps.
const (
	pumpMost = 1 << 20  // a command's pump may be so far behind; the ring has more
	pumpRead = 64 << 10 // what it gives at once
)

// Process is a command that runs, or has run, in the shell of a session. Its methods may
// be called concurrently. Its output is what the terminal shows between its beginning
// and its end; a goroutine, its pump, gives it to Run.Output.
type Process struct {
	live    *live
	started chan struct{} // closed when it has begun, or was refused
	over    chan struct{} // closed when it has ended
	closed  chan struct{} // closed by Close
	done    chan struct{} // closed by the pump when all its output was given
	once    sync.Once     // of closed

	// The owner's.
	number int64
	line   string
	typed  bool // by somebody who typed it, …
	by     access.Caller
	id     string // empty while what was typed is not a command yet
	missed bool   // some of its output was not seen
	doubt  bool   // nobody knows whether it was begun, so that an end that is told may be that of what ran before
	depth  int    // how many shells were started in each other when it began; 0: not known
	frame  frame
	heldAt time.Time

	// Written by the owner once, before started or over is closed.
	run     Run
	refused error
	began   time.Time
	given   int64 // bytes of input
	ending  command.Ending
	lost    error

	// Guarded by live.mu.
	from, to int64 // of its output; below 0: not known yet
	cut      bool  // to is known, its end is not
	at       int64 // of the pump
	held     bool  // the intake waits for the pump
	sinkErr  error
}

func newProcess(l *live, r Run) *Process {
	p := &Process{
		live: l, run: r, id: r.ID, from: -1, to: -1,
		started: make(chan struct{}), over: make(chan struct{}), closed: make(chan struct{}), done: make(chan struct{}),
	}
	if r.Spec != nil {
		p.line = r.Spec.CommandLine()
	}
	return p
}

// Start runs a command in the session that r.Spec.SessionID names, and returns when it
// runs: it waits until the shell reads and nobody is in the middle of typing. One with
// Spec.Typed runs already, or has ended, and is taken up.
//
// While nothing was typed, the end of ctx ends the attempt with fault.Cancelled; after
// that it heeds ctx no more. CONNECTION_LOST and the reasons of a session's end
// (SHELL_EXITED, SESSION_CLOSED, …) mean that it may have run; UNKNOWN_SESSION,
// SESSION_ENDED and NEVER_STARTED that it did not and will not.
func (t *Terminals) Start(ctx context.Context, r Run) (*Process, error) {
	l, err := t.of(ctx, r.Spec.SessionID)
	if err != nil {
		return nil, err
	}
	var p *Process
	if r.Spec.Typed != 0 {
		if err := l.do(ctx, func() { p = l.takeUp(r) }); err != nil {
			return nil, err
		}
		if p == nil {
			return nil, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "nobody has taken up in time what was typed in the session %s", l.name)
		}
		return p, nil
	}
	p = newProcess(l, r)
	err = l.do(ctx, func() {
		l.turn.starts = append(l.turn.starts, p)
		l.pull()
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-p.started:
	case <-ctx.Done():
		if err := l.withdraw(ctx, p); err != nil {
			return nil, err
		}
		<-p.started
	}
	if p.refused != nil {
		return nil, p.refused
	}
	return p, nil
}

// withdraw takes back a command that was not typed yet: then it gives an error.
func (l *live) withdraw(ctx context.Context, p *Process) error {
	back := false
	err := l.do(context.WithoutCancel(ctx), func() {
		starts := &l.turn.starts
		if i := slices.Index(*starts, p); i >= 0 {
			*starts, back = slices.Delete(*starts, i, i+1), true
		}
	})
	if err == nil && back {
		return fault.Wrap(context.Cause(ctx), fault.Cancelled, fault.ReasonCallCancelled, "the command was called off before it was typed in the session %s", l.name)
	}
	return nil // it was typed, or the end of the session refuses it
}

// Resume takes up a command that an earlier run of the service has typed. None of what
// it prints from now on is given. Where the shell reads again, its end is told without
// an exit code, for nobody knows when it came. The code that a mark tells is its own only
// where the last run has stored that it had begun, and nothing was typed behind it.
func (t *Terminals) Resume(ctx context.Context, r Run) (*Process, error) {
	l, err := t.of(ctx, r.Spec.SessionID)
	if err != nil {
		return nil, err
	}
	p := newProcess(l, r)
	if err := l.do(ctx, func() { p = l.resume(p) }); err != nil {
		return nil, err
	}
	return p, nil
}

// resume makes p what runs, if anything does.
func (l *live) resume(p *Process) *Process {
	t := &l.turn
	if cur := t.cur; cur != nil && cur.id == "" && cur.missed && !cur.attached() {
		cur.run, cur.line = p.run, p.line
		l.named(cur, p.id)
		cur.attach(p.run)
		return cur
	}
	p.missed = true
	if t.cur == nil && t.unsure {
		t.cur, t.phase, p.doubt = p, running, t.unseen
		p.begin(l.now, l.offset())
		l.missOutput(p)
		l.publish()
		return p
	}
	p.begin(l.now, l.offset())
	l.missOutput(p)
	end := command.Ending{Completion: command.ByPrompt}
	if t.late != nil {
		end, t.late = *t.late, nil
	}
	p.finish(end, nil)
	return p
}

// of gives a session for a command.
func (t *Terminals) of(ctx context.Context, id string) (*live, error) {
	if l := t.find(id); l != nil {
		return l, nil
	}
	s, err := t.journal.Session(ctx, id)
	if err != nil {
		return nil, err
	}
	if l := t.find(id); l != nil {
		return l, nil
	}
	return nil, overAs(&s)
}

// begin says that it runs, and that its output begins at an offset.
func (p *Process) begin(now time.Time, at int64) {
	l := p.live
	p.began = now
	l.mu.Lock()
	p.from, p.at = at, at
	l.mu.Unlock()
	if p.id != "" {
		l.marks.name(p.number, p.id)
	}
	if p.run.Output != nil {
		p.attach(p.run)
	}
	close(p.started) // who hears of it knows where it began
}

// attach gives its output to who has asked for it.
func (p *Process) attach(r Run) {
	p.run = r
	p.hold(true)
	if r.Began != nil {
		from, _ := p.bounds()
		r.Began(from)
	}
	go p.pump()
}

// attached reports whether somebody gets its output.
func (p *Process) attached() bool { return p.run.Output != nil }

// refuse says that it was not typed and will not be.
func (p *Process) refuse(err error) {
	p.refused = err
	close(p.started)
}

// finish says that it has ended, here or where its output was cut.
func (p *Process) finish(end command.Ending, lost error) {
	l := p.live
	l.mu.Lock()
	if !p.cut {
		p.to = l.ring.end
		if n := int64(len(p.frame.tail)); p.to-max(p.from, 0) >= n && l.ring.start <= p.to-n {
			last := make([]byte, n)
			if l.ring.read(last, p.to-n, p.to); string(last) == p.frame.tail {
				p.to -= n
			}
		}
	}
	if p.missed {
		end.Truncation = &command.Truncation{Offset: command.Sizes{p.run.From[command.Stdout] + p.to - p.from, -1}, Reason: "the connection to the terminal was lost while it ran"}
	}
	p.ending, p.lost = end, lost
	p.cut = false
	l.mu.Unlock()
	close(p.over)
	l.bell.Ring()
}

// missOutput says that what is printed from now on is not its output, as far as anybody
// can tell.
func (l *live) missOutput(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.to < 0 {
		p.missed, p.cut, p.to = true, true, l.ring.end
	}
}

// hold says whether its output is kept.
func (p *Process) hold(yes bool) {
	l := p.live
	l.mu.Lock()
	if p.held = yes; yes {
		if l.holders == nil {
			l.holders = make(map[*Process]bool)
		}
		l.holders[p] = true
	} else {
		delete(l.holders, p)
	}
	l.mu.Unlock()
	l.moved()
}

// moved wakes an owner who waits for a pump.
func (l *live) moved() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// lag is how far the last of the pumps is behind.
func (l *live) lag() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var most int64
	for p := range l.holders {
		if p.to < 0 || p.at < p.to { // of what has ended, the rest must stay too
			most = max(most, l.ring.end-p.at)
		}
	}
	return most
}

// bounds gives where its output begins and ends; below 0 where that is not known.
func (p *Process) bounds() (from, to int64) {
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	if p.cut {
		return p.from, -1
	}
	return p.from, p.to
}

func (p *Process) endsAt() int64 {
	_, to := p.bounds()
	return to
}

// begun reports whether it was typed.
func (p *Process) begun() bool {
	from, _ := p.bounds()
	return from >= 0
}

// pump gives its output.
func (p *Process) pump() {
	l := p.live
	defer p.hold(false)
	buf := make([]byte, pumpRead)
	lead := p.frame.lead != nil
	for {
		rung := l.bell.Rung()
		l.mu.Lock()
		to, whole := p.to, p.to >= 0
		if !whole {
			to = l.ring.end
		}
		if p.sinkErr == nil && p.at < l.ring.start {
			// A connection that is lost again and again draws the screen anew each time.
			p.sinkErr = fault.New(fault.Unavailable, fault.ReasonOutputIncomplete, "it was read too slowly, and is not kept any more")
			delete(l.holders, p)
		}
		n := 0
		if p.sinkErr == nil {
			n = l.ring.read(buf, p.at, to)
		}
		if !whole && p.at+int64(n) == to {
			n -= partOf(p.frame.tail, buf[:n])
		}
		if lead && n > 0 {
			m := len(p.frame.lead.Find(buf[:n]))
			p.at += int64(m)
			if n -= m; whole || n > 0 && !unfinishedEscape(buf[m:m+n]) {
				lead = false
			} else {
				n = 0
			}
			copy(buf, buf[m:m+n])
		}
		l.mu.Unlock()
		if n > 0 {
			err := p.run.Output(command.Stdout, buf[:n])
			l.mu.Lock()
			p.at += int64(n)
			p.sinkErr = err
			l.mu.Unlock()
			if err != nil {
				p.hold(false)
			}
			l.moved()
			select {
			case <-p.closed:
				return
			default:
			}
			continue
		}
		if whole {
			select {
			case <-p.over: // all was given
				close(p.done)
				return
			default:
			}
		}
		select {
		case <-rung:
		case <-p.closed:
			return
		}
	}
}

// Started is when it began.
func (p *Process) Started() time.Time {
	<-p.started
	return p.began
}

// Durability tells that it lives as its terminal does.
func (p *Process) Durability() (command.Durability, string) {
	s := p.live.snapshot()
	why := "which ends with its connection"
	if s.Keeper != session.KeptByNone && s.Keeper != "" {
		why = "which " + strings.ToLower(string(s.Keeper)) + " keeps"
	}
	return command.Attached, fmt.Sprintf("it runs in the terminal of session %s, %s", s.Spec.Name, why)
}

// Wait blocks until it has ended and all its output was given to Run.Output. An error
// means that its outcome is not known: CONNECTION_LOST, or why the session has ended;
// with OUTPUT_INCOMPLETE the ending is true, but Run.Output has failed.
func (p *Process) Wait() (command.Ending, error) {
	select {
	case <-p.done:
	case <-p.closed:
		return command.Ending{}, fault.New(fault.Unavailable, fault.ReasonConnectionLost, "the command in session %s was let go of", p.live.name)
	}
	p.live.mu.Lock()
	defer p.live.mu.Unlock()
	if p.lost == nil && p.sinkErr != nil {
		return p.ending, fault.Wrap(p.sinkErr, fault.Unavailable, fault.ReasonOutputIncomplete, "the output of the command could not be kept")
	}
	return p.ending, p.lost
}

// ended reports whether it has ended.
func (p *Process) ended() bool {
	return isClosed(p.over)
}

// Collected does nothing: a host keeps nothing of what runs in a terminal.
func (*Process) Collected() {}

// Close lets go of it without touching it; Wait then returns.
func (p *Process) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Input is InputBy of nobody known.
func (p *Process) Input(ctx context.Context, data []byte, eof bool) (total int64, err error) {
	return p.InputBy(ctx, access.Caller{}, data, eof)
}

// InputBy types; eof is Ctrl-D. KEYBOARD_TAKEN while somebody else has the keyboard. What the
// command does not read is read by the shell, and is a command that the caller has typed.
func (p *Process) InputBy(ctx context.Context, by access.Caller, data []byte, eof bool) (total int64, err error) {
	l := p.live
	if eof {
		data = append(slices.Clip(data), 0x04)
	}
	err = l.enter(ctx, func() (full *wanting, err error) {
		switch {
		case p.ended():
			return nil, notRunning(l.name)
		case l.keyboardOfAnother(by):
			return nil, l.keyboardTaken()
		}
		if full, err = l.key(data); full == nil && err == nil {
			p.given += int64(len(data))
			l.typed(by, data)
		}
		total = p.given
		return full, err
	})
	return total, err
}

func notRunning(name string) error {
	return fault.New(fault.FailedPrecondition, fault.ReasonNotRunning, "the command in session %s has ended", name).
		WithHint("Type in the session, or run another command there")
}
