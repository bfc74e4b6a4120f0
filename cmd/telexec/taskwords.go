package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// Tasks, steps and what has come of them, in the words and colours in which people are told.

// stepHosts names where a step runs: "web1 web2", or its session.
func stepHosts(s *telexecv1.Step) string {
	if s.GetSession() != "" {
		return s.GetSession()
	}
	var names []string
	for _, r := range s.GetRuns() {
		names = append(names, r.GetHost())
	}
	return strings.Join(names, " ")
}

// inSession is "in session deploy"; empty of a step in none.
func inSession(s *telexecv1.Step) string {
	if s.GetSession() == "" {
		return ""
	}
	return "in session " + s.GetSession()
}

// stepHow says what is special about a step: "needs approval, 5 min at most".
func stepHow(s *telexecv1.Step) string {
	var parts []string
	if s.GetNeedsApproval() {
		parts = append(parts, "needs approval")
	}
	if s.GetSudoUser() != "" {
		parts = append(parts, "as "+s.GetSudoUser())
	}
	if s.GetWorkingDirectory() != "" {
		parts = append(parts, "in "+shellWord(s.GetWorkingDirectory()))
	}
	if s.GetTimeout() != nil {
		parts = append(parts, duration(s.GetTimeout())+" at most")
	}
	switch n := s.GetRetry().GetTimes(); {
	case n == 1:
		parts = append(parts, "tried again once")
	case n > 1:
		parts = append(parts, fmt.Sprintf("tried again %d times", n))
	}
	if len(s.GetRuns()) > 1 {
		if n := s.GetRollout().GetCanary(); n > 0 {
			parts = append(parts, fmt.Sprintf("%d first", n))
		}
		parts = append(parts, fmt.Sprintf("%d at once", s.GetRollout().GetParallel()))
		if s.GetRollout().GetGoOn() {
			parts = append(parts, "goes on where one fails")
		}
	}
	if f := s.GetOnFailure(); f != "" && f != "stop" {
		parts = append(parts, f+" where it fails")
	}
	return firstOf(strings.Join(parts, ", "), "-")
}

func taskStateName(s telexecv1.TaskState) string { return enum(s.String(), "TASK_STATE_") }

// taskEnded reports whether a state is an end: COMPLETED and those behind it.
func taskEnded(s telexecv1.TaskState) bool { return s >= telexecv1.TaskState_TASK_STATE_COMPLETED }

// taskCell is the state of a task, with a colour that says how it went.
func taskCell(t *telexecv1.Task) cell {
	c := cell{text: taskStateName(t.GetState())}
	switch t.GetState() {
	case telexecv1.TaskState_TASK_STATE_RUNNING:
		c.colour = green
		if t.GetCancellation() != nil {
			c.text, c.colour = "cancelling", yellow
		}
	case telexecv1.TaskState_TASK_STATE_QUEUED, telexecv1.TaskState_TASK_STATE_AWAITING_APPROVAL, telexecv1.TaskState_TASK_STATE_UNDOING:
		c.colour = yellow
	case telexecv1.TaskState_TASK_STATE_CANCELLED, telexecv1.TaskState_TASK_STATE_UNDONE:
		c.colour = grey
	case telexecv1.TaskState_TASK_STATE_FAILED, telexecv1.TaskState_TASK_STATE_UNDO_FAILED:
		c.colour = red
	}
	return c
}

// taskStateText is the state with what belongs to it: "running, 2 of 5 steps done, 47 %".
func taskStateText(t *telexecv1.Task) string {
	s := taskCell(t).text
	if was := t.GetOutcome(); was != telexecv1.TaskState_TASK_STATE_UNSPECIFIED && was != t.GetState() {
		s += ", was " + taskStateName(was)
	}
	if text := queueText(t.GetQueue()); text != "" {
		return s + ", " + text
	}
	s += fmt.Sprintf(", %d of %d steps done", stepsDone(t), len(t.GetSteps()))
	switch {
	case t.GetState() == telexecv1.TaskState_TASK_STATE_UNDOING:
		s += fmt.Sprintf(", %.0f %% of the undo", t.GetPercent())
	case !taskEnded(t.GetState()):
		s += fmt.Sprintf(", %.0f %%", t.GetPercent())
	}
	return s
}

// stepsDone is how many steps have completed.
func stepsDone(t *telexecv1.Task) (n int) {
	for _, s := range t.GetSteps() {
		if s.GetState() == telexecv1.StepState_STEP_STATE_COMPLETED {
			n++
		}
	}
	return n
}

