package mcptool

import (
	"cmp"
	"math"
	"slices"
	"strings"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
)

// How much is told of a plan. A task has up to 100 steps and 1000 runs, each with command
// lines of 120,000 bytes: all of it would be no message that a client takes, nor one that
// a model can read.
const (
	// maxLineOf is how much of a command line is told among many, see maxCommand.
	maxLineOf = 200
	// maxRunsOf is how many runs of a step are told where all steps are, maxRuns how many
	// of the task.
	maxRunsOf = 20
	maxRuns   = 200
	// maxSaidOf is how much of the message of one run is told.
	maxSaidOf = 200
	// maxGates is how many of the approvals are told that it waits for.
	maxGates = 20
	// maxContext is how much of a value of the context is told.
	maxContext = 200
)

// planFacts is what is told of a task everywhere.
type planFacts struct {
	TaskID         string            `json:"task_id" jsonschema:"the handle for all other tools; valid everywhere, also after restarts"`
	Version        int64             `json:"version" jsonschema:"grows with every change"`
	State          string            `json:"state" jsonschema:"queued, running, awaiting_approval (only a person can go on), undoing; or an end: completed (no step has stopped it), failed (one has, and nothing behind it ran), cancelled, undone, undo_failed"`
	Ended          bool              `json:"ended" jsonschema:"false: the task goes on, also when nobody waits for it"`
	Task           string            `json:"task" jsonschema:"what it is about: its first 1000 bytes"`
	Percent        float64           `json:"percent" jsonschema:"how much of all steps is done, 0 to 100; while it is undoing, how much of what is to be undone"`
	CurrentStep    string            `json:"current_step,omitempty" jsonschema:"name of the step that it is at, or that is being undone; the last one at the end"`
	Steps          []stepFacts       `json:"steps" jsonschema:"in their order"`
	Approvals      []gateFacts       `json:"approvals,omitempty" jsonschema:"what it waits for that people must decide; you cannot"`
	MoreApprovals  int               `json:"more_approvals,omitempty" jsonschema:"so many more that it waits for"`
	Failure        *failureFacts     `json:"failure,omitempty" jsonschema:"why it is failed"`
	Queue          *queueFacts       `json:"queue,omitempty" jsonschema:"where it stands while it is queued"`
	Cancelling     bool              `json:"cancelling,omitempty" jsonschema:"a cancel is under way"`
	CancelReason   string            `json:"cancel_reason,omitempty" jsonschema:"what was said by whoever cancelled it"`
	Undo           *undoFacts        `json:"undo,omitempty" jsonschema:"set when it is, or was, to be undone"`
	Outcome        string            `json:"outcome,omitempty" jsonschema:"what it had come to before it was undone"`
	Priority       int32             `json:"priority,omitempty"`
	ConversationID string            `json:"conversation_id,omitempty"`
	Context        map[string]string `json:"context,omitempty" jsonschema:"what was said to be known about it; long values are cut"`
	Labels         map[string]string `json:"labels,omitempty"`
	CreatedBy      string            `json:"created_by,omitempty" jsonschema:"who submitted it, and through which door"`
	CreateTime     string            `json:"create_time" jsonschema:"RFC 3339"`
	StartTime      string            `json:"start_time,omitempty" jsonschema:"when its first step began"`
	EndTime        string            `json:"end_time,omitempty" jsonschema:"when it was over"`
	RequestID      string            `json:"request_id,omitempty"`
}

// stepFacts is a step of a task.
type stepFacts struct {
	Name          string         `json:"name"`
	State         string         `json:"state" jsonschema:"pending, awaiting_approval, running (also: waits for its host, or to be tried again); or an end: completed (exit code 0 everywhere), failed, cancelled, lost (what became of it is not known), skipped (it never ran)"`
	Command       string         `json:"command" jsonschema:"its beginning, as submitted or as an approver has modified it; whole up to 1000 bytes where step was given"`
	Session       string         `json:"session,omitempty" jsonschema:"session that it runs in"`
	Undo          string         `json:"undo,omitempty" jsonschema:"what takes it back, as command; absent: it cannot be undone"`
	NeedsApproval bool           `json:"needs_approval,omitempty"`
	OnFailure     string         `json:"on_failure,omitempty" jsonschema:"absent: stop"`
	Percent       float64        `json:"percent" jsonschema:"0 to 100"`
	UndoState     string         `json:"undo_state,omitempty" jsonschema:"pending, awaiting_approval, running, undone, undo_failed, not_undoable (it has no undo), unknown (what became of it is not known: a person must say whether it is to be undone), cancelled"`
	Hosts         map[string]int `json:"hosts" jsonschema:"on how many hosts it is in which state"`
	Runs          []runOfStep    `json:"runs,omitempty" jsonschema:"its run on each host; where there are many, first those that have failed or go on"`
	MoreRuns      int            `json:"more_runs,omitempty" jsonschema:"so many are left out of runs; ask get_task_status with step to see them"`
	StartTime     string         `json:"start_time,omitempty"`
	EndTime       string         `json:"end_time,omitempty"`
}

