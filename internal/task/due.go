package task

import (
	"fmt"
	"time"

	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
)

// What is to be done next follows from how the runs are, and from nothing else: so it
// does not matter whether the service was killed in between.
//
//	steps:  one after the other; within one: the lead decides, canaries first, then so many at once
//	undo:   the last step first; within one: so many at once

// Due is what is to be done now.
type Due struct {
	Start []Ref     // their commands are to be started, or started again
	Skip  []Ref     // they never run
	Undo  []Ref     // their undo commands are to be started
	Drop  []Ref     // they are not undone: somebody has cancelled that
	Again time.Time // look again then; zero: when something has changed
	Over  bool      // nothing of this is left, and nothing runs: see Conclude
}

// Due gives what is to be done. It changes nothing.
func (t *Task) Due(now time.Time) (d Due) {
	if t.Undo != nil && t.Undo.State.Open() {
		t.dueUndo(&d)
		return d
	}
	stopped := t.Cancellation != nil
	for i := range t.Steps {
		s, spec := &t.Steps[i], &t.Spec.Steps[i]
		if stopped {
			d.skipPending(s, i)
		}
		switch state := s.State(); {
		case state.Ended():
			stopped = stopped || t.stops(i)
			continue
		case stopped && len(d.Skip) > 0 && !s.busy():
			continue // all of it is skipped
		case stopped:
			return d // what runs is waited for
		}
		s.due(&d, i, spec, now)
		return d
	}
	d.Over = len(d.Skip) == 0
	return d
}

// stops reports whether nothing runs behind a step that has ended.
func (t *Task) stops(i int) bool {
	return t.Steps[i].State() != StepCompleted && t.Spec.Steps[i].OnFailure != Continue
}

// busy reports whether something of a step runs or waits for people.
func (s *Step) busy() bool {
	for i := range s.Runs {
		if r := &s.Runs[i]; r.State == StepRunning || r.State == StepAwaiting {
			return true
		}
	}
	return false
}

func (d *Due) skipPending(s *Step, step int) {
	for i := range s.Runs {
		if s.Runs[i].State == StepPending {
			d.Skip = append(d.Skip, Ref{step, i})
		}
	}
}

// due adds what is to be done of the step that it is at.
func (s *Step) due(d *Due, step int, spec *StepSpec, now time.Time) {
	running, failed := 0, false
	for i := range s.Runs {
		switch r := &s.Runs[i]; {
		case r.State == StepRunning && !r.RetryTime.IsZero():
			running++
			if r.RetryTime.After(now) {
				if d.Again.IsZero() || r.RetryTime.Before(d.Again) {
					d.Again = r.RetryTime
				}
			} else {
				d.Start = append(d.Start, Ref{step, i})
			}
		case r.State == StepRunning, r.State == StepAwaiting:
			running++
		case r.State.Ended() && r.State != StepCompleted:
			failed = failed || !spec.Rollout.GoOn || i < spec.Rollout.Canary
		}
	}
	if failed || s.refused() {
		d.skipPending(s, step)
		return
	}
	first := s.first(spec)
	for i := 0; i < first && running < max(spec.Rollout.Parallel, 1); i++ {
		if s.Runs[i].State == StepPending {
			d.Start = append(d.Start, Ref{step, i})
			running++
		}
	}
}

// first is how many of the runs may have begun: the lead alone until it is let run, for
// people may have to decide, then the canaries until all of these have completed.
func (s *Step) first(spec *StepSpec) int {
	if lead := &s.Runs[0]; !lead.Admitted && !lead.State.Ended() {
		return 1
	}
	canaries := min(spec.Rollout.Canary, len(s.Runs))
	for i := range canaries {
		if s.Runs[i].State != StepCompleted {
			return canaries
		}
	}
	return len(s.Runs)
}

// refused reports whether people or rules have said no to the step on its first host,
// whose answer is for all of them.
func (s *Step) refused() bool {
	f := s.Runs[0].Failure
	return f != nil && Refused(f.Reason)
}

// Refused reports whether a reason says that something was not let run, so that to try
// it again is no use.
func Refused(reason string) bool {
	switch reason {
	case fault.ReasonRejected, fault.ReasonApprovalExpired, fault.ReasonPolicyDenied, fault.ReasonApprovalVoid, fault.ReasonRoleMissing:
		return true
	}
	return false
}

// dueUndo adds what is to be undone.
func (t *Task) dueUndo(d *Due) {
	for i := len(t.Steps) - 1; i >= 0; i-- {
		s := &t.Steps[i]
		running, pending := 0, []Ref(nil)
		for j := range s.Runs {
			switch s.Runs[j].Undo.State {
			case UndoRunning, UndoAwaiting:
				running++
			case UndoPending:
				pending = append(pending, Ref{i, j})
			}
		}
		if t.Undo.Cancellation != nil {
			d.Drop = append(d.Drop, pending...)
			if running > 0 {
				return
			}
			continue
		}
		if running+len(pending) > 0 {
			n := min(len(pending), max(t.Spec.Steps[i].Rollout.Parallel-running, 0))
			d.Undo = pending[:n]
			return
		}
	}
	d.Over = len(d.Drop) == 0
}

