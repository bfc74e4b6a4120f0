package engine

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/inventory"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/policy"
)

// Times of an owner's work.
const (
	flushAfter = 20 * time.Millisecond // output is stored so long after it came at the latest
	flushAt    = 1 << 20               // or when so many bytes wait
	flushMost  = 4 << 20               // bytes in one commit
	retryLeast = 100 * time.Millisecond
	retryMost  = 5 * time.Second

	defaultGrace = command.DefaultGrace
)

// live is a command that has not ended, or has just ended and is still read.
//
// Its owner (the goroutine in own) is the only one who changes it. The fields
// are grouped by who may touch them.
type live struct {
	// Constant.
	engine *Engine
	id     string
	// host is the name of the host that it is on; session is the id of the session that
	// it is in, empty for none.
	host, session string
	log           *output.Log
	ticket        *ticket
	// redaction masks what its output must not show; unmaskable is why it cannot.
	redaction  *output.Redaction
	unmaskable error
	// kick has an element when somebody has left something for the owner (wishes,
	// link, seen, inputEnded); capacity 1, so that nobody waits for the owner.
	kick chan struct{}
	// dirty has an element when output waits to be stored; capacity 1, so that
	// the appender never waits for the owner.
	dirty chan struct{}
	done  chan struct{} // closed by the owner when it is through
	bell  output.Bell   // rung at every change and by the log

	lastOutput atomic.Int64 // time of the last output, in ns since 1970

	inputEnded atomic.Bool // EOF was sent

	watchers atomic.Int32 // how many watch it; set under the engine's mu

	mu sync.Mutex
	// Guarded by mu, written by the owner only.
	cmd     command.Command // Size and LastActivity are filled in by snapshot
	process Process         // nil while it does not run
	kept    bool            // it goes on without the service: something on its host keeps its session
	// Guarded by mu, written by whoever holds Engine.deciding.
	gate    *approval.Approval // what it waits for, or has waited for in this run of the service
	decided *command.Command   // the record after the last decision, which the owner has not taken up
	unsure  bool               // what the journal has of both is not known
	// Guarded by mu.
	writers map[writer]bool // of whose input the audit was told
	wishes  []cancelRequest // that the owner has not taken up
	link    link            // what the runner has told about the connection
	began   *int64          // where its output begins in that of its session, and the owner has not taken up
	seen    seen            // what the output has told about its progress

	sent atomic.Pointer[sentSignal] // last signal that a caller sent; nil: none

	// The owner's own.
	stored      command.State      // state that the journal has
	storedFence int64              // fence that the journal has
	storedNode  string             // node that the journal has
	written     int64              // version that was written last
	unstored    bool               // cmd has changes that the journal has not
	retry       time.Duration      // wait before the next try to store; 0 after a success
	flushTimer  *time.Timer        // when to flush
	flushBy     time.Time          // when that is; zero where it is not set
	writing     bool               // a write is under way
	grace       time.Duration      // of the last cancel
	superseded  bool               // the journal says that another owner has it
	taken       bool               // another run of the service may have started it
	doubt       bool               // a ladder may have run of which no report came
	queued      bool               // its ticket is in the queue, or was granted
	slotSince   time.Time          // when it got its slot; zero: it has none
	judged      *policy.Request    // in a session: what this run of the service asked the rules, or was approved; nil: an earlier one did
	untold      []audit.Entry      // what the audit gets with the next write
	tried       *approval.Approval // the end of its wait that was written with untold, and may be stored
	tallies     [len(command.Streams)]tally
	// masks are those of the last Run; a stream's is for the goroutine that gives its
	// output, and for whoever waits for the process when that has returned.
	masks [len(command.Streams)]*output.RedactedStream
	// gauges are likewise.
	gauges [len(command.Streams)]*output.Gauge
	// progressTold is when progress was told last; tellBy is when the next is to be,
	// nil where none waits.
	progressTold time.Time
	tellBy       <-chan time.Time
	// writes has the outcome of the one write at a time; capacity 1.
	writes chan write
}

type cancelRequest struct {
	by     access.Caller
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
	Queue    *QueuePlace        // nil unless it is queued
	Gate     *approval.Approval // nil unless it waits for approval
	Watchers int                // how many watch its output just now
}

func (s Snapshot) position() int {
	if s.Queue == nil {
		return 0
	}
	return s.Queue.Position
}

// newLive makes the live of a command. Its error is why its output cannot be masked
// as it should be.
func newLive(e *Engine, c command.Command) (*live, error) {
	l := &live{
		engine: e, id: c.ID, host: c.Spec.Host, session: c.Spec.SessionID,
		kick:   make(chan struct{}, 1),
		writes: make(chan write, 1),
		dirty:  make(chan struct{}, 1),
		done:   make(chan struct{}),
		cmd:    c,
		grace:  defaultGrace,
		stored: c.State, storedFence: c.Fence, storedNode: c.Node,
		written: c.Version,
	}
	l.log = output.ResumeLog(c.ID, e.journal, e.unsaved, &l.bell, c.Size)
	l.ticket = &ticket{id: c.ID, host: queueOf(&c.Spec, c.Spec.Host), priority: c.Spec.Priority, granted: make(chan struct{}), moved: l.moved}
	redaction := e.redaction
	if len(c.Spec.Redact) > 0 {
		var err error
		if redaction, err = output.NewRedaction(slices.Concat(e.redact, c.Spec.Redact)...); err != nil {
			l.unmaskable = err
		}
	}
	if c.Spec.SecretsLost {
		l.unmaskable = secretsLost()
	}
	l.redaction = redaction
	for s := range l.tallies {
		l.tallies[s] = newTally(e.excerpt)
	}
	return l, l.unmaskable
}