// taskTook is how long a task has taken so far; empty before its start.
func (p *printer) taskTook(t *telexecv1.Task) string {
	if t.GetStartTime() == nil {
		return ""
	}
	return p.took(t.GetStartTime(), t.GetEndTime())
}

// took is how long something has taken, or takes as yet.
func (p *printer) took(from, to *timestamppb.Timestamp) string {
	if from == nil {
		return "-"
	}
	end := p.now()
	if to != nil {
		end = to.AsTime()
	}
	return humanDuration(max(end.Sub(from.AsTime()), 0))
}

// runCell is the state of a step on one host.
func runCell(r *telexecv1.StepRun) cell {
	c := stepCell(r.GetState())
	if r.GetRetryTime() != nil && r.GetState() == telexecv1.StepState_STEP_STATE_RUNNING {
		c.text, c.colour = "to be tried again", yellow
	}
	return c
}

// stepCell is a state of a step, with a colour that says how it went.
func stepCell(s telexecv1.StepState) cell {
	c := cell{text: enum(s.String(), "STEP_STATE_")}
	switch s {
	case telexecv1.StepState_STEP_STATE_RUNNING, telexecv1.StepState_STEP_STATE_COMPLETED:
		c.colour = green
	case telexecv1.StepState_STEP_STATE_AWAITING_APPROVAL:
		c.colour = yellow
	case telexecv1.StepState_STEP_STATE_FAILED, telexecv1.StepState_STEP_STATE_LOST:
		c.colour = red
	default:
		c.colour = grey
	}
	return c
}

// undoCell is what undoing has come to.
func undoCell(s telexecv1.UndoState) cell {
	if s == telexecv1.UndoState_UNDO_STATE_UNSPECIFIED {
		return plainCell("-")
	}
	c := cell{text: enum(s.String(), "UNDO_STATE_")}
	switch s {
	case telexecv1.UndoState_UNDO_STATE_UNDONE:
		c.colour = green
	case telexecv1.UndoState_UNDO_STATE_UNDO_FAILED:
		c.colour = red
	default:
		c.colour = yellow
	}
	return c
}

// outcomeOf gives how the end of a task is judged by who begins to follow it as it is now:
// where somebody has it undone, by what has come of that, for one that is undone in part
// goes back to what it had come to before.
func outcomeOf(t *telexecv1.Task) func(*telexecv1.Task) *exitError {
	if t.GetState() == telexecv1.TaskState_TASK_STATE_UNDOING && !t.GetUndo().GetAutomatic() {
		return undoOutcome
	}
	return taskOutcome
}

// undoOutcome is taskOutcome of the undo.
func undoOutcome(t *telexecv1.Task) *exitError {
	e := &exitError{code: exitNo, hint: "telexec task get " + t.GetId() + " shows what is left"}
	switch t.GetUndo().GetState() {
	case telexecv1.UndoState_UNDO_STATE_UNDONE:
		return nil
	case telexecv1.UndoState_UNDO_STATE_CANCELLED:
		e.message = "the undo of task " + t.GetId() + wasCancelled(t.GetUndo().GetCancellation())
	default:
		e.message = "task " + t.GetId() + " could not be undone as a whole"
	}
	return e
}

// wasCancelled is " was cancelled by ann: wrong branch".
func wasCancelled(n *telexecv1.Cancellation) string {
	s := " was cancelled"
	if by := n.GetBy().GetPrincipal(); by != "" {
		s += " by " + by
	}
	return because(s, n.GetReason())
}

// taskOutcome gives the error with which a task that has ended is told; nil where it has
// come to what was wanted.
func taskOutcome(t *telexecv1.Task) *exitError {
	what := "task " + t.GetId()
	e := &exitError{code: exitNo}
	why := func() {
		if f := t.GetFailure(); f != nil {
			e.message += ": " + failureText(f)
			e.hint = f.GetHint()
		}
	}
	switch t.GetState() {
	case telexecv1.TaskState_TASK_STATE_COMPLETED:
		return nil
	case telexecv1.TaskState_TASK_STATE_UNDONE:
		if !t.GetUndo().GetAutomatic() {
			return nil
		}
		e.message = what + " has failed, and what was done is undone"
		why()
	case telexecv1.TaskState_TASK_STATE_CANCELLED:
		e.message = what + wasCancelled(t.GetCancellation())
	case telexecv1.TaskState_TASK_STATE_UNDO_FAILED:
		return undoOutcome(t)
	default:
		e.message = what + " has failed"
		why()
		e.hint = firstOf(e.hint, "telexec task get "+t.GetId()+" shows its steps")
	}
	return e
}
