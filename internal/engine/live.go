package engine

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
)

// Times of an owner's work.
const (
	flushAfter   = 20 * time.Millisecond // output is stored so long after it came at the latest
	flushAt      = 1 << 20               // or when so many bytes wait
	flushMost    = 4 << 20               // bytes in one commit
	retryLeast   = 100 * time.Millisecond
	retryMost    = 5 * time.Second
	letGo        = 2 * time.Second // after proof that it is gone, until its channel is given up
	ladderExtra  = 8 * time.Second // what a cancel may take beyond its grace
	defaultGrace = 500 * time.Millisecond
)

// live is a command that has not ended, or has just ended and is still read.
//
// Its owner (the goroutine in own) is the only one who changes it. The fields
// are grouped by who may touch them.
type live struct {
	// Constant.
	engine *Engine
	id     string
	log    *output.Log
	ticket *ticket
	// kick has an element when somebody has left something for the owner (wishes,
	// inputEnded); capacity 1, so that nobody waits for the owner.
	kick chan struct{}
	// dirty has an element when output waits to be stored; capacity 1, so that
	// the appender never waits for the owner.
	dirty chan struct{}
	done  chan struct{} // closed by the owner when it is through
	bell  output.Bell   // rung at every change and by the log

	lastOutput atomic.Int64 // time of the last output, in ns since 1970

	inputEnded atomic.Bool // EOF was sent

	mu sync.Mutex
	// Guarded by mu, written by the owner only.
	cmd     command.Command // Size and LastActivity are filled in by snapshot
	process Process         // nil while it does not run
	// Guarded by mu.
	wishes []cancelRequest // that the owner has not taken up

	sent atomic.Pointer[sentSignal] // last signal that a caller sent; nil: none

	// The owner's own.
	stored      command.State // state that the journal has
	storedFence int64         // fence that the journal has
	unstored    bool          // cmd has changes that the journal has not
	retry       time.Duration // wait before the next try to store; 0 after a success
	flushTimer  *time.Timer   // when to flush
	flushSoon   bool          // flushTimer is set
	writing     bool          // a write is under way
	grace       time.Duration // of the first cancel
	// writes has the outcome of the one write at a time; capacity 1.
	writes chan write
}

type cancelRequest struct {
	by     command.Actor
	reason string
	grace  time.Duration
	noted  chan struct{} // closed by the owner when it has taken it up
}

// sentSignal is a signal that a caller sent.
type sentSignal struct {
	by   command.Actor
	name string
}

// Snapshot is a command at one moment.
type Snapshot struct {
	command.Command
	Queue *QueuePlace // nil unless it is queued
}

func (s Snapshot) position() int {
	if s.Queue == nil {
		return 0
	}
	return s.Queue.Position
}

func newLive(e *Engine, c command.Command) *live {
	l := &live{
		engine: e, id: c.ID,
		kick:   make(chan struct{}, 1),
		writes: make(chan write, 1),
		dirty:  make(chan struct{}, 1),
		done:   make(chan struct{}),
		cmd:    c,
		stored: c.State, storedFence: c.Fence,
	}
	l.log = output.NewLog(c.ID, e.journal, e.unsaved, &l.bell)
	l.ticket = &ticket{id: c.ID, host: c.Spec.Host, priority: c.Spec.Priority, granted: make(chan struct{}), moved: l.bell.Ring}
	return l
}

// snapshot gives the command as it is. Anyone may call it.
func (l *live) snapshot() Snapshot {
	l.mu.Lock()
	s := Snapshot{Command: l.cmd}
	l.mu.Unlock()
	if !s.Ended() {
		s.Size, _ = l.log.Sizes()
	}
	if at := l.lastOutput.Load(); at > s.LastActivity.UnixNano() {
		s.LastActivity = time.Unix(0, at)
	}
	if s.State == command.Queued {
		s.Queue = l.engine.queue.place(l.ticket)
	}
	return s
}

func (l *live) running() Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process
}

// change changes the command in memory and tells everyone. The journal gets it
// with the next flush or the end.
func (l *live) change(f func(c *command.Command)) {
	l.mu.Lock()
	f(&l.cmd)
	l.cmd.Version++
	l.mu.Unlock()
	l.unstored = true
	l.bell.Ring()
}

// enter moves the command to the state that follows from ev. It must follow.
func (l *live) enter(ev command.Event, f func(c *command.Command)) {
	now := time.Now()
	l.change(func(c *command.Command) { advance(c, ev, now, f) })
}