// snapshot gives the command as it is. Anyone may call it.
func (l *live) snapshot() Snapshot {
	l.mu.Lock()
	s := Snapshot{Command: l.cmd}
	if l.decided != nil { // with the gate that is told beside it
		s.Command = l.merged(*l.decided)
	}
	if s.State == command.AwaitingApproval {
		s.Gate = l.gate
	}
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
	s.Watchers = int(l.watchers.Load())
	return s
}

// merged gives c, which the last decision has led to, with what the owner has made
// known meanwhile: a cancel, and a version that never falls. mu is held.
func (l *live) merged(c command.Command) command.Command {
	if c.Cancellation == nil && !c.Ended() {
		c.Cancellation = l.cmd.Cancellation
	}
	c.Version = max(c.Version, l.cmd.Version+1)
	return c
}

// attached reports whether the command is on its host and ends with the service.
// Anyone may call it.
func (l *live) attached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (l.cmd.State == command.Starting || l.cmd.State == command.Running) && attached(&l.cmd) && !l.kept
}

// state is the command's. Anyone may call it.
func (l *live) state() command.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cmd.State
}

// awaits reports whether the command waits for approval and is the principal's, and
// how much input it holds.
func (l *live) awaits(principal string) (input int, awaits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.cmd.Spec.Stdin), l.cmd.State == command.AwaitingApproval && l.cmd.CreatedBy.Principal == principal
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
	l.announce()
}

// announce wakes whoever watches the command, or all commands. Anyone may call it.
func (l *live) announce() {
	l.bell.Ring()
	l.engine.feed.touch(l)
}

// moved is announce where only its place in the queue may be another one.
func (l *live) moved() {
	l.bell.Ring()
	l.engine.feed.move(l)
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
		if n := c.Cancellation; n != nil && underWay(n) {
			unanswered := *n
			unanswered.Report = nil // it is not under way any more
			c.Cancellation = &unanswered
		}
	}
}

// own sees the command to its end, or until ctx ends: a queued command then
// stays queued in the journal, a durable one as it is, an attached one is ended as
// LOST. host is set where the command has a slot, but for one that was taken over.
func (l *live) own(ctx context.Context, host *inventory.Host) {
	defer l.bell.Ring()
	defer close(l.done)
	defer l.log.Release()
	defer l.log.Close()
	l.flushTimer = time.NewTimer(time.Hour)
	defer l.flushTimer.Stop()
	slot := host != nil || l.taken
	if slot {
		l.slotSince = time.Now()
	}
	defer l.releaseSlot()
	err := l.guard("own", func() error {
		switch {
		case l.taken:
			if !l.cmd.StartTime.IsZero() {
				l.slotSince = l.cmd.StartTime
			}
			if host = l.takeOver(ctx); host == nil {
				return nil
			}
		case !slot:
			if l.cmd.State == command.AwaitingApproval && !l.awaitDecision(ctx) {
				return nil
			}
			if host, slot = l.awaitSlot(ctx); !slot {
				return nil
			}
			l.slotSince = time.Now()
		}
		l.run(ctx, host)
		return nil
	})
	if err != nil {
		if !slot {
			l.leaveQueue()
		}
		_ = l.guard("abandon", func() error { l.abandon(ctx, err); return nil }) // which is logged
	}
}

