// Package workflow runs tasks: it accepts them, queues them, gives each an owner that
// sees it from step to step to its end, and takes it back when asked. The commands of its
// steps are run by others (Commands), which see to it that each runs once.
//
// Start with Workflow, the set of all tasks, and live (live.go), one that has not ended:
// one goroutine owns it, the only one that changes it; everything else sends it messages
// or takes snapshots.
//
//	Submit ─▶ queue ──slot──▶ owner ─┬─ Due: what is to be done (package task, pure)
//	                                 ├─ commit: state, events and audit in one transaction,
//	                                 │  and only then is anybody told
//	                                 └─ a goroutine for each command that runs, which tells
//	                                    the owner how it is
//
// That a command is about to be started is stored with its id before it is; so after a
// crash the owner finds it by that id, or knows that it never was.
package workflow

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/output"
	"github.com/telexec/telexec/internal/task"
)

// Limits bounds the room. All are above zero.
type Limits struct {
	Running  int           // tasks that run at once
	Queued   int           // tasks that may wait
	Approval time.Duration // for so long a step waits for people that no rule has it wait for
	History  time.Duration // for so long commands are kept that have ended
}

// Options are what a Workflow needs.
type Options struct {
	Journal  Journal
	Commands Commands
	Hosts    Hosts
	Rights   *access.Rights
	Limits   Limits
	Logger   *slog.Logger
}

// Workflow is the set of all tasks. Its methods may be called from any goroutine.
type Workflow struct {
	Options
	ready  chan struct{} // closed by Run when the tasks of the last run are known again
	bell   output.Bell   // rung when any task has changed
	crowd  crowd
	owners sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context  // of Run; nil before
	lives   map[string]*live // those that have not ended, and those that are undone
	claimed map[string]bool  // those that are about to be undone
	queue   queue
}

// New gives a Workflow that runs nothing before Run.
func New(o Options) *Workflow {
	return &Workflow{Options: o, ready: make(chan struct{}), crowd: crowd{all: make(map[*All]bool)}, lives: make(map[string]*live), claimed: make(map[string]bool), queue: newQueue(o.Limits.Running)}
}

// Ready is closed when tasks are taken.
func (w *Workflow) Ready() <-chan struct{} { return w.ready }

// recentMost is how many tasks that have ended tell how long one takes.
const recentMost = 20

// Run goes on with what the last run of the service has left, and runs tasks until ctx
// ends. Commands go on without it; the next run finds them.
func (w *Workflow) Run(ctx context.Context) error {
	select {
	case <-w.Commands.Ready():
	case <-ctx.Done():
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer w.owners.Wait()
	defer stop()
	left, err := w.left(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	w.mu.Lock()
	w.ctx = ctx
	for _, t := range left {
		w.add(newLive(w, t))
	}
	w.grant() // when all that run have taken their slots, and the others stand in their order
	w.mu.Unlock()
	close(w.ready)
	<-ctx.Done()
	return nil
}

// left gives the tasks that have not ended, the eldest first, and has the queue know how
// long the last ones took.
func (w *Workflow) left(ctx context.Context) ([]task.Task, error) {
	last, err := w.Journal.Tasks(ctx, task.Filter{States: []task.State{task.Completed, task.Failed}, Limit: recentMost})
	if err != nil {
		return nil, err
	}
	slices.Reverse(last)
	for i := range last {
		if last[i].Undo == nil {
			w.queue.took(last[i].Busy())
		}
	}
	left, err := w.Journal.Tasks(ctx, task.Filter{States: []task.State{task.Queued, task.Running, task.AwaitingApproval, task.Undoing}})
	slices.Reverse(left)
	return left, err
}

// add has an owner look after a task; grant comes behind it. mu is held, and Run runs.
func (w *Workflow) add(l *live) {
	w.lives[l.id] = l
	switch l.t.State {
	case task.Queued:
		w.queue.add(l)
	case task.Running:
		w.queue.running(l, true)
	}
	w.owners.Go(func() { l.own(w.ctx) })
}

// forgotten reports whether a command of that id may have been removed since, with the
// history, so that it tells nothing that it is not there.
func (w *Workflow) forgotten(id string, now time.Time) bool {
	made, err := ulid.ParseStrict(id)
	return err != nil || now.Sub(made.Timestamp()) >= w.Limits.History
}

// grant gives free slots to those whose turn it is, and tells the others where they are.
// mu is held.
func (w *Workflow) grant() {
	for l := w.queue.next(); l != nil; l = w.queue.next() {
		w.queue.running(l, true)
		close(l.granted)
	}
	w.queue.places(time.Now(), (*live).moveTo)
}

// holds has a task take its slot again, or give it back while it waits for people.
func (w *Workflow) holds(l *live, slot bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue.running(l, slot)
	w.grant()
}

// leave is called by the owner of a task that has ended, and was stored so.
func (w *Workflow) leave(l *live) {
	w.mu.Lock()
	defer w.mu.Unlock()
	took := w.queue.remove(l)
	if t := l.snapshot(); !t.StartTime.IsZero() && t.Undo == nil && (t.State == task.Completed || t.State == task.Failed) {
		w.queue.took(took)
	}
	delete(w.lives, l.id)
	w.grant()
}

// Stats is how many tasks there are now.
type Stats struct {
	Begun, Queued int
}

// Stats counts the tasks.
func (w *Workflow) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.queue.waiting)
	return Stats{Begun: len(w.lives) - n, Queued: n}
}

