package terminal

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/access"
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
	readSize     = 32 << 10             // bytes that are read from a shell at once
	intakeRate   = 16 << 20             // bytes that are read in a second …
	intakeBurst  = 2 << 20              // … beyond so many at once
	intakeShare  = 0.5                  // of the owner's time, which they take at most
	sliceMost    = 5 * time.Millisecond // what is read is worked on for so long, until others come to their turn
	pieceFirst   = 256                  // bytes that are worked on before that is looked at, of each chunk …
	pieceMost    = 4 << 10              // … more while they take little time …
	pieceLeast   = 64                   // … and fewer where they take much
	liftFor      = 2 * time.Second
	flushAfter   = 20 * time.Millisecond // what may become a mark is shown after so long
	markAfter    = time.Second           // … where nothing of it is to be seen
	openMost     = 10 * time.Second      // a shell counts as open after so long without a prompt
	endMost      = 15 * time.Second      // what the end of a shell may take
	letGoMost    = 5 * time.Second       // the same while the service stops
	publishAfter = 250 * time.Millisecond
	saveAfter    = time.Second
	saveOutput   = 5 * time.Second // outputGap is more than can come in that time
	storeMost    = 10 * time.Second
	asideMost    = 10 * time.Second // what the host may take to tell who has its terminal
)

// alarm is something that is due at a time.
type alarm uint8

// The alarms, each with its handler in due.
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

