package workflow

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// A run is begun in three parts: its command's id is chosen and stored; the command is
// started under it; its end is awaited. A crash behind the first finds the id, and asks
// whether there is such a command.
//
//	PENDING ──id stored──▶ RUNNING ──Start──▶ followed ──▶ COMPLETED, FAILED, …
//	                                              │           │ tried again
//	                                              ▼           └──▶ RUNNING, until RetryTime
//	                                       AWAITING_APPROVAL

// begin chooses a command for a run, and gives what starts it once that is stored.
func (l *live) begin(r task.Ref) (start func()) {
	run, s := l.touch(r), &l.t.Spec.Steps[r.Step]
	if l.t.Steps[r.Step].State() == task.StepPending {
		l.tell(task.Event{Type: task.StepStart, Step: r.Step, StepState: task.StepRunning, Message: fmt.Sprintf("step %q begins", s.Name)})
	}
	if run.Command != "" {
		run.Earlier = append(run.Earlier[:len(run.Earlier):len(run.Earlier)], run.Command)
	}
	run.State, run.Command, run.RetryTime, run.Percent = task.StepRunning, l.w.Commands.NewID(), time.Time{}, 0
	run.Exit, run.Failure, run.EndTime = nil, nil, time.Time{}
	l.tell(task.Event{Type: task.StepStart, Step: r.Step, Host: run.Host, Command: run.Command, StepState: run.State, Message: fmt.Sprintf("step %q begins %s", s.Name, l.t.Where(r))})
	spec, id := l.spec(r), run.Command
	return func() { l.follow(r, id, false, &spec) }
}

// beginUndo is begin for the command that takes a run back.
func (l *live) beginUndo(r task.Ref) (start func()) {
	run, s := l.touch(r), &l.t.Spec.Steps[r.Step]
	run.Undo = task.UndoRun{State: task.UndoRunning, Command: l.w.Commands.NewID(), StartTime: l.now}
	l.tell(task.Event{Type: task.UndoStart, Step: r.Step, Host: run.Host, Command: run.Undo.Command, UndoState: run.Undo.State, Message: fmt.Sprintf("step %q is being undone %s", s.Name, l.t.Where(r))})
	spec, id := l.undoSpec(r), run.Undo.Command
	return func() { l.follow(r, id, true, &spec) }
}

// spec is the command of a run.
func (l *live) spec(r task.Ref) command.Spec {
	s := specOf(&l.t, r)
	lead := &l.t.Steps[r.Step].Runs[0]
	switch first := firstCommand(lead); {
	case r.Run > 0:
		s.Task.Under = first
	case len(lead.Earlier) > 0:
		s.Task.Under = first // it is tried again
	default:
		for _, run := range l.t.Steps[r.Step].Runs {
			s.Task.Hosts = append(s.Task.Hosts, run.Host)
		}
		s.Task.Undo = l.t.Spec.Steps[r.Step].Undo
	}
	if l.t.Spec.Steps[r.Step].NeedsApproval {
		s.Task.Gate = l.w.Limits.Approval
	}
	return s
}

// firstCommand is the one that people were asked about.
func firstCommand(r *task.Run) string {
	if len(r.Earlier) > 0 {
		return r.Earlier[0]
	}
	return r.Command
}

// specOf is what a run runs, without what is of people who decide.
func specOf(t *task.Task, r task.Ref) command.Spec {
	step, now := &t.Spec.Steps[r.Step], &t.Steps[r.Step]
	s := command.Spec{
		Host: t.Run(r).Host, Session: step.Session, Line: step.Line, Argv: step.Argv, WorkingDirectory: step.WorkingDirectory,
		Timeout: step.Timeout, Priority: t.Spec.Priority, Labels: t.Spec.Labels, ActionType: step.ActionType,
		Task: &command.TaskRef{ID: t.ID, Step: r.Step, Name: step.Name},
	}
	if now.Line != "" || len(now.Argv) > 0 {
		s.Line, s.Argv, s.Timeout = now.Line, now.Argv, now.Timeout
	}
	if s.Session != "" {
		s.Host, s.Session = "", cmp.Or(t.Run(r).Session, s.Session)
	}
	if step.SudoUser != "" {
		s.Sudo = &command.Sudo{User: step.SudoUser}
	}
	return s
}