// find gives a task that has an owner; nil: it has none.
func (w *Workflow) find(id string) *live {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lives[id]
}

// bellOf is rung when a task changes; where it has no owner, when any does.
func (w *Workflow) bellOf(id string) *output.Bell {
	if l := w.find(id); l != nil {
		return &l.bell
	}
	return &w.bell
}

// View is a task as a caller sees it.
type View struct {
	task.Task
	Place *task.Place // in the queue; nil: it does not wait there
}

// read gives a task as it is, whoever asks.
func (w *Workflow) read(ctx context.Context, id string) (View, error) {
	if l := w.find(id); l != nil {
		return w.view(l), nil
	}
	t, err := w.Journal.Task(ctx, id)
	return View{Task: t}, err
}

func (w *Workflow) view(l *live) View {
	v := View{Task: l.snapshot()}
	if v.State == task.Queued {
		w.mu.Lock()
		v.Place = w.queue.place(l, time.Now())
		w.mu.Unlock()
	}
	return v
}

// Get gives a task to a caller who may see it; ACCESS_DENIED, as for one that is not
// there, where the caller may not.
func (w *Workflow) Get(ctx context.Context, by access.Caller, id string) (View, error) {
	return w.may(ctx, by, access.Look, id)
}

// Plan gives a task for who is asked about one of its steps.
func (w *Workflow) Plan(ctx context.Context, id string) (View, error) { return w.read(ctx, id) }

// may gives a task to a caller who may do that with it.
func (w *Workflow) may(ctx context.Context, by access.Caller, a access.Action, id string) (View, error) {
	v, err := w.read(ctx, id)
	switch {
	case fault.ReasonOf(err) == fault.ReasonUnknownTask:
		if err := w.Rights.May(by, a, access.Thing{What: "task", ID: id}); err != nil {
			return View{}, err
		}
		return View{}, err
	case err != nil:
		return View{}, err
	}
	if err := w.Rights.May(by, a, access.Thing{What: "task", ID: id, Owner: v.CreatedBy.Principal}); err != nil {
		return View{}, err
	}
	return v, nil
}

// Await is Get, as soon as enough says so, or the task has ended, or ctx is done, whose
// end is no error; enough is told so by late.
func (w *Workflow) Await(ctx context.Context, by access.Caller, id string, enough func(View) bool) (v View, late bool, err error) {
	for {
		rung := w.bellOf(id).Rung()
		v, err := w.Get(context.WithoutCancel(ctx), by, id)
		if err != nil || enough(v) || v.Ended() {
			return v, false, err
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return v, true, nil
		}
	}
}

// List gives tasks that the caller may see, newest first.
func (w *Workflow) List(ctx context.Context, by access.Caller, f task.Filter) ([]View, error) {
	if err := w.Rights.May(by, access.Look, access.Thing{Owner: by.Name}); err != nil {
		return nil, err
	}
	if !w.Rights.SeesAll(by) {
		f.Visible = by.Name
	}
	stored, err := w.Journal.Tasks(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]View, len(stored))
	for i, t := range stored {
		list[i] = View{Task: t}
		if l := w.find(t.ID); l != nil {
			list[i] = w.view(l)
		}
	}
	return list, nil
}

// draining is the refusal of what comes while the service stops, or begins.
func draining() error {
	return fault.New(fault.Unavailable, fault.ReasonDraining, "the service takes no tasks: it is starting or shutting down").
		WithHint("Try again in a moment, with the same request_id").WithRetry(time.Second)
}
