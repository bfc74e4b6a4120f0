package terminal

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/completion"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/screen"
	"github.com/telexec/telexec/internal/session"
)

// Times and sizes of an owner's work.
const (
	publishAfter = 250 * time.Millisecond
	saveAfter    = time.Second
	saveOutput   = 5 * time.Second // outputGap is more than can come in that time
	storeMost    = 10 * time.Second
	asideMost    = 10 * time.Second // what the host may take to tell who has its terminal
)

// alarm is something that is due at a time.
type alarm uint8

// The alarms, each with its handler in rouse.
const (
	flushAlarm alarm = iota
	intakeAlarm
	quietAlarm
	silenceAlarm
	pullAlarm
	beganAlarm
	cancelAlarm
	keyboardAlarm
	idleAlarm
	expireAlarm
	publishAlarm
	saveAlarm
	outputAlarm
	recordAlarm
	openAlarm
	nestedAlarm
	behindAlarm
	redialAlarm
	unheldAlarm
	typingAlarm
	groupAlarm
	fitAlarm
	alarms // how many there are
)

// live is a session that has not ended, or has just ended and is still read. Its owner
// (the goroutine in own) is the only one who changes it; everything else asks it by do.
// The fields are grouped by who may touch them.
type live struct {
	// Constant.
	set       *Terminals
	id        string
	name      string
	createdBy string
	host      inventory.Host
	recovered bool          // an earlier run of the service opened it, …
	taped     int64         // … and has recorded so many bytes
	marked    string        // the kind of the shell whose marks told ends then; empty: none told any
	calls     chan func()   // to the owner, which runs them; unbuffered, never closed
	over      chan struct{} // closed by the owner when it takes no more calls
	lingers   chan struct{} // closed by the owner when it is over, and the journal does not take its end yet
	gone      chan struct{} // closed by the owner when it is through
	opened    chan struct{} // closed by the owner when the session is open, or over
	room      chan struct{} // has an element when a pump has moved on; capacity 1

	stored atomic.Bool // the journal has it
	bell   output.Bell // rung at every change and all output

	mu      sync.Mutex
	pub     session.Session // as it is told; without Output and LastActivity
	changes int64           // how often pub has changed
	busy    bool            // something runs in the shell
	ring    ring
	active  time.Time
	holders map[*Process]bool // pumps for which the intake waits
	notes   []note            // about commands, in the order in which they became known; the last of them
	noted   int64             // notes so far
	typist  session.Viewer
	typings int64 // how often somebody's typing was told
	stopped bool  // the service lets go of it
	openErr error // why it could not be opened

	// Of whoever wants to see the screen: who may ask for little of it, and for much.
	little, much turnstile

	// Of whoever looks at the screen when the owner is gone.
	late sync.Mutex

	// The owner's.
	ctx      context.Context
	now      time.Time // when the step began
	s        session.Session
	end      *ending // why it is over; nil: it is not
	due      [alarms]time.Time
	timer    *time.Timer
	armed    time.Time
	asides   sync.WaitGroup
	scribe   *scribe
	rec      recorder
	screen   *screen.Screen
	parser   *completion.Parser
	prompts  *completion.Prompts
	link     *link // nil while there is no connection
	stopDial context.CancelFunc
	tokens   float64
	refilled time.Time
	piece    int       // bytes that are worked on at once; what they took is looked at then
	lift     time.Time // until then the intake is not slowed
	viewers  []*Viewer
	visitors int // viewers so far
	keyboard keyboard
	turn     turn
	cancel   cancelling
	loss     loss
	closing  *command.Failure // why it is being closed; nil: it is not
	report   *command.CancelReport
	remains  Shell                // has ended by itself; the host may keep files of it
	heard    map[string]time.Time // when the audit was told last of somebody's typing
	marks    names

	typing     session.Viewer // who types
	typingTold time.Time      // when viewers were told last that somebody types
	sizes      int64          // how often a viewer has told its size
	fitNext    time.Time      // the terminal gets no other size before
	fitCheap   bool           // the last one took no time
}

