package workflow

import (
	"context"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/task"
)

// cancelMost is how long Cancel waits beyond the grace.
const cancelMost = 10 * time.Second

// Cancel cancels what runs of a task, or of its undo, and nothing more of it begins. It
// answers when the task has ended, or after the grace and a moment; already tells that it
// had before. What was done is not undone.
func (w *Workflow) Cancel(ctx context.Context, by access.Caller, id string, c Cancel) (v View, already bool, err error) {
	if v, err = w.may(ctx, by, access.Act, id); err != nil || v.Ended() {
		return v, err == nil, err
	}
	l := w.find(id)
	if l == nil {
		return w.afterwards(ctx, by, id)
	}
	ok, err := l.do(ctx, func() { l.cancel(by, c) })
	if err != nil {
		return v, false, err
	}
	if !ok {
		return w.afterwards(ctx, by, id)
	}
	ctx, stop := context.WithTimeout(ctx, max(c.Grace, 0)+cancelMost)
	defer stop()
	v, _, err = w.Await(ctx, by, id, View.Ended)
	return v, false, err
}

// Ended reports whether it is over.
func (v View) Ended() bool { return v.Task.Ended() }

// afterwards is the answer about a task that has no owner any more.
func (w *Workflow) afterwards(ctx context.Context, by access.Caller, id string) (View, bool, error) {
	v, err := w.Get(ctx, by, id)
	if err == nil && !v.Ended() {
		err = draining()
	}
	return v, err == nil, err
}

// cancel takes a wish to cancel; a later one is only about what is not cancelled yet.
func (l *live) cancel(by access.Caller, c Cancel) {
	n := &task.Cancellation{By: by.Actor(), Time: l.now, Reason: c.Reason}
	undoes := l.t.State == task.Undoing
	l.wish = &wish{by, c}
	switch {
	case undoes && l.t.Undo.Cancellation == nil:
		undo := *l.t.Undo
		undo.Cancellation = n
		l.t.Undo = &undo
	case !undoes && l.t.Cancellation == nil:
		l.t.Cancellation = n
	default:
		return
	}
	e := l.entry(audit.TaskCancel, audit.Entry{Principal: by.Name, Origin: string(by.Origin), Address: by.Address, Call: by.Call, Detail: c.Reason})
	l.ch.Audit = append(l.ch.Audit, e)
	what := "the task"
	if undoes {
		what = "the undo"
	}
	message := by.Name + " cancels " + what
	if c.Reason != "" {
		message += ": " + c.Reason
	}
	l.tell(task.Event{Type: task.StatusChange, Step: -1, Message: message})
	for id := range l.follows {
		l.cancelCommand(id)
	}
	for _, r := range l.t.Refs() { // what waits to be tried again
		if run := l.t.Run(r); run.State == task.StepRunning && !run.RetryTime.IsZero() {
			l.touch(r).RetryTime = time.Time{}
			l.ended(r, task.StepCancelled, run.Exit, run.Failure)
		}
	}
}

// mayNotRun reports whether commands are to be cancelled.
func (l *live) mayNotRun(undoes bool) bool {
	if undoes {
		return l.t.Undo.Cancellation != nil
	}
	return l.t.Cancellation != nil
}

// cancelCommand has a command cancelled, until that has got through.
func (l *live) cancelCommand(id string) {
	f := l.follows[id]
	if f.halted {
		return
	}
	f.halted = true
	close(f.halt)
	ctx, wish := l.ctx, l.wishOf(id)
	l.work.Go(func() {
		for pause := retryLeast; ctx.Err() == nil; pause = min(2*pause, retryMost) {
			if err := l.w.Commands.Cancel(ctx, wish.by, id, wish.Cancel); err == nil {
				return
			}
			sleep(ctx, pause) // it may be about to be started
			if !l.followed(ctx, id) {
				return
			}
		}
	})
}

// followed reports whether a command is still followed.
func (l *live) followed(ctx context.Context, id string) (is bool) {
	ok, err := l.do(ctx, func() { _, is = l.follows[id] })
	return ok && err == nil && is
}

// wishOf is how a command is to be cancelled: as it was asked, or in the name of who asked
// the last run of the service. Who may cancel the task may cancel its commands.
func (l *live) wishOf(id string) (w wish) {
	if l.wish != nil {
		w = *l.wish
	} else {
		n := l.t.Cancellation
		if l.follows[id].undoes {
			n = l.t.Undo.Cancellation
		}
		w = wish{callerOf(n.By, nil), Cancel{Grace: -1, Reason: n.Reason}}
	}
	w.by.Roles = append(slices.Clone(w.by.Roles), access.RoleAdmin)
	return w
}
