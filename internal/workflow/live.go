package workflow

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/task"
)

// Times of an owner.
const (
	retryLeast     = 100 * time.Millisecond // until a write, or a start, that has failed is tried again, doubling …
	retryMost      = 10 * time.Second       // … up to this
	progressLeast  = time.Second            // between two step_progress of a step
	estimateLeast  = time.Second            // by so much another turn is told in the same place
	defaultBackoff = time.Second            // before a run is tried again for the first time
	backoffMost    = time.Hour
)

// live is a task that has not ended, or is being undone. Its owner (the goroutine in own)
// is the only one who changes it. The fields are grouped by who may touch them.
type live struct {
	// Constant.
	w        *Workflow
	id       string
	priority int
	granted  chan struct{} // closed by Workflow.grant when it may begin
	calls    chan func()   // to the owner, which runs them; unbuffered, never closed
	over     chan struct{} // closed by the owner when it takes no more calls
	bell     output.Bell   // rung when it has changed

	mu    sync.Mutex
	pub   task.Task   // as it is stored
	place *task.Place // in the queue, as it is to be told; nil: told
	moved chan struct{}

	// The owner's.
	ctx     context.Context
	t       task.Task
	now     time.Time
	ch      task.Change          // what is not stored yet
	follows map[string]*followed // commands that somebody follows, by id
	shown   map[int]shown        // by step: what was told last of how much is done
	at      int                  // place in the queue that was told last …
	turn    time.Time            // … and when its turn was said to come; zero: unknown
	slot    bool                 // it has one
	wish    *wish                // the cancel that was asked for last, with what is not stored
	work    sync.WaitGroup       // goroutines that are the owner's
}

// followed is a command that somebody follows.
type followed struct {
	task.Ref
	undoes bool
	halt   chan struct{} // closed when it is to be cancelled: it is not tried to be started any more
	halted bool
	crowd  bool // so many of its principal wait for people that nobody is asked yet
}

// shown is how much of a step was told to be done, and when.
type shown struct {
	percent float64
	at      time.Time
}

// wish is how commands are to be cancelled.
type wish struct {
	by access.Caller
	Cancel
}

// Cancel is how commands are to be cancelled.
type Cancel struct {
	Grace  time.Duration // below zero: the default
	Reason string
}

func newLive(w *Workflow, t task.Task) *live {
	return &live{
		w: w, id: t.ID, priority: t.Spec.Priority,
		granted: make(chan struct{}), calls: make(chan func()), over: make(chan struct{}), moved: make(chan struct{}, 1),
		pub: t, t: t.Clone(),
		follows: make(map[string]*followed), shown: make(map[int]shown),
	}
}

// snapshot gives the task as it is stored.
func (l *live) snapshot() task.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pub
}