// Conclude makes t what it has come to, when Due says that it is over; with a step that
// says so, that it is to be undone. It reports whether that is an end.
func (t *Task) Conclude(now time.Time) bool {
	if t.Undo != nil && t.Undo.State.Open() {
		t.concludeUndo(now)
		return true
	}
	t.State = Completed
	for i := range t.Steps {
		if t.Cancellation != nil {
			t.State = Cancelled
			break
		}
		if !t.stops(i) || t.Steps[i].State() == StepSkipped {
			continue
		}
		t.State, t.Failure = Failed, t.why(i)
		if t.Spec.Steps[i].OnFailure == TakeBack {
			t.Undo = &Undo{By: t.CreatedBy, Roles: t.Roles, Time: now, Reason: t.Failure.Message, Automatic: true}
			if t.BeginUndo(nil, false) {
				return false
			}
			t.Undo.State = NotUndoable
		}
		break
	}
	t.EndTime = now
	return true
}

// why is why a step has made its task fail.
func (t *Task) why(step int) *command.Failure {
	s, name := &t.Steps[step], t.Spec.Steps[step].Name
	for i := range s.Runs {
		r := &s.Runs[i]
		if r.State == StepCompleted || r.State == StepSkipped {
			continue
		}
		f := command.Failure{Reason: fault.ReasonStepFailed, Message: fmt.Sprintf("step %q has not completed %s", name, t.Where(Ref{step, i}))}
		if r.Failure != nil {
			f.Message += ": " + r.Failure.Message
			f.Hint = r.Failure.Hint
		}
		return &f
	}
	return &command.Failure{Reason: fault.ReasonStepFailed, Message: fmt.Sprintf("step %q has not completed", name)}
}

// BeginUndo marks what is to be undone: of the steps that of is true for (nil: all), what
// has completed and can be undone, and with unknown also what may have run. It reports
// whether there is something. Undo is set.
func (t *Task) BeginUndo(of func(step int) bool, unknown bool) (any bool) {
	for i := range t.Steps {
		if of != nil && !of(i) {
			continue
		}
		for j := range t.Steps[i].Runs {
			r := &t.Steps[i].Runs[j]
			if r.Undo.State = t.undoOf(i, r, unknown); r.Undo.State == UndoPending {
				any = true
			}
		}
	}
	if any {
		if t.Outcome == "" {
			t.Outcome = t.State
		}
		t.State, t.EndTime, t.Undo.State = Undoing, time.Time{}, UndoRunning
	}
	return any
}

// undoOf is what begins with the undo of a run.
func (t *Task) undoOf(step int, r *Run, unknown bool) UndoState {
	switch ran := !r.StartTime.IsZero() || r.State == StepCompleted || r.State == StepLost; {
	case r.Undo.State == UndoDone:
		return UndoDone
	case !ran:
		return r.Undo.State
	case t.Spec.Steps[step].Undo == "":
		return NotUndoable
	case r.State != StepCompleted && r.Undo.State == UndoFailing && !unknown:
		return UndoFailing
	case r.State == StepCompleted, unknown:
		return UndoPending
	}
	return UndoUnknown
}

// concludeUndo makes t what undoing has come to.
func (t *Task) concludeUndo(now time.Time) {
	failed, left, failedNow, dropped := false, false, false, false
	for i := range t.Steps {
		for j := range t.Steps[i].Runs {
			r := &t.Steps[i].Runs[j]
			its := !r.Undo.EndTime.Before(t.Undo.Time) // and not an earlier undo's
			switch r.Undo.State {
			case UndoFailing:
				failed, failedNow = true, failedNow || its
			case UndoCancelled:
				left, dropped = true, dropped || its
			default:
				left = left || r.State == StepCompleted && t.Spec.Steps[i].Undo != "" && r.Undo.State != UndoDone
			}
		}
	}
	t.EndTime = now
	switch {
	case failed:
		t.State = UndoFailed
	case left:
		t.State = t.Outcome
	default:
		t.State = Undone
	}
	switch {
	case failedNow:
		t.Undo.State = UndoFailing
	case dropped:
		t.Undo.State = UndoCancelled
	default:
		t.Undo.State = UndoDone
	}
}

// Progress gives the state of a task that has begun and not ended: of its runs.
func (t *Task) Progress() State {
	waits := false
	for i := range t.Steps {
		for j := range t.Steps[i].Runs {
			switch t.Steps[i].Runs[j].State {
			case StepRunning:
				return Running
			case StepAwaiting:
				waits = true
			}
		}
	}
	if waits {
		return AwaitingApproval
	}
	return Running
}