// runOfStep is a step on one host.
type runOfStep struct {
	Host          string        `json:"host,omitempty"`
	State         string        `json:"state"`
	CommandID     string        `json:"command_id,omitempty" jsonschema:"its command, the last one where it was tried again: get_command_output shows what it has printed"`
	Earlier       []string      `json:"earlier_command_ids,omitempty" jsonschema:"those of earlier tries"`
	ExitCode      *int32        `json:"exit_code,omitempty"`
	Failure       *failureFacts `json:"failure,omitempty" jsonschema:"why it has failed, was lost, or was skipped"`
	Percent       float64       `json:"percent,omitempty" jsonschema:"while it runs"`
	RetryTime     string        `json:"retry_time,omitempty" jsonschema:"when it is tried again"`
	UndoState     string        `json:"undo_state,omitempty"`
	UndoCommandID string        `json:"undo_command_id,omitempty" jsonschema:"the command that takes it back"`
	UndoFailure   *failureFacts `json:"undo_failure,omitempty" jsonschema:"why it could not be undone"`
}

// gateFacts is an approval that a task waits for.
type gateFacts struct {
	ApprovalID string `json:"approval_id" jsonschema:"the command_id of what would run"`
	Step       string `json:"step"`
	Host       string `json:"host,omitempty" jsonschema:"the first host of the step: a decision is for all of them"`
	Session    string `json:"session,omitempty" jsonschema:"session that it runs in"`
	Undoes     bool   `json:"undoes,omitempty" jsonschema:"it is about the command that takes the step back"`
	Command    string `json:"command" jsonschema:"what would run"`
	approvalFacts
}

// undoFacts tells of an undo that was asked for.
type undoFacts struct {
	State      string `json:"state" jsonschema:"running, undone, undo_failed, not_undoable (there was nothing), cancelled"`
	By         string `json:"by,omitempty" jsonschema:"who asked, and through which door"`
	Reason     string `json:"reason,omitempty"`
	Automatic  bool   `json:"automatic,omitempty" jsonschema:"a step that failed says on_failure undo"`
	Cancelling bool   `json:"cancelling,omitempty" jsonschema:"a cancel of the undo is under way"`
}

// planOf gives what is told of a task; with the name of a step, only that step, and all of
// it.
func planOf(t *telexecv1.Task, approvals []*telexecv1.Approval, only string) planFacts {
	f := planFacts{
		TaskID: t.GetId(), Version: t.GetVersion(), State: taskStateName(t.GetState()), Ended: taskEnded(t), Task: shortened(t.GetTask()),
		Percent: rounded(t.GetPercent()), Steps: []stepFacts{}, Priority: t.GetPriority(), ConversationID: t.GetConversationId(), Labels: t.GetLabels(),
		CreatedBy: actorName(t.GetCreatedBy()), RequestID: t.GetRequestId(),
		CreateTime: clock(t.GetCreateTime()), StartTime: clock(t.GetStartTime()), EndTime: clock(t.GetEndTime()),
		Failure: failureOfPlan(t), Queue: queueOf(t.GetQueue()), CancelReason: brief(t.GetCancellation().GetReason()),
	}
	f.Cancelling = !f.Ended && t.GetCancellation() != nil
	if t.GetOutcome() != telexecv1.TaskState_TASK_STATE_UNSPECIFIED {
		f.Outcome = taskStateName(t.GetOutcome())
	}
	if u := t.GetUndo(); u != nil {
		f.Undo = &undoFacts{
			State: undoStateName(u.GetState()), By: actorName(u.GetBy()), Reason: brief(u.GetReason()), Automatic: u.GetAutomatic(),
			Cancelling: !f.Ended && u.GetCancellation() != nil,
		}
	}
	for key, value := range t.GetContext() {
		if f.Context == nil {
			f.Context = make(map[string]string)
		}
		f.Context[key] = cut(value, maxContext)
	}
	if at := int(t.GetCurrentStep()); at >= 0 && at < len(t.GetSteps()) {
		f.CurrentStep = t.GetSteps()[at].GetName()
	}
	most := runsOfEach(t)
	for _, s := range t.GetSteps() {
		switch only {
		case "":
			f.Steps = append(f.Steps, stepOf(s, maxLineOf, most))
		case s.GetName():
			f.Steps = append(f.Steps, stepOf(s, maxCommand, math.MaxInt))
		}
	}
	for _, one := range approvals[:min(len(approvals), maxGates)] {
		f.Approvals = append(f.Approvals, gateOf(one))
	}
	f.MoreApprovals = len(approvals) - len(f.Approvals)
	return f
}