// awaitSlot waits in the queue, where Execute or recover has put the command. It
// reports whether the command has a slot and is STARTING in the journal; if not,
// it has ended or ctx has.
func (l *live) awaitSlot(ctx context.Context) (*inventory.Host, bool) {
	q := l.engine.queue
	host, err := l.engine.hosts.Lookup(l.host)
	if err == nil {
		err = l.startable()
	}
	if err != nil { // the configuration has changed since it was accepted, or a password is gone
		l.leaveQueue()
		l.end(ctx, command.StartFail, failed(err))
		return nil, false
	}
	wait := l.cmd.Spec.QueueTimeout
	if wait == 0 {
		wait = l.engine.limits.QueueTimeout
	}
	since := l.cmd.CreateTime
	if l.cmd.Gated { // the wait for approval was another one
		since = l.cmd.LastActivity
	}
	expire := time.NewTimer(time.Until(since.Add(wait)))
	defer expire.Stop()
	granted, ready := l.ticket.granted, l.sessionsReady()
	if ready != nil {
		granted = nil // it waits: whether its session is there is not known
	}
	for {
		select {
		case <-ready:
			granted, ready = l.ticket.granted, nil
			if !l.stillOpen(ctx) {
				return nil, false
			}
		case <-granted:
			return l.claim(ctx, &host)
		case <-l.kick:
			if l.takeWishes() {
				l.leaveQueue()
				l.end(ctx, command.CancelledEnd, neverStarted)
				return nil, false
			}
			if ready == nil && !l.stillOpen(ctx) {
				return nil, false
			}
		case <-expire.C:
			if !q.remove(l.ticket) { // its turn has just come
				return l.claim(ctx, &host)
			}
			l.queued = false
			l.end(ctx, command.Expire, func(c *command.Command) {
				c.Failure = &command.Failure{
					Reason:  fault.ReasonQueueTimeout,
					Message: fmt.Sprintf("it waited %s for a free slot on its host", wait),
					Hint:    "Raise the host's max_commands or the command's queue_timeout, or run it when less is running",
				}
				if l.session != "" {
					c.Failure.Message = fmt.Sprintf("it waited %s for its turn in the session %s", wait, c.Spec.Session)
					c.Failure.Hint = "Raise the command's queue_timeout, or run it when less is running there"
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
	if !l.stillOpen(ctx) {
		return nil, false
	}
	if err := l.stillApproved(ctx, host); err != nil {
		l.leaveQueue()
		if ctx.Err() == nil {
			l.end(ctx, command.Reject, failed(err))
		}
		return nil, false
	}
	l.enter(command.Claim, func(c *command.Command) { claimed(c, l.engine.node) })
	if l.persist(ctx, l.cmd) != nil {
		l.leaveQueue() // it stays queued in the journal
		if l.superseded {
			l.letGo(nil)
		}
		return nil, false
	}
	return host, true
}

// claimed gives a command that has a slot to its owner.
func claimed(c *command.Command, node string) {
	c.Node = node
	c.Fence++
	if c.Spec.Durability == command.Attached || c.Spec.SessionID != "" {
		c.Durability = command.Attached // so that a crash finds it so
	}
}

// enqueue puts the command's ticket into the queue.
func (l *live) enqueue(host *inventory.Host, reserved bool) {
	l.queued = true
	l.engine.queue.enqueue(l.ticket, slots(&l.cmd.Spec, host), reserved)
}

// releaseSlot gives the slot back, where the command has one.
func (l *live) releaseSlot() {
	if !l.slotSince.IsZero() {
		l.engine.queue.release(l.ticket.host, time.Since(l.slotSince))
		l.slotSince = time.Time{}
	}
}

// leaveQueue gives back the ticket, or the slot if it was granted meanwhile.
func (l *live) leaveQueue() {
	if l.queued && !l.engine.queue.remove(l.ticket) {
		l.engine.queue.release(l.ticket.host, 0)
	}
	l.queued = false
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
// were any. The first one ever is kept; of a later one only the grace is, and it
// starts the work anew where that came to nothing.
func (l *live) takeWishes() bool {
	l.mu.Lock()
	wishes := l.wishes
	l.wishes = nil
	l.mu.Unlock()
	if len(wishes) > 0 {
		l.flushIn(flushAfter) // a wish outlives the service
	}
	for _, r := range wishes {
		if l.cmd.Ended() { // which has nothing left to end
			close(r.noted)
			continue
		}
		l.grace = r.grace
		told := l.engine.about(entry(audit.CommandCancel, r.by), &l.cmd, l)
		told.Detail = r.reason
		l.untold = append(l.untold, told)
		l.change(func(*command.Command) {}) // a version of its own, by which the journal is seen to have it
		switch n := l.cmd.Cancellation; {
		case n == nil:
			l.change(func(c *command.Command) {
				c.Cancellation = &command.Cancellation{By: r.by.Actor(), Time: time.Now(), Reason: r.reason, Grace: r.grace}
			})
		case n.Report == nil || n.Report.Outcome != command.Gone:
			again := n.Within(r.grace, time.Now())
			again.Report = nil
			if again != *n {
				l.change(func(c *command.Command) { c.Cancellation = &again })
			}
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

// guard makes an error of a panic in f: one command's trouble must not take the
// service, and with it every other command, down.
func (l *live) guard(doing string, f func() error) error {
	return l.engine.guard(doing, "command", l.id, f)
}

func (e *Engine) guard(doing, kind, name string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("a panic while looking after a "+kind, kind, name, "doing", doing, "panic", v, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, fault.ReasonInternal, "the service failed while it looked after the %s", kind).
				WithHint("The service's log has the details")
		}
	}()
	return f()
}

// append adds output to the log, and sees what it says about the progress. It
// blocks while the store is behind.
func (l *live) append(s command.Stream, data []byte, g *output.Gauge) error {
	if len(data) == 0 {
		return nil
	}
	l.lastOutput.Store(time.Now().UnixNano())
	unsaved, err := l.log.Append(s, data)
	if err != nil {
		return err
	}
	l.measure(g, data)
	if unsaved == len(data) || unsaved >= flushAt {
		select {
		case l.dirty <- struct{}{}:
		default:
		}
	}
	return nil
}