// undoSpec is the command that takes a run back.
func (l *live) undoSpec(r task.Ref) command.Spec {
	s := undoOf(&l.t, r)
	s.Task.Under = firstCommand(&l.t.Steps[r.Step].Runs[0])
	return s
}

func undoOf(t *task.Task, r task.Ref) command.Spec {
	s := specOf(t, r)
	s.Line, s.Argv, s.Task.Undoes = t.Spec.Steps[r.Step].Undo, nil, true
	return s
}

// caller is who the commands of the task are of; of an undo, who asked for that.
func (l *live) caller(undoes bool) access.Caller {
	by, roles := l.t.CreatedBy, l.t.Roles
	if undoes {
		by, roles = l.t.Undo.By, l.t.Undo.Roles
	}
	return callerOf(by, roles)
}

func callerOf(by command.Actor, roles []string) access.Caller {
	c := access.Caller{Principal: access.Principal{Name: by.Principal}, Origin: by.Origin}
	for _, role := range roles {
		c.Roles = append(c.Roles, access.Role(role))
	}
	return c
}

// follow has somebody start a command, where spec is not nil, or find it again, and tell
// the owner how it is until it has ended.
func (l *live) follow(r task.Ref, id string, undoes bool, spec *command.Spec) {
	f := &followed{Ref: r, undoes: undoes, halt: make(chan struct{})}
	l.follows[id] = f
	ctx, by := l.ctx, l.caller(undoes)
	l.work.Go(func() {
		c, refused, err := l.bring(ctx, by, id, spec, f.halt)
		switch {
		case ctx.Err() != nil:
			return
		case refused != nil:
			l.post(func() { l.refused(id, refused) })
			return
		case fault.ReasonOf(err) == fault.ReasonUnknownCommand: // it was never started
			l.post(func() { l.neverStarted(id) })
			return
		case err != nil:
			l.post(func() { l.lost(id, err) })
			return
		}
		for ctx.Err() == nil {
			heard := c
			l.post(func() { l.heard(heard) })
			if c.Ended() {
				return
			}
			if c, err = l.next(ctx, c); err != nil && ctx.Err() == nil {
				l.post(func() { l.lost(id, err) })
				return
			}
		}
	})
}

// next gives a command when it has changed. An error, but for that of ctx, says that it
// cannot be known any more what becomes of it.
func (l *live) next(ctx context.Context, was command.Command) (command.Command, error) {
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		c, err := l.w.Commands.Await(ctx, was.ID, was.Version)
		if err == nil && (c.Version > was.Version || c.Ended()) || err != nil && !temporary(err) {
			return c, err
		}
		if ctx.Err() != nil {
			return was, context.Cause(ctx)
		}
		sleep(ctx, pause) // the engine is stopping, or its store is away
	}
}