func newLive(t *Terminals, s session.Session, host inventory.Host) *live {
	l := &live{
		set: t, id: s.ID, name: s.Spec.Name, createdBy: s.CreatedBy.Principal, host: host,
		calls: make(chan func()), over: make(chan struct{}), lingers: make(chan struct{}), gone: make(chan struct{}), opened: make(chan struct{}),
		room: make(chan struct{}, 1), little: newTurnstile(), much: newTurnstile(),
		ring: newRing(s.Output), pub: s, s: s, active: s.LastActivity,
		heard: make(map[string]time.Time),
	}
	l.screen = screen.New(s.Size.Columns, s.Size.Rows, t.limits.Scrollback)
	l.prompts, _ = completion.NewPrompts(t.limits.Prompts) // New has seen that they can be used
	l.turn.typed = make(map[int64]*Process)
	l.tokens = intakeBurst
	return l
}

// snapshot gives the session as it is now.
func (l *live) snapshot() session.Session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told()
}

// told is snapshot for who holds mu.
func (l *live) told() session.Session {
	s := l.pub
	s.Output, s.LastActivity = l.ring.end, l.active
	return s
}

// overNow tells that the session is over.
func (l *live) overNow() error {
	s := l.snapshot()
	if l.lingering() && !s.Ended() {
		return fault.New(fault.FailedPrecondition, fault.ReasonSessionEnded, "the session %s has ended, which cannot be stored for now", l.name).
			WithHint("See to it that the store of the service works; open a new one").With("session", l.id)
	}
	if !s.Ended() { // the service stops
		return fault.New(fault.Unavailable, fault.ReasonDraining, "the service is shutting down and lets go of the session %s", l.name).
			WithHint("Try again in a moment").WithRetry(time.Second)
	}
	return overAs(&s)
}

// do has the owner run f, and waits until it has. Where the session is over, or ctx ends
// before the owner has come to it, f is not run.
func (l *live) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-l.over:
		return l.overSoon()
	case <-ctx.Done():
		return fault.From(context.Cause(ctx))
	}
}

// overSoon is overNow when that can be told.
func (l *live) overSoon() error {
	select {
	case <-l.gone:
	case <-l.lingers:
	}
	return l.overNow()
}

// lingering reports whether it is over, and the journal does not take its end yet.
func (l *live) lingering() bool { return isClosed(l.lingers) }

// isGone reports whether its owner is through with it.
func (l *live) isGone() bool { return isClosed(l.gone) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// post has the owner run f some time soon; false where it never will.
func (l *live) post(f func()) bool {
	select {
	case l.calls <- f:
		return true
	case <-l.over:
		return false
	}
}

// aside runs work beside the owner, and then, as the owner, what it gives.
func (l *live) aside(work func(ctx context.Context) func()) {
	l.asides.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				stack := debug.Stack()
				l.post(func() { l.broken(p, stack) })
			}
		}()
		l.post(work(l.ctx))
	})
}

// own is the life of the owner.
func (l *live) own(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	l.ctx, l.now = ctx, time.Now()
	l.timer = time.NewTimer(time.Hour)
	defer l.timer.Stop()
	l.scribe = newScribe(l)
	l.guarded(l.begin)
	for l.end == nil {
		l.guarded(l.step)
	}
	defer close(l.gone)
	defer l.bell.Ring()
	defer l.asides.Wait()
	defer stop()
	l.guarded(l.conclude)
}

// guarded ends the session where f panics, and nothing else.
func (l *live) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.broken(p, debug.Stack())
		}
	}()
	f()
}

func (l *live) broken(p any, stack []byte) {
	l.set.log.Error("a session panicked and is over", "session", l.id, "host", l.host.Name, "panic", fmt.Sprint(p), "stack", string(stack))
	l.finish(&command.Failure{Reason: fault.ReasonInternal, Message: "internal error", Hint: "The service's log has the details under the session's id; open it again"}, nil)
}

// step waits for one thing and does it.
func (l *live) step() {
	var intake <-chan chunk
	var rest <-chan struct{}
	if l.link != nil && !l.stalled() {
		intake, rest = l.link.ready()
	}
	l.arm()
	select {
	case f := <-l.calls:
		l.now = time.Now()
		f()
	case c := <-intake:
		l.now = time.Now()
		l.take(c)
	case <-rest:
		l.now = time.Now()
		l.takeRest()
	case <-l.room:
		l.now = time.Now()
	case <-l.timer.C:
		l.armed = time.Time{}
		l.now = time.Now()
	}
	for a, at := range l.due {
		if !at.IsZero() && !at.After(l.now) && l.end == nil {
			l.due[a] = time.Time{}
			l.rouse(alarm(a))
		}
	}
}