// advance is the one place where a command's state is set.
func advance(c *command.Command, ev command.Event, now time.Time, f func(c *command.Command)) {
	next, ok := command.Next(c.State, ev)
	if !ok {
		panic(fmt.Sprintf("engine: %s cannot happen to a command that is %s", ev, c.State))
	}
	c.State = next
	c.LastActivity = now
	if f != nil {
		f(c)
	}
	if next.Ended() {
		c.EndTime = now
		c.Connection = ""
		c.StdinClosed = true
	}
}

// lose ends a command whose outcome cannot be known.
func lose(c *command.Command, why command.Failure, now time.Time) {
	advance(c, command.Lose, now, func(c *command.Command) { c.Failure = &why })
	c.Version++
}

// own sees the command to its end, or until ctx ends: a queued command then
// stays queued in the journal, a running one is ended as LOST. host is set where
// the command has a slot.
func (l *live) own(ctx context.Context, host *inventory.Host) {
	defer l.bell.Ring()
	defer close(l.done)
	defer l.log.Release()
	defer l.log.Close()
	l.flushTimer = time.NewTimer(time.Hour)
	defer l.flushTimer.Stop()
	began := time.Now()
	slot := host != nil
	defer func() {
		if slot {
			l.engine.queue.release(l.ticket.host, time.Since(began))
		}
	}()
	err := l.guard("own", func() error {
		if !slot {
			if host, slot = l.awaitSlot(ctx); !slot {
				return nil
			}
			began = time.Now()
		}
		l.run(ctx, host)
		return nil
	})
	if err != nil {
		if !slot {
			l.leaveQueue()
		}
		l.abandon(ctx, err)
	}
}

// awaitSlot waits in the queue, where Execute or recover has put the command. It
// reports whether the command has a slot and
// is STARTING in the journal; if not, it has ended or ctx has.
func (l *live) awaitSlot(ctx context.Context) (*inventory.Host, bool) {
	q := l.engine.queue
	host, err := l.engine.hosts.Lookup(l.ticket.host)
	if err != nil { // the configuration has changed since it was accepted
		l.end(ctx, command.StartFail, failed(err))
		return nil, false
	}
	wait := l.cmd.Spec.QueueTimeout
	if wait == 0 {
		wait = l.engine.limits.QueueTimeout
	}
	expire := time.NewTimer(time.Until(l.cmd.CreateTime.Add(wait)))
	defer expire.Stop()
	for {
		select {
		case <-l.ticket.granted:
			return l.claim(ctx, &host)
		case <-l.kick:
			if l.takeWishes() {
				l.leaveQueue()
				l.end(ctx, command.CancelledEnd, neverStarted)
				return nil, false
			}
		case <-expire.C:
			if !q.remove(l.ticket) { // its turn has just come
				return l.claim(ctx, &host)
			}
			l.end(ctx, command.Expire, func(c *command.Command) {
				c.Failure = &command.Failure{
					Reason:  fault.ReasonQueueTimeout,
					Message: fmt.Sprintf("it waited %s for a free slot on its host", wait),
					Hint:    "Raise the host's max_commands or the command's queue_timeout, or run it when less is running",
				}
			})
			return nil, false
		case <-ctx.Done():
			l.leaveQueue()
			return nil, false
		}
	}
}

// claim makes the command STARTING in the journal, now that it has a slot.
func (l *live) claim(ctx context.Context, host *inventory.Host) (*inventory.Host, bool) {
	l.enter(command.Claim, func(c *command.Command) {
		c.Node = l.engine.node
		c.Fence++
	})
	if l.persist(ctx, l.cmd) != nil {
		l.engine.queue.release(l.ticket.host, 0) // it stays queued in the journal
		return nil, false
	}
	return host, true
}

// leaveQueue gives back the ticket, or the slot if it was granted meanwhile.
func (l *live) leaveQueue() {
	if !l.engine.queue.remove(l.ticket) {
		l.engine.queue.release(l.ticket.host, 0)
	}
}

func neverStarted(c *command.Command) {
	c.Failure = &command.Failure{Reason: fault.ReasonCancelledByCaller, Message: "it was cancelled before it started"}
	c.Cancellation = withReport(c.Cancellation, command.CancelReport{
		Outcome: command.NeverStarted, Message: "it had not started and never will",
	})
}

// withReport gives a copy of a cancellation with its report.
func withReport(n *command.Cancellation, r command.CancelReport) *command.Cancellation {
	done := *n
	r.Duration = time.Since(n.Time)
	done.Report = &r
	return &done
}

// wish leaves a cancel request for the owner.
func (l *live) wish(r cancelRequest) {
	l.mu.Lock()
	l.wishes = append(l.wishes, r)
	l.mu.Unlock()
	l.kickOwner()
}