// bring starts a command, or finds it: refused tells that it was not let run. UNKNOWN_COMMAND
// where it is not there and never will be; after another error nobody knows. When halt is
// closed it is not tried to be started any more.
func (l *live) bring(ctx context.Context, by access.Caller, id string, spec *command.Spec, halt <-chan struct{}) (c command.Command, refused, err error) {
	for pause := retryLeast; ctx.Err() == nil; pause = min(2*pause, retryMost) {
		tried := spec != nil && !closed(halt)
		var why error
		if tried {
			if c, why = l.w.Commands.Start(ctx, by, *spec, id); why == nil {
				return c, nil, nil
			}
			if fault.ReasonOf(why) == fault.ReasonTooManyAwaiting {
				l.post(func() { l.crowded(id) })
			}
		}
		c, err = l.w.Commands.Get(ctx, id) // it may be there all the same
		unknown := fault.ReasonOf(err) == fault.ReasonUnknownCommand
		switch {
		case err == nil:
			return c, nil, nil
		case unknown && !tried, !unknown && !temporary(err):
			return c, nil, err
		case unknown && !temporary(why):
			return c, why, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-halt:
			pause = retryLeast
		case <-ctx.Done():
		}
		t.Stop()
	}
	return c, nil, context.Cause(ctx)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// temporary reports whether an error may be another one in a moment.
func temporary(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Exhausted, fault.Cancelled, fault.DeadlineExceeded, fault.Aborted:
		return true
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// forget gives the run of a command that nobody follows any more; false where there is
// none.
func (l *live) forget(id string) (r task.Ref, undoes, ok bool) {
	f, ok := l.follows[id]
	if !ok {
		return r, false, false
	}
	delete(l.follows, id)
	return f.Ref, f.undoes, true
}

// neverStarted takes that the last run of the service has chosen an id and got no
// further: the run begins anew, unless it was cancelled.
func (l *live) neverStarted(id string) {
	r, undoes, ok := l.forget(id)
	if !ok {
		return
	}
	if l.w.forgotten(id, l.now) {
		l.gone(r, undoes, &command.Failure{Reason: fault.ReasonUnknownCommand, Message: "its command is not known any more: it has run, or never has", Hint: "Look on the host what it has done"})
		return
	}
	run := l.touch(r)
	if undoes {
		run.Undo = task.UndoRun{State: task.UndoPending}
		return
	}
	n := len(run.Earlier)
	if run.Command = ""; n > 0 {
		run.Command, run.Earlier = run.Earlier[n-1], run.Earlier[:n-1]
	}
	switch {
	case l.t.Cancellation != nil && n > 0:
		l.ended(r, task.StepCancelled, run.Exit, run.Failure)
	case n > 0:
		run.RetryTime = l.now // it is tried again at once
	default:
		run.State = task.StepPending
	}
}

// crowded takes that nobody can be asked about a command yet: it waits for people all the
// same, and takes no slot.
func (l *live) crowded(id string) {
	f, ok := l.follows[id]
	if !ok || f.crowd || f.undoes {
		return
	}
	f.crowd = true
	l.touch(f.Ref).State = task.StepAwaiting
}

// lost takes that it cannot be known any more what becomes of a command that was started.
func (l *live) lost(id string, err error) {
	f := fault.From(err)
	if r, undoes, ok := l.forget(id); ok {
		l.gone(r, undoes, &command.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint})
	}
}

// gone ends a run, or the undo of one, of which nobody knows what has become of it.
func (l *live) gone(r task.Ref, undoes bool, why *command.Failure) {
	if undoes {
		l.undone(r, task.UndoFailing, why)
	} else {
		l.ended(r, task.StepLost, nil, why)
	}
}

// refused takes that a command was not let run.
func (l *live) refused(id string, err error) {
	f := fault.From(err)
	why := &command.Failure{Reason: f.Reason, Message: f.Message, Hint: f.Hint}
	if r, undoes, ok := l.forget(id); ok { // and there is no such command
		if undoes {
			l.touch(r).Undo.Command = ""
			l.undone(r, task.UndoFailing, why)
		} else {
			l.touch(r).Command = ""
			l.ended(r, task.StepFailed, nil, why)
		}
	}
}

// heard takes how a command is.
func (l *live) heard(c command.Command) {
	f, ok := l.follows[c.ID]
	if !ok {
		return
	}
	r, undoes := f.Ref, f.undoes
	if l.t.Run(r).Session != c.Spec.SessionID {
		run := l.touch(r)
		run.Host, run.Session = c.Spec.Host, c.Spec.SessionID
	}
	if c.Ended() {
		l.forget(c.ID)
		switch state, why := outcome(&c); {
		case undoes && state == task.StepCompleted:
			l.undone(r, task.UndoDone, nil)
		case undoes && state == task.StepCancelled && c.StartTime.IsZero() && l.t.Undo.Cancellation != nil:
			l.undone(r, task.UndoCancelled, nil)
		case undoes:
			l.undone(r, task.UndoFailing, why)
		default:
			run := l.touch(r)
			if !c.StartTime.IsZero() {
				run.StartTime = c.StartTime
			}
			l.approved(r, &c)
			l.ended(r, state, c.Exit.Code, why)
		}
		return
	}
	if l.mayNotRun(undoes) {
		l.cancelCommand(c.ID)
	}
	if undoes {
		switch waits, was := c.State == command.AwaitingApproval, l.t.Run(r).Undo.State; {
		case waits && was == task.UndoRunning:
			l.touch(r).Undo.State = task.UndoAwaiting
			l.asks(r, &c)
		case !waits && was == task.UndoAwaiting:
			l.touch(r).Undo.State = task.UndoRunning
			l.tell(task.Event{
				Type: task.StatusChange, Step: r.Step, Host: l.t.Run(r).Host, Command: c.ID, UndoState: task.UndoRunning,
				Message: fmt.Sprintf("the undo of step %q may run", l.t.Spec.Steps[r.Step].Name),
			})
		}
		return
	}
	run := l.t.Run(r)
	switch waits := c.State == command.AwaitingApproval; {
	case waits && (run.State != task.StepAwaiting || f.crowd):
		l.touch(r).State, run.Admitted, f.crowd = task.StepAwaiting, false, false
		l.asks(r, &c)
	case !waits && !run.Admitted:
		if run.State == task.StepAwaiting {
			l.tell(task.Event{Type: task.StatusChange, Step: r.Step, Host: run.Host, Command: c.ID, StepState: task.StepRunning, Message: fmt.Sprintf("step %q may run", l.t.Spec.Steps[r.Step].Name)})
		}
		l.touch(r).State, run.Admitted = task.StepRunning, true
		l.approved(r, &c)
	}
	if run.StartTime.IsZero() && !c.StartTime.IsZero() {
		l.touch(r).StartTime = c.StartTime
	}
	if c.Progress != nil {
		run.Percent = c.Progress.Percent
	}
}

// asks tells that people are to decide.
func (l *live) asks(r task.Ref, c *command.Command) {
	e := task.Event{
		Type: task.ApprovalRequest, Step: r.Step, Host: l.t.Run(r).Host, Command: c.ID, StepState: l.t.Run(r).State,
		Message: fmt.Sprintf("step %q waits for approval", l.t.Spec.Steps[r.Step].Name),
	}
	if l.follows[c.ID].undoes {
		e.UndoState, e.Message = task.UndoAwaiting, fmt.Sprintf("the undo of step %q waits for approval", l.t.Spec.Steps[r.Step].Name)
	}
	l.tell(e)
}

// approved takes up what people have made of a step: it is so on its other hosts too.
func (l *live) approved(r task.Ref, c *command.Command) {
	was := specOf(&l.t, r)
	if r.Run != 0 || c.Spec.Line == was.Line && slices.Equal(c.Spec.Argv, was.Argv) && c.Spec.Timeout == was.Timeout {
		return
	}
	now := &l.t.Steps[r.Step]
	now.Line, now.Argv, now.Timeout = c.Spec.Line, c.Spec.Argv, c.Spec.Timeout
	l.ch.Steps = append(l.ch.Steps, r.Step)
}

// tellProgress tells how much of the steps that run is done: of each once a second, and
// where it is another whole number. It gives when more is to be told.
func (l *live) tellProgress() (late time.Time) {
	for i := range l.t.Steps {
		s := &l.t.Steps[i]
		if s.State() != task.StepRunning {
			continue
		}
		was, percent := l.shown[i], s.Percent()
		switch due := was.at.Add(progressLeast); {
		case math.Floor(percent) == math.Floor(was.percent):
		case l.now.Before(due):
			late = earlier(late, due)
		default:
			l.shown[i] = shown{percent, l.now}
			for j := range s.Runs {
				if s.Runs[j].State == task.StepRunning {
					l.touch(task.Ref{Step: i, Run: j})
				}
			}
			l.tell(task.Event{
				Type: task.StepProgress, Step: i, StepState: task.StepRunning, Percent: percent,
				Message: fmt.Sprintf("step %q: %.0f %%", l.t.Spec.Steps[i].Name, percent),
			})
		}
	}
	return late
}

// outcome is what the end of a command means for its run.
func outcome(c *command.Command) (task.StepState, *command.Failure) {
	switch c.State {
	case command.Completed:
		switch {
		case c.Exit.Code == nil:
			return task.StepLost, &command.Failure{Reason: fault.ReasonNoExitCode, Message: "whether it has done what it should is not known: its session has told no exit code",
				Hint: "Look what it has done"}
		case *c.Exit.Code != 0:
			return task.StepFailed, &command.Failure{Reason: fault.ReasonExitStatus, Message: fmt.Sprintf("it has exited with code %d", *c.Exit.Code), Hint: "Its output tells more: telexec logs " + c.ID}
		}
		return task.StepCompleted, nil
	case command.Cancelled:
		return task.StepCancelled, c.Failure
	case command.Lost:
		return task.StepLost, c.Failure
	}
	return task.StepFailed, c.Failure
}

// ended ends a run, or has it tried again.
func (l *live) ended(r task.Ref, state task.StepState, exit *int, why *command.Failure) {
	run, s := l.touch(r), &l.t.Spec.Steps[r.Step]
	run.Exit, run.Failure, run.EndTime = exit, why, l.now
	again := state == task.StepFailed && len(run.Earlier) < s.Retry.Times && l.t.Cancellation == nil && !task.Refused(why.Reason)
	if run.State = state; again {
		run.State, run.RetryTime = task.StepRunning, l.now.Add(backoff(s.Retry, len(run.Earlier)))
	}
	name := s.Name
	e := task.Event{
		Type: task.StepComplete, Step: r.Step, Host: run.Host, Command: run.Command, StepState: state, Exit: exit, Failure: why,
		Message: fmt.Sprintf("step %q %s %s", name, ending(state), l.t.Where(r)),
	}
	if why != nil {
		e.Message += ": " + why.Message
	}
	if again {
		e.Type, e.StepState = task.ErrorEvent, run.State
		e.Message += fmt.Sprintf("; it is tried again in %s", run.RetryTime.Sub(l.now).Round(time.Millisecond))
	}
	l.tell(e)
	if !again {
		l.stepOver(r.Step)
	}
}

// backoff is how long a run waits until it is tried again.
func backoff(r task.Retry, tried int) time.Duration {
	first := r.Backoff
	if first == 0 {
		first = defaultBackoff
	}
	for range min(tried, task.MaxRetries) {
		first = min(2*first, backoffMost)
	}
	return min(first, backoffMost)
}

// undone ends the undo of a run.
func (l *live) undone(r task.Ref, state task.UndoState, why *command.Failure) {
	run := l.touch(r)
	run.Undo.State, run.Undo.Failure, run.Undo.EndTime = state, why, l.now
	e := task.Event{
		Type: task.UndoComplete, Step: r.Step, Host: run.Host, Command: run.Undo.Command, UndoState: state, Failure: why,
		Message: fmt.Sprintf("the undo of step %q %s: %s", l.t.Spec.Steps[r.Step].Name, l.t.Where(r), undoEnding(state)),
	}
	if why != nil {
		e.Message += ": " + why.Message
	}
	l.tell(e)
}

// dropUndo has a run not be undone, because somebody has cancelled that.
func (l *live) dropUndo(r task.Ref) { l.undone(r, task.UndoCancelled, nil) }

// tellNotUndone tells of runs that an undo passes over; of are the steps that it is
// about, nil: all.
func (l *live) tellNotUndone(of func(step int) bool) {
	for _, r := range l.t.Refs() {
		if of != nil && !of(r.Step) {
			continue
		}
		if state := l.t.Run(r).Undo.State; state == task.NotUndoable || state == task.UndoUnknown {
			l.undone(r, state, nil)
		}
	}
}

// undoEnding tells of what undoing a run has come to.
func undoEnding(s task.UndoState) string {
	switch s {
	case task.UndoDone:
		return "done"
	case task.UndoFailing:
		return "failed"
	case task.NotUndoable:
		return "there is none"
	case task.UndoUnknown:
		return "left alone, for how much of the step was done is not known"
	}
	return "cancelled"
}