// runsOfEach is how many runs of each step are told.
func runsOfEach(t *telexecv1.Task) int {
	runs := 0
	for _, s := range t.GetSteps() {
		runs += min(len(s.GetRuns()), maxRunsOf)
	}
	if runs <= maxRuns {
		return maxRunsOf
	}
	return max(maxRuns/len(t.GetSteps()), 1)
}

func stepOf(s *telexecv1.Step, line, most int) stepFacts {
	f := stepFacts{
		Name: s.GetName(), State: stepStateName(s.GetState()), Command: begin(s.GetCommand(), line), Session: s.GetSession(), Undo: begin(s.GetUndo(), line),
		NeedsApproval: s.GetNeedsApproval(), Percent: rounded(s.GetPercent()), UndoState: undoStateName(s.GetUndoState()), Hosts: map[string]int{},
		StartTime: clock(s.GetStartTime()), EndTime: clock(s.GetEndTime()),
	}
	if s.GetOnFailure() != string(failureStops) {
		f.OnFailure = s.GetOnFailure()
	}
	for _, r := range s.GetRuns() {
		f.Hosts[stepStateName(r.GetState())]++
		f.Runs = append(f.Runs, runOf(r))
	}
	if len(f.Runs) > most {
		slices.SortStableFunc(f.Runs, func(a, b runOfStep) int { return cmp.Compare(a.rank(), b.rank()) })
		f.MoreRuns = len(f.Runs) - most
		f.Runs = f.Runs[:most]
	}
	return f
}

// rank is the place of a run among those of which not all are told, or not one by one:
// what has gone wrong comes first, then what goes on.
func (r *runOfStep) rank() int {
	switch {
	case r.UndoState == "undo_failed" || r.UndoState == "unknown":
		return 0
	case r.State == "failed" || r.State == "lost":
		return 1
	case r.State == "awaiting_approval" || r.UndoState == "awaiting_approval":
		return 2
	case r.State == "running" || r.UndoState == "running":
		return 3
	case r.State == "cancelled":
		return 4
	case r.State == "completed":
		return 5
	}
	return 6
}

func runOf(r *telexecv1.StepRun) runOfStep {
	f := runOfStep{
		Host: r.GetHost(), State: stepStateName(r.GetState()), CommandID: r.GetCommandId(), Earlier: r.GetEarlierCommandIds(), ExitCode: r.ExitCode,
		Failure: failureOfRun(r.GetFailure()), RetryTime: clock(r.GetRetryTime()),
		UndoState: undoStateName(r.GetUndoState()), UndoCommandID: r.GetUndoCommandId(), UndoFailure: failureOfRun(r.GetUndoFailure()),
	}
	if r.GetState() == telexecv1.StepState_STEP_STATE_RUNNING {
		f.Percent = rounded(r.GetPercent())
	}
	return f
}

// failureOfPlan is why a task has failed. What to do about it is what it would be about
// the run that has failed: of one that has exited, to look at its output, see nextOfPlan.
func failureOfPlan(t *telexecv1.Task) *failureFacts {
	told := failureOf(t.GetFailure())
	if told == nil {
		return nil
	}
	for _, s := range t.GetSteps() {
		for _, r := range s.GetRuns() {
			if f := r.GetFailure(); f != nil && strings.HasSuffix(t.GetFailure().GetMessage(), f.GetMessage()) {
				told.Hint = failureOfRun(f).Hint
				return told
			}
		}
	}
	return told
}

// failureOfRun is failureOf, short enough to be told of a thousand.
func failureOfRun(f *telexecv1.Failure) *failureFacts {
	told := failureOf(f)
	if told != nil {
		if told.Reason == reasonExitStatus {
			told.Hint = "" // it is for people
		}
		told.Message, told.Hint = cut(told.Message, maxSaidOf), cut(told.Hint, maxSaidOf)
	}
	return told
}

func gateOf(a *telexecv1.Approval) gateFacts {
	id := a.GetId()
	return gateFacts{
		ApprovalID: id, Step: a.GetStep(), Host: a.GetCommand().GetHost(), Session: a.GetCommand().GetSession(), Undoes: a.GetUndoes(), Command: shortened(a.GetCommand().GetCommand()),
		approvalFacts: approvalFacts{
			Rule: a.GetRule(), Required: a.GetRequiredApprovals(), Approvals: a.GetApprovals(), Roles: append([]string{}, a.GetRoles()...),
			ExpireTime: clock(a.GetExpireTime()), How: howToDecide(id),
		},
	}
}