func (l *live) kickOwner() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// takeWishes takes up the cancel requests that came, and reports whether there
// were any. The first one ever is kept; a later one only starts the work anew
// where that came to nothing.
func (l *live) takeWishes() bool {
	l.mu.Lock()
	wishes := l.wishes
	l.wishes = nil
	l.mu.Unlock()
	for _, r := range wishes {
		l.grace = r.grace
		switch n := l.cmd.Cancellation; {
		case n == nil:
			l.change(func(c *command.Command) {
				c.Cancellation = &command.Cancellation{By: r.by, Time: time.Now(), Reason: r.reason}
			})
		case n.Report != nil && n.Report.Outcome != command.Gone:
			again := *n
			again.Report = nil
			l.change(func(c *command.Command) { c.Cancellation = &again })
		}
		close(r.noted)
	}
	if l.inputEnded.Load() && !l.cmd.StdinClosed {
		l.change(func(c *command.Command) { c.StdinClosed = true })
	}
	return len(wishes) > 0
}

// failed gives what sets the failure of a command that could not start.
func failed(err error) func(c *command.Command) {
	f := fault.From(err)
	return func(c *command.Command) {
		c.Failure = &command.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint}
	}
}

// run starts the command on its host and sees it to its end.
func (l *live) run(ctx context.Context, host *inventory.Host) {
	p, err := l.start(ctx, host)
	if err != nil {
		l.endUnstarted(ctx, err)
		return
	}
	started := p.Started()
	durability, why := p.Durability()
	l.mu.Lock()
	l.process = p
	l.mu.Unlock()
	l.enter(command.Start, func(c *command.Command) {
		c.StartTime = started
		c.Connection = command.Connected
		c.Durability, c.DurabilityReason = durability, why
		c.Spec.Stdin, c.Spec.Env = nil, blank(c.Spec.Env) // needed no more, and perhaps secret
	})
	l.flushIn(flushAfter)
	l.attend(ctx, p)
}

// blank gives the names with empty values.
func blank(env map[string]string) map[string]string {
	names := make(map[string]string, len(env))
	for name := range env {
		names[name] = ""
	}
	return names
}

// start starts the command, and gives up before anything reached the host when a
// cancel comes or ctx ends.
func (l *live) start(ctx context.Context, host *inventory.Host) (Process, error) {
	type result struct {
		p   Process
		err error
	}
	starting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	results := make(chan result, 1) // the starter's one result
	spec := l.cmd.Spec
	if l.takeWishes() { // while the claim was being stored
		return nil, fault.New(fault.Cancelled, fault.ReasonCancelledByCaller, "it was cancelled before it started")
	}
	go func() {
		var r result
		r.err = l.guard("start", func() (err error) {
			r.p, err = l.engine.runner.Start(starting, Run{ID: l.id, Host: *host, Spec: &spec, Output: l.append})
			return err
		})
		results <- r
	}()
	for {
		select {
		case r := <-results:
			return r.p, r.err
		case <-l.kick:
			if l.takeWishes() {
				giveUp()
			}
		case w := <-l.writes:
			l.wrote(w)
		case <-l.dirty:
			l.flushDue()
		case <-l.flushTimer.C:
			l.flush(ctx)
		}
	}
}

// guard makes an error of a panic in f: one command's trouble must not take the
// service, and with it every other command, down.
func (l *live) guard(doing string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			l.engine.log.Error("a panic while looking after a command", "command", l.id, "doing", doing, "panic", v, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, fault.ReasonInternal, "the service failed while it looked after the command").
				WithHint("The service's log has the details")
		}
	}()
	return f()
}

// append is Run.Output.
func (l *live) append(s command.Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	l.lastOutput.Store(time.Now().UnixNano())
	unsaved, err := l.log.Append(s, data)
	if err != nil {
		return err
	}
	l.engine.meter.Output(len(data))
	if unsaved == len(data) || unsaved >= flushAt {
		select {
		case l.dirty <- struct{}{}:
		default:
		}
	}
	return nil
}

// endUnstarted ends a command whose start gave err.
func (l *live) endUnstarted(ctx context.Context, err error) {
	f := fault.From(err)
	cancelled := l.cmd.Cancellation != nil
	switch {
	case f.Reason == fault.ReasonConnectionLost, f.Reason == fault.ReasonNoExitStatus, f.Kind == fault.Internal:
		l.end(ctx, command.Lose, failed(err)) // it may have started
	case cancelled:
		l.end(ctx, command.CancelledEnd, neverStarted)
	case ctx.Err() != nil && f.Kind == fault.Cancelled:
		// Nothing reached the host: the next run of the service starts it.
		l.enter(command.Unclaim, func(c *command.Command) { c.Node = "" })
		l.persist(ctx, l.cmd) // a failure is logged; the next run then says LOST
	default:
		l.end(ctx, command.StartFail, failed(err))
	}
}