// ending is how a session has ended.
type ending struct {
	why   *command.Failure
	exit  *int
	event session.Event
	keep  bool // only this run of the service lets go of it
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
func (l *live) lingering() bool {
	select {
	case <-l.lingers:
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

// begin starts the shell, or looks for it.
func (l *live) begin() {
	if !l.s.ExpireTime.IsZero() {
		l.due[expireAlarm] = l.s.ExpireTime
	}
	l.stayActive()
	l.rec.begin(l)
	if l.recovered {
		l.loss.since = l.now
		l.turn.unsure, l.turn.unseen = true, l.s.Completion != command.ByMark
		switch l.s.State {
		case session.Open:
			close(l.opened)
		case session.Closing:
			l.closing = &command.Failure{Reason: fault.ReasonSessionClosed, Message: "it was being closed when the service ended", Hint: "Open another one"}
		}
		l.publish()
	}
	l.dial(l.recovered)
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

// dial opens the shell, or takes it up again.
func (l *live) dial(resume bool) {
	spec := ShellSpec{
		ID: l.id, Host: l.host, Shell: l.s.Spec.Shell, Term: l.s.Spec.Term, Size: l.s.Size,
		Keeper: l.s.Spec.Keeper, Nonce: l.s.Nonce, Resume: resume,
	}
	if resume {
		spec.Keeper = l.s.Keeper
	}
	ctx, stop := context.WithCancel(l.ctx)
	l.stopDial = stop
	pid := 0
	if len(l.turn.levels) > 0 {
		pid = l.turn.top().pid
	}
	l.asides.Go(func() {
		defer stop()
		sh, err := l.set.shells.Open(ctx, spec)
		var f *front
		if resume && err == nil {
			f = askFront(ctx, sh, pid)
		}
		if l.post(func() {
			l.stopDial = nil
			l.dialled(sh, err, resume, f)
		}) || err != nil {
			return
		}
		// The session is over meanwhile. A shell that was found again is left as it was.
		if !resume {
			ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), letGoMost)
			defer stop()
			if _, err := sh.End(ctx); err != nil {
				l.set.log.Warn("a shell that came too late could not be ended", "session", l.id, "host", l.host.Name, "error", err)
			}
		}
		_ = sh.Close()
	})
}

// dialled takes what the opening of the shell has come to.
func (l *live) dialled(sh Shell, err error, resume bool, f *front) {
	switch {
	case err == nil:
		l.connect(sh, resume, f)
		if l.closing != nil {
			l.endShell()
		}
	case l.closing != nil && !resume:
		l.finish(l.closing, nil)
	case resume:
		l.notBack(err)
	default:
		l.mu.Lock()
		l.openErr = fault.From(err)
		l.mu.Unlock()
		l.finishAs(failure(err), nil, session.OpenFail)
	}
}

// connect takes a shell that runs.
func (l *live) connect(sh Shell, resume bool, f *front) {
	facts := sh.Facts()
	l.link = newLink(sh, &l.asides)
	l.parser = completion.NewParser(l.s.Nonce)
	l.s.Shell, l.s.Keeper, l.s.KeeperReason, l.s.Connection = facts.Kind, facts.Keeper, facts.KeeperReason, command.Connected
	if l.s.Keeper == "" {
		l.s.Keeper = session.KeptByNone
	}
	l.turn.nested = facts.Nested
	l.turn.begin(facts)
	if l.s.State == session.Opening {
		l.after(openAlarm, openMost)
	}
	if l.s.Completion == "" {
		l.s.Completion = command.ByMark
		if !facts.Marks {
			l.s.Completion = command.BySilence
		}
	}
	if resume {
		l.back(facts, f)
	} else {
		l.watchQuiet()
	}
	l.publish()
	l.save() // what keeps the shell must be known after a restart
}

// openNow makes the session open, once its shell has shown its prompt.
func (l *live) openNow() {
	next, ok := session.Next(l.s.State, session.ShellReady)
	if !ok {
		return
	}
	l.unset(openAlarm)
	l.s.State, l.s.OpenTime = next, l.now
	l.publish()
	l.save()
	close(l.opened)
}

// unprompted opens a session whose shell has shown no prompt for long.
func (l *live) unprompted() {
	if l.turn.marks && (!l.turn.heard || l.turn.phase == starting) {
		// Whatever runs there does not tell marks.
		l.turn.marks = false
		l.s.Completion = command.BySilence
		l.watchQuiet()
	}
	if !l.turn.tells && !l.turn.printed {
		l.silent() // a device that greets nobody
	}
	l.openNow()
}

// awaitOpen gives the session when it is open, or why it could not be opened.
func (l *live) awaitOpen(ctx context.Context) (session.Session, error) {
	select {
	case <-l.opened:
	case <-ctx.Done():
		return l.snapshot(), fault.From(context.Cause(ctx))
	}
	l.scribe.settle(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.told()
	switch {
	case l.openErr != nil:
		return s, l.openErr
	case s.Ended():
		return s, overAs(&s)
	}
	return s, nil
}

// chunk is what was read from a shell, or why no more will be.
type chunk struct {
	data []byte
	err  error
}

// link is the connection to a shell: its reader, which the owner takes chunks from, and
// its writer.
type link struct {
	shell   Shell
	answers bool // the keeper answers what programs ask their terminal
	keys    *keys
	intake  chan chunk    // from the reader, unbuffered; its last chunk has an error
	rest    []byte        // of the last chunk, which the owner goes on with before the next
	quit    chan struct{} // closed by cut
	once    sync.Once
}

func newLink(sh Shell, goroutines *sync.WaitGroup) *link {
	k := &link{shell: sh, answers: sh.Facts().Answers, keys: newKeys(), intake: make(chan chunk), quit: make(chan struct{})}
	goroutines.Go(k.read)
	goroutines.Go(func() { k.keys.run(sh, k.quit) })
	return k
}

// read reads until the end. There are two buffers: while the owner works on one, the
// other is filled.
func (k *link) read() {
	var buffers [2][]byte
	for i := 0; ; i = 1 - i {
		if buffers[i] == nil {
			buffers[i] = make([]byte, readSize)
		}
		n, err := k.shell.Read(buffers[i])
		if n > 0 {
			select {
			case k.intake <- chunk{data: buffers[i][:n]}:
			case <-k.quit:
				return
			}
		}
		if err != nil {
			select {
			case k.intake <- chunk{err: err}:
			case <-k.quit:
			}
			return
		}
	}
}

// cut ends the connection. It may be called twice.
func (k *link) cut() {
	k.once.Do(func() {
		close(k.quit)
		k.keys.close()
		_ = k.shell.Close() // whatever it says, nobody reads on
	})
}

// atOnce is always ready.
var atOnce = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// ready gives what is to be taken next: a chunk, or the rest of the last one.
func (k *link) ready() (intake <-chan chunk, rest <-chan struct{}) {
	if len(k.rest) > 0 {
		return nil, atOnce
	}
	return k.intake, nil
}

// take works on what was read. There is no rest of what was read before.
func (l *live) take(c chunk) {
	if c.err != nil {
		l.readEnd(c.err)
		return
	}
	l.link.rest, l.piece = c.data, pieceFirst
	l.takeRest()
}

// takeRest works on what was read for a moment, piece by piece: some output takes far
// longer than it is long, and callers and alarms do not wait for the end of it.
func (l *live) takeRest() {
	k, began, size := l.link, time.Now(), len(l.link.rest)
	for from := began; len(k.rest) > 0 && from.Sub(began) < sliceMost; {
		piece := k.rest[:min(l.piece, len(k.rest))]
		k.rest = k.rest[len(piece):]
		l.parser.Write(piece, l.segment)
		to := time.Now()
		switch took := to.Sub(from); {
		case took > sliceMost/2:
			l.piece = max(l.piece/8, pieceLeast)
		case took < sliceMost/32:
			l.piece = min(l.piece*2, pieceMost)
		}
		from = to
	}
	l.spend(size-len(k.rest), time.Since(began))
	wait := flushAfter
	if l.parser.Marking() {
		wait = markAfter
	}
	l.due[flushAlarm] = time.Now().Add(wait) // all this has taken its time
	l.settled()
}

// flush shows what may become a mark, when nothing more has come. What has come, and
// waits to be taken, may be the rest of it.
func (l *live) flush() {
	switch {
	case l.parser == nil:
		return
	case l.link != nil && l.stalled():
		l.after(flushAlarm, flushAfter)
		return
	case l.link != nil && len(l.link.rest) > 0:
		l.takeRest()
		return
	case l.link != nil:
		select {
		case c := <-l.link.intake:
			l.take(c)
			return
		default:
		}
	}
	l.parser.Flush(l.segment)
	l.settled()
}

// settled does what is to be done once after each piece of output.
func (l *live) settled() {
	if a := l.screen.Answers(); len(a) > 0 && l.link != nil && (l.link.answers || l.link.keys.answer(a)) {
		l.answered(a)
	}
	if title := plainText(l.screen.Title(), titleMost); title != l.s.Title {
		l.s.Title = title
		l.sooner(publishAlarm, publishAfter)
	}
}

// titleMost is how many bytes of a title are told.
const titleMost = 256

// segment takes a piece of the output, or a mark, in their order.
func (l *live) segment(s completion.Segment) {
	if s.Event != nil {
		l.mark(*s.Event)
		return
	}
	l.output(s.Data)
}

// append puts bytes at the end of the stream.
func (l *live) append(p []byte) {
	if len(p) == 0 {
		return
	}
	_, _ = l.screen.Write(p) // it never fails
	l.rec.output(p)
	l.mu.Lock()
	l.ring.write(p)
	l.active = l.now
	l.mu.Unlock()
	l.bell.Ring()
	l.sooner(outputAlarm, saveOutput)
}

// say puts a line of the service's own into the stream.
func (l *live) say(format string, args ...any) {
	l.append([]byte("\r\n\x1b[33m[telexec] " + fmt.Sprintf(format, args...) + "\x1b[0m\r\n"))
}

// offset is where the stream ends. The owner alone writes it, so it needs no lock.
func (l *live) offset() int64 { return l.ring.end }

// spend takes bytes from what may be read in a second: so many, or what could be read in
// the time that they took. Where nothing slows the intake, not more than a second is owed.
func (l *live) spend(n int, took time.Duration) {
	l.refill()
	l.tokens = max(l.tokens-max(float64(n), took.Seconds()*intakeRate/intakeShare), -intakeRate)
}

func (l *live) refill() {
	l.tokens = min(intakeBurst, l.tokens+l.now.Sub(l.refilled).Seconds()*intakeRate)
	l.refilled = l.now
}

// stalled reports whether nothing may be read now: a pump is too far behind, or enough
// was read for now.
func (l *live) stalled() bool {
	if l.lag() > pumpMost || len(l.turn.typed) > typedMost {
		return true // room, and who takes up what was typed, wake the owner
	}
	if l.tokens >= 0 || l.now.Before(l.lift) {
		return false
	}
	if l.refill(); l.tokens >= 0 {
		return false
	}
	l.sooner(intakeAlarm, time.Duration(-l.tokens/intakeRate*float64(time.Second))+time.Millisecond)
	return true
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
	s.Completion = l.nextCompletion()
	l.scribe.save(s)
}

// finish ends the session as one whose shell is gone.
func (l *live) finish(why *command.Failure, exit *int) {
	l.finishAs(why, exit, session.ShellGone)
}

func (l *live) finishAs(why *command.Failure, exit *int, event session.Event) {
	if l.end == nil {
		l.end = &ending{why: why, exit: exit, event: event}
	}
}

// letGo is called when the service stops: a kept shell is left alone, another one ends.
func (l *live) letGo() {
	if l.recovered && l.link == nil || l.kept() && (l.closing == nil && l.s.State == session.Open || l.closing != nil && l.link == nil) {
		l.end = &ending{keep: true} // of one that is to be closed, the next run sees to that
		return
	}
	why := l.closing
	if why == nil {
		why = &command.Failure{Reason: fault.ReasonServiceRestarted, Message: "the service was stopped, and nothing keeps the shell", Hint: "Open the session again; tmux, screen or dtach on the host would have kept it"}
	}
	if l.stopDial != nil {
		l.stopDial()
	}
	if l.link != nil {
		ctx, stop := context.WithTimeout(l.ctx, letGoMost)
		defer stop()
		if _, err := l.link.shell.End(ctx); err != nil {
			l.set.log.Warn("a shell could not be ended while the service stops", "session", l.id, "host", l.host.Name, "error", err)
			if l.kept() {
				l.end = &ending{keep: true} // the next run ends it
				return
			}
		}
	}
	l.finish(why, nil)
}

// kept reports whether something keeps the shell without a connection.
func (l *live) kept() bool { return l.s.Keeper != "" && l.s.Keeper != session.KeptByNone }

// close is Terminals.Close.
func (l *live) close(ctx context.Context, by access.Caller, reason string) (session.Session, command.CancelReport, error) {
	err := l.do(ctx, func() {
		l.scribe.tell(closing(by, &l.s, reason)) // is stored with what beginClose saves
		l.beginClose(closedBy(by, reason))
	})
	if err != nil && fault.ReasonOf(err) != fault.ReasonSessionEnded {
		return l.snapshot(), command.CancelReport{}, err
	}
	most := time.NewTimer(endMost)
	defer most.Stop()
	select {
	case <-l.gone:
	case <-most.C:
	case <-ctx.Done():
		return l.snapshot(), command.CancelReport{}, fault.From(context.Cause(ctx))
	}
	s := l.snapshot()
	if !s.Ended() && l.lingering() {
		return s, command.CancelReport{Outcome: command.Pending, Message: "the shell is gone, and the end of the session cannot be stored for now; it is tried again"}, nil
	}
	if !s.Ended() {
		return s, command.CancelReport{Outcome: command.Pending, Message: "the host does not answer for now; the shell is ended as soon as it does"}, nil
	}
	l.late.Lock()
	defer l.late.Unlock()
	if l.report == nil && s.End != nil && s.End.Reason == fault.ReasonConnectionLost {
		return s, command.CancelReport{Outcome: command.Unproven, Message: s.End.Message}, nil
	}
	if l.report == nil {
		return s, command.CancelReport{Outcome: command.AlreadyEnded, Message: "the shell was gone already"}, nil
	}
	return s, *l.report, nil
}

// beginClose begins to end the shell, and the session with it.
func (l *live) beginClose(why *command.Failure) {
	next, ok := session.Next(l.s.State, session.Close)
	if !ok {
		return
	}
	l.s.State, l.closing = next, why
	l.publish()
	l.save()
	switch {
	case l.link != nil:
		l.endShell()
	case l.stopDial != nil && !l.recovered && !l.loss.lost():
		l.stopDial() // dialled goes on
	}
}

// endShell ends the shell on its host.
func (l *live) endShell() {
	sh := l.link.shell
	l.aside(func(ctx context.Context) func() {
		ctx, stop := context.WithTimeout(ctx, endMost)
		defer stop()
		report, err := sh.End(ctx)
		return func() {
			switch {
			case err == nil:
				l.report = &report
				l.drain()
				l.finish(l.closing, nil)
			case l.kept() && l.link == nil: // the connection is lost: dialled comes back to it
			case l.kept() && l.link.shell != sh: // the same, and it is back
			case l.kept(): // it is there until the host says otherwise
				l.loss.ends++
				l.lostLink(err)
			default:
				l.set.log.Warn("a shell could not be ended; its connection is", "session", l.id, "host", l.host.Name, "error", err)
				l.report = unproven(err)
				l.finish(l.closing, nil)
			}
		}
	})
}

// unproven is the report on a shell that could not be ended, perhaps.
func unproven(err error) *command.CancelReport {
	return &command.CancelReport{Outcome: command.Unproven, Message: "whether the shell has ended is not known: " + fault.From(err).Message}
}

// drain takes what has been read before the shell ended, for a moment.
func (l *live) drain() {
	if l.link == nil {
		return
	}
	most := time.NewTimer(drainMost)
	defer most.Stop()
	for l.lag() <= pumpMost {
		intake, rest := l.link.ready()
		select {
		case c := <-intake:
			if c.err != nil {
				return
			}
			l.take(c)
		case <-rest:
			l.takeRest()
		case <-most.C:
			return
		}
	}
}

const drainMost = 300 * time.Millisecond

// readEnd takes the end of what can be read.
func (l *live) readEnd(err error) {
	l.parser.Flush(l.segment)
	sh := l.link.shell
	switch {
	case err == io.EOF && l.closing == nil:
		code := sh.Exit()
		l.remains = sh
		l.shellExited(code)
		l.hangUp()
		message := "the shell has ended"
		if code != nil {
			message = fmt.Sprintf("the shell has ended with exit code %d", *code)
		}
		l.finish(&command.Failure{Reason: fault.ReasonShellExited, Message: message, Hint: "Open the session again where it is needed"}, code)
	case err == io.EOF:
		// endShell is about to say what was ended.
		l.link.intake = nil
	default:
		l.lostLink(err)
	}
}

// sweep removes what the host keeps of a shell that has ended by itself. The session is
// over, and nobody waits for that.
func (l *live) sweep(ctx context.Context) {
	if l.remains == nil {
		return
	}
	ctx, stop := context.WithTimeout(ctx, letGoMost)
	defer stop()
	if err := l.remains.Sweep(ctx); err != nil {
		l.set.log.Warn("the files of a session that has ended are left on its host", "session", l.id, "host", l.host.Name, "error", err)
	}
}

// hangUp gives the connection up.
func (l *live) hangUp() {
	if l.link != nil {
		l.link.cut()
		l.link = nil
	}
}

// conclude does what is to be done at the end. Nothing runs any more when it returns,
// and the end is stored before anybody is told of it.
func (l *live) conclude() {
	over := sync.OnceFunc(func() { close(l.over) })
	defer over()
	l.now = time.Now()
	if l.stopDial != nil {
		l.stopDial()
	}
	e := l.end
	if l.parser != nil && !e.keep {
		l.parser.Flush(l.segment)
	}
	l.hangUp()
	next := l.nextCompletion()
	l.endCommands(e)
	if e.keep {
		l.s.Completion = next
		l.s.Connection = command.Reconnecting // the offset is the true one: see takeUp
	} else {
		l.s.State, _ = session.Next(l.s.State, e.event)
		l.s.End, l.s.Exit, l.s.EndTime, l.s.Connection = e.why, e.exit, l.now, ""
		l.viewers, l.keyboard = nil, keyboard{}
	}
	l.rec.end()
	l.s.Version++
	l.s.Viewers, l.s.Keyboard, l.s.Current = nil, "", ""
	s := l.s
	l.mu.Lock()
	s.Output, s.LastActivity = l.ring.end, l.active
	l.mu.Unlock()
	l.s = l.scribe.end(s, !e.keep, func() {
		close(l.lingers)
		over()
	})
	l.mu.Lock()
	l.pub, l.busy, l.stopped = l.s, false, e.keep
	l.changes++
	l.mu.Unlock()
	select {
	case <-l.opened:
	default:
		close(l.opened)
	}
	if !e.keep {
		l.set.log.Info("a session has ended", "session", l.id, "name", l.name, "host", l.host.Name, "reason", e.why.Reason)
	}
}