// moveTo tells where it waits. Workflow's mu is held.
func (l *live) moveTo(p *task.Place) {
	l.mu.Lock()
	l.place = p
	l.mu.Unlock()
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

// do has the owner run f, and waits until it has; false where the task is over, or ctx ends
// before the owner has come to it.
func (l *live) do(ctx context.Context, f func()) (bool, error) {
	done := make(chan struct{})
	select {
	case l.calls <- func() { defer close(done); f() }:
		<-done
		return true, nil
	case <-l.over:
		return false, nil
	case <-ctx.Done():
		return false, fault.From(context.Cause(ctx))
	}
}

// post has the owner run f some time soon, unless the task is over by then.
func (l *live) post(f func()) {
	select {
	case l.calls <- f:
	case <-l.over:
	}
}

// own is the life of the owner.
func (l *live) own(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer l.work.Wait()
	defer close(l.over)
	defer stop()
	l.ctx, l.now = ctx, time.Now()
	defer func() {
		if p := recover(); p != nil {
			// It stays as it is stored; the next run goes on with it.
			l.w.Logger.Error("the owner of a task panicked; the task stands still until the service is started again", "task", l.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			l.w.holds(l, false)
		}
	}()
	l.slot = l.t.State == task.Running
	if l.t.State == task.Queued {
		if !l.wait() {
			return
		}
		l.t.StartTime = l.now
		l.be(task.Running)
	}
	l.recover()
	for ctx.Err() == nil {
		again, done := l.advance()
		if done {
			return
		}
		l.listen(again)
	}
}

// wait waits for a slot; false where it was cancelled meanwhile, or the service stops.
func (l *live) wait() bool {
	for {
		select {
		case <-l.granted:
			l.slot, l.now = true, time.Now()
			return true
		case <-l.moved:
			l.now = time.Now()
			l.tellPlace()
		case f := <-l.calls:
			l.now = time.Now()
			f()
			if l.t.Cancellation != nil {
				l.finishQueued()
				return false
			}
		case <-l.ctx.Done():
			return false
		}
	}
}

// tellPlace tells where it waits, and for how long still, if that is worth telling: far
// behind, not every place is.
func (l *live) tellPlace() {
	l.mu.Lock()
	p := l.place
	l.place = nil
	l.mu.Unlock()
	if p == nil {
		return
	}
	moved, known := max(l.at-p.Position, p.Position-l.at), p.EstimatedWait > 0
	if min(l.at, p.Position) > 100 && moved < l.at/10 {
		return
	}
	turn := l.now.Add(p.EstimatedWait)
	if !known {
		turn = time.Time{}
	}
	if moved == 0 && known == !l.turn.IsZero() && (!known || turn.Sub(l.turn).Abs() < max(p.EstimatedWait/4, estimateLeast)) {
		return
	}
	l.at, l.turn = p.Position, turn
	l.tell(task.Event{Type: task.QueueUpdate, Step: -1, Place: p, Message: fmt.Sprintf("place %d in the queue", p.Position)})
	l.commit()
}

// finishQueued ends a task that has never begun.
func (l *live) finishQueued() {
	for _, r := range l.t.Refs() {
		l.skip(r)
	}
	l.conclude()
}

// listen waits for one thing and does it; again is when to look anyhow.
func (l *live) listen(again time.Time) {
	var timer <-chan time.Time
	if !again.IsZero() {
		timer = time.After(time.Until(again))
	}
	select {
	case f := <-l.calls:
		l.now = time.Now()
		f()
	case <-timer:
		l.now = time.Now()
	case <-l.ctx.Done():
	}
}

// recover finds the commands again that ran when the last run of the service ended.
func (l *live) recover() {
	if l.t.State == task.Queued {
		return
	}
	for _, r := range l.t.Refs() {
		run := l.t.Run(r)
		switch {
		case run.Undo.State == task.UndoRunning, run.Undo.State == task.UndoAwaiting:
			l.follow(r, run.Undo.Command, true, nil)
		case (run.State == task.StepRunning || run.State == task.StepAwaiting) && run.RetryTime.IsZero():
			l.follow(r, run.Command, false, nil)
		}
	}
}

// advance does what is due until nothing more is; done when the task has ended, which is
// stored. again is when something more is due.
func (l *live) advance() (again time.Time, done bool) {
	for l.ctx.Err() == nil {
		d := l.t.Due(l.now)
		for _, r := range d.Skip {
			l.skip(r)
		}
		for _, r := range d.Drop {
			l.dropUndo(r)
		}
		var starts []func()
		for _, r := range d.Start {
			starts = append(starts, l.begin(r))
		}
		for _, r := range d.Undo {
			starts = append(starts, l.beginUndo(r))
		}
		if d.Over {
			if l.conclude() {
				return time.Time{}, true
			}
			continue
		}
		late := l.tellProgress()
		l.settle()
		if !l.commit() {
			return time.Time{}, false
		}
		for _, start := range starts {
			start()
		}
		if len(d.Skip)+len(d.Drop)+len(starts) == 0 {
			return earlier(d.Again, late), false
		}
	}
	return time.Time{}, false
}

// be makes a state that of the task, and tells it.
func (l *live) be(state task.State) {
	l.t.State = state
	l.tell(task.Event{Type: task.StatusChange, Step: -1, Message: "the task is " + words(string(state))})
}

// earlier gives the first of two times; the zero time is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// settle makes the state of the task what its runs say, and its slot what that needs.
func (l *live) settle() {
	state := l.t.State
	if state == task.Running || state == task.AwaitingApproval {
		state = l.t.Progress()
	}
	if state != l.t.State {
		l.be(state)
	}
	if slot := state == task.Running; slot != l.slot {
		l.slot = slot
		l.w.holds(l, slot)
	}
}

// tell adds an event to what is stored next.
func (l *live) tell(e task.Event) {
	l.t.Sequence++
	e.Task, e.Sequence, e.Time = l.id, l.t.Sequence, l.now
	l.ch.Events = append(l.ch.Events, e)
}

// touch notes that a run has changed.
func (l *live) touch(r task.Ref) *task.Run {
	if !slices.Contains(l.ch.Runs, r) {
		l.ch.Runs = append(l.ch.Runs, r)
	}
	return l.t.Run(r)
}

// commit stores what has changed, and tells it; where the store fails, again and again,
// until it has it or the service stops. It reports whether it is stored.
func (l *live) commit() bool {
	if len(l.ch.Runs)+len(l.ch.Steps)+len(l.ch.Events)+len(l.ch.Audit) == 0 {
		return true
	}
	l.t.Version++
	ch := l.ch
	ch.Task = l.t.Clone()
	for i := range ch.Events {
		ch.Events[i].State, ch.Events[i].TaskPercent = l.t.State, l.t.Percent()
	}
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		err := l.w.Journal.SaveTasks(context.WithoutCancel(l.ctx), ch)
		if err != nil && l.stored(l.ctx, &ch) {
			err = nil
		}
		if err == nil {
			break
		}
		if kind := fault.KindOf(err); kind == fault.Aborted || kind == fault.NotFound {
			panic(fmt.Sprintf("somebody else has changed the task: %v", err)) // nobody may, while it has an owner
		}
		l.w.Logger.Warn("the change of a task cannot be stored; it is tried again", "task", l.id, "error", err)
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
			return false
		}
	}
	l.ch = task.Change{}
	l.publish(&ch)
	return true
}