// undoOfStep is what an undo does, or would, on hosts where it is the same.
type undoOfStep struct {
	Step    string   `json:"step"`
	State   string   `json:"state" jsonschema:"pending: it is undone there; else why it is not: not_undoable (it has no undo), unknown (what became of the step is not known), undo_failed (the same, and its undo has failed before), undone (before)"`
	Command string   `json:"command,omitempty" jsonschema:"the undo command: its first 1000 bytes"`
	Session string   `json:"session,omitempty" jsonschema:"session that it runs in"`
	Hosts   []string `json:"hosts" jsonschema:"of a step in a session perhaps none: the session knows"`
}

// undosOf groups what an undo of a task does, in its order.
func undosOf(t *telexecv1.Task, list []*telexecv1.UndoStep) []undoOfStep {
	steps := map[string]*telexecv1.Step{}
	for _, s := range t.GetSteps() {
		steps[s.GetName()] = s
	}
	all := []undoOfStep{}
	for _, u := range list {
		s := steps[u.GetStep()]
		one := undoOfStep{
			Step: u.GetStep(), State: undoStateName(u.GetState()), Command: shortened(cmp.Or(u.GetCommand(), s.GetUndo())), Session: s.GetSession(), Hosts: []string{},
		}
		if last := len(all) - 1; last < 0 || all[last].Step != one.Step || all[last].State != one.State || all[last].Command != one.Command {
			all = append(all, one)
		}
		if u.GetHost() != "" {
			last := &all[len(all)-1]
			last.Hosts = append(last.Hosts, u.GetHost())
		}
	}
	return all
}

// undoing gives what the service has told when the undo of a task began, of the task as it
// is now. It does not say which undo has taken back what, so that what one before has done
// is among it.
func undoing(t *telexecv1.Task) (list []*telexecv1.UndoStep) {
	for _, s := range slices.Backward(t.GetSteps()) {
		for _, r := range s.GetRuns() {
			one := &telexecv1.UndoStep{Step: s.GetName(), Host: r.GetHost(), Command: s.GetUndo(), State: telexecv1.UndoState_UNDO_STATE_PENDING}
			switch state := r.GetUndoState(); state {
			case telexecv1.UndoState_UNDO_STATE_UNSPECIFIED:
				continue
			case telexecv1.UndoState_UNDO_STATE_NOT_UNDOABLE, telexecv1.UndoState_UNDO_STATE_UNKNOWN:
				one.State = state
			}
			list = append(list, one)
		}
	}
	return list
}

// planRow is a task in a list.
type planRow struct {
	TaskID      string  `json:"task_id"`
	State       string  `json:"state"`
	Ended       bool    `json:"ended"`
	Task        string  `json:"task" jsonschema:"what it is about: its first 120 bytes"`
	Steps       int     `json:"steps" jsonschema:"how many it has"`
	CurrentStep string  `json:"current_step,omitempty" jsonschema:"name of the step that it is at, or that is being undone"`
	Percent     float64 `json:"percent"`
	Reason      string  `json:"reason,omitempty" jsonschema:"why it failed, if it did"`
	CreateTime  string  `json:"create_time"`
	CreatedBy   string  `json:"created_by,omitempty"`
}

func planRowOf(t *telexecv1.Task) planRow {
	row := planRow{
		TaskID: t.GetId(), State: taskStateName(t.GetState()), Ended: taskEnded(t), Task: cut(oneLine(t.GetTask()), maxRow), Steps: len(t.GetSteps()),
		Percent: rounded(t.GetPercent()), Reason: cut(oneLine(t.GetFailure().GetMessage()), maxRow), CreateTime: clock(t.GetCreateTime()), CreatedBy: actorName(t.GetCreatedBy()),
	}
	if at := int(t.GetCurrentStep()); !row.Ended && at >= 0 && at < len(t.GetSteps()) {
		row.CurrentStep = t.GetSteps()[at].GetName()
	}
	return row
}

// taskEnded reports whether the state of a task is an end.
func taskEnded(t *telexecv1.Task) bool { return isEnd(t.GetState()) }

func isEnd(s telexecv1.TaskState) bool { return s >= telexecv1.TaskState_TASK_STATE_COMPLETED }

func taskStateName(s telexecv1.TaskState) string { return enumName(s.String(), "TASK_STATE_") }

func stepStateName(s telexecv1.StepState) string { return enumName(s.String(), "STEP_STATE_") }

// undoStateName is empty where nobody has asked for an undo.
func undoStateName(s telexecv1.UndoState) string {
	if s == telexecv1.UndoState_UNDO_STATE_UNSPECIFIED {
		return ""
	}
	return enumName(s.String(), "UNDO_STATE_")
}

// rounded is a percentage as people read it.
func rounded(percent float64) float64 { return math.Round(percent*10) / 10 }

// begin is a command line, or so much of it.
func begin(line string, most int) string {
	if most == maxCommand {
		return shortened(line)
	}
	return cut(line, most)
}