// arm sets the timer to the first alarm.
func (l *live) arm() {
	var first time.Time
	for _, at := range l.due {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	if !first.Equal(l.armed) {
		l.armed = first
		if first.IsZero() {
			l.timer.Stop()
		} else {
			l.timer.Reset(time.Until(first))
		}
	}
}

// after sets an alarm; sooner sets it unless it is due before.
func (l *live) after(a alarm, d time.Duration) { l.due[a] = l.now.Add(d) }

func (l *live) sooner(a alarm, d time.Duration) {
	if at := l.now.Add(d); l.due[a].IsZero() || at.Before(l.due[a]) {
		l.due[a] = at
	}
}

func (l *live) unset(a alarm) { l.due[a] = time.Time{} }

// rouse does what is due.
func (l *live) rouse(a alarm) {
	switch a {
	case flushAlarm:
		l.flush()
	case intakeAlarm: // step looks
	case quietAlarm:
		l.quiet()
	case silenceAlarm:
		l.silent()
	case pullAlarm:
		l.pull()
	case beganAlarm:
		l.unheardOf()
	case cancelAlarm:
		l.tellCancel()
	case keyboardAlarm:
		l.keyboardIdle()
	case idleAlarm:
		l.idle()
	case expireAlarm:
		l.beginClose(&command.Failure{Reason: fault.ReasonLifetimeOver, Message: "the session was open for as long as a session may be", Hint: "Open another one"})
	case publishAlarm:
		l.publish()
	case saveAlarm:
		l.save()
	case outputAlarm:
		l.save()
	case recordAlarm:
		l.rec.flush()
	case openAlarm:
		l.unprompted()
	case nestedAlarm:
		l.notIntegrated()
	case behindAlarm:
		l.lookBehind()
	case redialAlarm:
		if l.link == nil {
			l.dial(true)
		} else {
			l.askBack()
		}
	case unheldAlarm:
		l.dropUnheld()
	case typingAlarm:
		l.tellTypist()
	case fitAlarm:
		l.fit()
	case groupAlarm:
		l.lookGroup()
	}
}

// stayActive notes that something happens.
func (l *live) stayActive() {
	l.mu.Lock()
	l.active = l.now
	l.mu.Unlock()
	if l.s.Spec.IdleTimeout > 0 && l.due[idleAlarm].IsZero() {
		l.after(idleAlarm, l.s.Spec.IdleTimeout)
	}
}

// idle closes the session where nothing has happened for too long. A command that runs
// is something that happens, however silent it is.
func (l *live) idle() {
	l.mu.Lock()
	until := l.active.Add(l.s.Spec.IdleTimeout)
	l.mu.Unlock()
	switch {
	case l.turn.cur != nil:
		l.after(idleAlarm, l.s.Spec.IdleTimeout)
	case until.After(l.now):
		l.due[idleAlarm] = until
	default:
		l.beginClose(&command.Failure{Reason: fault.ReasonIdleTimeout, Message: fmt.Sprintf("nothing has happened in the session for %s", l.s.Spec.IdleTimeout), Hint: "Open another one"})
	}
}

// publish tells of a change.
func (l *live) publish() {
	l.unset(publishAlarm)
	l.s.Version++
	l.s.Viewers = make([]session.Viewer, len(l.viewers))
	for i, v := range l.viewers {
		l.s.Viewers[i] = v.info
	}
	if n := len(l.turn.levels); n > 0 && !l.turn.top().foreign && l.turn.top().kind != "" {
		l.s.Shell = l.turn.top().kind // what reads the next line, which rules are to know
	}
	l.s.Keyboard, l.s.Current = l.keyboard.holder, ""
	if p := l.turn.cur; p != nil {
		l.s.Current = p.id
	}
	l.mu.Lock()
	l.pub, l.busy = l.s, l.turn.cur != nil || l.turn.typing != nil
	l.changes++
	l.mu.Unlock()
	l.bell.Ring()
	l.set.bell.Ring()
	l.sooner(saveAlarm, saveAfter)
}

// save has the session stored as it is.
func (l *live) save() {
	l.unset(saveAlarm)
	l.unset(outputAlarm)
	l.s.Version++ // the store takes later versions alone
	l.mu.Lock()
	l.pub.Version = l.s.Version
	s := l.told()
	l.mu.Unlock()
	s.Sole = l.sole()
	l.scribe.save(s)
}