// publish shows a change that is stored, and tells all who wait. Those who watch all tasks
// are told before they can see it: of a task that has ended they forget what they were told.
func (l *live) publish(ch *task.Change) {
	l.mu.Lock()
	l.pub = ch.Task
	l.w.crowd.tell(&ch.Task, ch.Task.Sequence-int64(len(ch.Events)))
	l.mu.Unlock()
	l.bell.Ring()
	l.w.bell.Ring()
}

// stored reports whether the journal has a change, after an error that does not tell.
func (l *live) stored(ctx context.Context, ch *task.Change) bool {
	t, err := l.w.Journal.Task(context.WithoutCancel(ctx), l.id)
	return err == nil && t.Version == ch.Task.Version && t.Sequence == ch.Task.Sequence && t.State == ch.Task.State
}

// conclude ends the task, or what is undone of it, and reports whether that is stored and
// over; else it goes on with being undone.
func (l *live) conclude() bool {
	undone := l.t.Undo != nil && l.t.Undo.State.Open()
	ended := l.t.Conclude(l.now)
	for _, r := range l.t.Refs() { // what Conclude has marked
		l.touch(r)
	}
	if !ended {
		l.tell(task.Event{Type: task.ErrorEvent, Step: -1, Failure: l.t.Failure, Message: l.t.Failure.Message + "; what was done is undone"})
		l.tell(task.Event{Type: task.StatusChange, Step: -1, Message: "the task is undoing"})
		l.ch.Audit = append(l.ch.Audit, l.entry(audit.TaskUndo, audit.Entry{Principal: l.t.Undo.By.Principal, Origin: string(l.t.Undo.By.Origin), Detail: l.t.Undo.Reason}))
		l.tellNotUndone(nil)
		l.settle()
		l.commit()
		return false
	}
	if l.t.State == task.Failed && !undone {
		l.tell(task.Event{Type: task.ErrorEvent, Step: -1, Failure: l.t.Failure, Message: l.t.Failure.Message})
	}
	l.tell(task.Event{Type: task.StatusChange, Step: -1, Message: "the task is " + words(string(l.t.State))})
	switch {
	case undone:
	case l.t.State == task.Completed:
		l.tell(task.Event{Type: task.TaskCompleted, Step: -1, Message: "every step has come to its end"})
	case l.t.State == task.Cancelled:
		l.tell(task.Event{Type: task.TaskCancelled, Step: -1, Message: "cancelled by " + l.t.Cancellation.By.Principal})
	}
	l.ch.Audit = append(l.ch.Audit, l.entry(audit.TaskEnded, audit.Entry{Outcome: string(l.t.State), Reason: reasonOf(l.t.Failure)}))
	if !l.commit() {
		return false
	}
	l.w.leave(l)
	l.w.Logger.Info("a task has ended", "task", l.id, "state", l.t.State)
	return true
}

// entry is what the audit is told of the task.
func (l *live) entry(kind audit.Kind, e audit.Entry) audit.Entry {
	e.Time, e.Kind, e.Task, e.Subject = l.now, kind, l.id, l.t.CreatedBy.Principal
	if e.Principal == "" {
		e.Principal, e.Origin = l.t.CreatedBy.Principal, string(l.t.CreatedBy.Origin)
	}
	return e
}

func reasonOf(f *command.Failure) string {
	if f == nil {
		return ""
	}
	return f.Reason
}

// skip has a run never run.
func (l *live) skip(r task.Ref) {
	run := l.touch(r)
	if run.State != task.StepPending {
		return
	}
	run.State = task.StepSkipped
	l.stepOver(r.Step)
}

// stepOver tells that a step is over, once it is.
func (l *live) stepOver(step int) {
	s := &l.t.Steps[step]
	if state := s.State(); state.Ended() {
		l.tell(task.Event{Type: task.StepComplete, Step: step, StepState: state, Percent: 100, Message: fmt.Sprintf("step %q %s", l.t.Spec.Steps[step].Name, ending(state))})
	}
}

// ending tells of an end of a step or a run: "has completed".
func ending(s task.StepState) string {
	switch s {
	case task.StepCancelled, task.StepSkipped:
		return "was " + words(string(s))
	case task.StepLost:
		return "is lost"
	}
	return "has " + words(string(s))
}

// words are a state for people: "awaiting approval".
func words(state string) string {
	return strings.ToLower(strings.ReplaceAll(state, "_", " "))
}
