package workflow

import (
	"context"
	"fmt"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/audit"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// UndoRequest says what to undo.
type UndoRequest struct {
	Step    string // name of the one step; empty: all
	Unknown bool   // also what may have run
	Reason  string
	Preview bool // only tell what would be done
}

// UndoOf is a run that an undo is about.
type UndoOf struct {
	Ref   task.Ref
	Line  string
	State task.UndoState // UndoPending: it is undone; else why not
}

// Undo begins to take back what a task has done, the last step first, and gives what is
// done, in its order. TASK_NOT_ENDED, NOTHING_TO_UNDO, PERSON_NEEDED, POLICY_DENIED.
func (w *Workflow) Undo(ctx context.Context, by access.Caller, id string, r UndoRequest) (View, []UndoOf, error) {
	v, err := w.may(ctx, by, access.Act, id)
	if err != nil {
		return v, nil, err
	}
	if r.Unknown && by.Origin == command.OriginMCP {
		return v, nil, fault.New(fault.PermissionDenied, fault.ReasonPersonNeeded, "whether what may have run is to be undone is for a person to say").
			WithHint("Ask a person to look at the host, and to undo it in the web UI or with telexec task undo --include-unknown").With("task_id", id)
	}
	of, err := stepNamed(&v.Task, r.Step)
	if err != nil {
		return v, nil, err
	}
	if r.Preview {
		_, list, err := w.plan(ctx, by, v.Task, of, r)
		return v, list, err
	}
	if err := hasEnded(&v.Task); err != nil {
		return v, nil, err
	}
	// From here on nobody else changes it: what is planned is what is stored.
	if err := w.claim(ctx, id); err != nil {
		return v, nil, err
	}
	defer w.release(id)
	if v, err = w.read(ctx, id); err != nil {
		return v, nil, err
	}
	t, list, err := w.plan(ctx, by, v.Task, of, r)
	if err != nil {
		return v, list, err
	}
	l := newLive(w, t)
	l.change(v.Task, by, r, of)
	if err := w.takeBack(ctx, l, v.Version); err != nil {
		return v, nil, err
	}
	return View{Task: l.snapshot()}, list, nil
}

// stepNamed gives a filter for the step of that name; nil where it is empty.
func stepNamed(t *task.Task, name string) (func(step int) bool, error) {
	if name == "" {
		return nil, nil
	}
	for i := range t.Spec.Steps {
		if t.Spec.Steps[i].Name == name {
			return func(step int) bool { return step == i }, nil
		}
	}
	return nil, fault.New(fault.Invalid, fault.ReasonInvalidRequest, "the task has no step %q", name).
		WithHint("telexec task get %s names them", t.ID).With("field", "step_id").With("task_id", t.ID)
}

// hasEnded is an error where a task has not, so that it cannot be undone.
func hasEnded(t *task.Task) error {
	if t.Ended() {
		return nil
	}
	hint := "Cancel it first, or wait for its end"
	if t.State == task.Undoing {
		hint = "It is being undone already; telexec task watch shows it"
	}
	return fault.New(fault.FailedPrecondition, fault.ReasonTaskNotEnded, "the task is %s", words(string(t.State))).WithHint("%s", hint).With("task_id", t.ID)
}

// plan gives the task as it is when it is to be undone, and what that comes to.
func (w *Workflow) plan(ctx context.Context, by access.Caller, was task.Task, of func(int) bool, r UndoRequest) (task.Task, []UndoOf, error) {
	if err := hasEnded(&was); err != nil {
		return was, nil, err
	}
	t := was.Clone()
	t.Undo = &task.Undo{By: by.Actor(), Roles: by.RoleNames(), Reason: r.Reason}
	any := t.BeginUndo(of, r.Unknown)
	var list []UndoOf
	for i := len(t.Steps) - 1; i >= 0; i-- {
		if of != nil && !of(i) {
			continue
		}
		for j := range t.Steps[i].Runs {
			ref := task.Ref{Step: i, Run: j}
			u := UndoOf{Ref: ref, Line: t.Spec.Steps[i].Undo, State: t.Run(ref).Undo.State}
			if u.State == "" {
				continue
			}
			list = append(list, u)
			if u.State != task.UndoPending {
				continue
			}
			if err := w.Commands.Judge(ctx, by, undoOf(&t, ref)); err != nil {
				return t, list, wrong(i, t.Spec.Steps[i].Name, "undo", "its undo %s: %s", t.Where(ref), fault.From(err).Message).as(fault.From(err)).With("task_id", t.ID)
			}
		}
	}
	if !any && !r.Preview {
		return t, list, fault.New(fault.FailedPrecondition, fault.ReasonNothingToUndo, "nothing of it can be undone: what was done has no undo, or is undone already").
			WithHint("telexec task undo --preview tells of each step why").With("task_id", t.ID)
	}
	return t, list, nil
}

// change is the beginning of the undo, to be stored. Nobody owns l yet.
func (l *live) change(was task.Task, by access.Caller, r UndoRequest, of func(int) bool) {
	l.now = time.Now()
	undo := *l.t.Undo
	undo.Time = l.now
	l.t.Undo = &undo
	for _, ref := range l.t.Refs() {
		if l.t.Run(ref).Undo != was.Run(ref).Undo {
			l.touch(ref)
		}
	}
	what := "the task"
	if r.Step != "" {
		what = fmt.Sprintf("step %q", r.Step)
	}
	message := by.Name + " has " + what + " undone"
	if r.Reason != "" {
		message += ": " + r.Reason
	}
	l.tell(task.Event{Type: task.StatusChange, Step: -1, Message: message})
	l.tellNotUndone(of)
	l.ch.Audit = append(l.ch.Audit, l.entry(audit.TaskUndo, audit.Entry{
		Principal: by.Name, Origin: string(by.Origin), Address: by.Address, Call: by.Call, Detail: what + ": " + r.Reason,
	}))
}

// takeBack stores that a task is to be undone, and has it looked after. Its caller has
// claimed it.
func (w *Workflow) takeBack(ctx context.Context, l *live, version int64) error {
	l.t.Version = version + 1
	ch := l.ch
	ch.Task = l.t.Clone()
	for i := range ch.Events {
		ch.Events[i].State, ch.Events[i].TaskPercent = l.t.State, l.t.Percent()
	}
	err := w.Journal.SaveTasks(context.WithoutCancel(ctx), ch)
	if err != nil && !l.stored(ctx, &ch) {
		return err
	}
	l.ch = task.Change{}
	l.publish(&ch)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() == nil { // else the next run finds it
		w.add(l)
		w.grant()
	}
	return nil
}

// claim sees to it that nobody else has a task undone meanwhile; release gives that back.
// One that has just ended has an owner for a moment more.
func (w *Workflow) claim(ctx context.Context, id string) error {
	for {
		w.mu.Lock()
		l := w.lives[id]
		switch {
		case w.ctx == nil || w.ctx.Err() != nil:
			w.mu.Unlock()
			return draining()
		case l == nil && !w.claimed[id]:
			w.claimed[id] = true
			w.mu.Unlock()
			return nil
		}
		w.mu.Unlock()
		if l == nil || !ended(l) {
			return fault.New(fault.FailedPrecondition, fault.ReasonTaskNotEnded, "somebody has the task undone at this moment").
				WithHint("telexec task watch shows it").With("task_id", id)
		}
		select {
		case <-l.over:
		case <-ctx.Done():
			return fault.From(context.Cause(ctx))
		}
	}
}

func (w *Workflow) release(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.claimed, id)
}

func ended(l *live) bool {
	t := l.snapshot()
	return t.Ended()
}
