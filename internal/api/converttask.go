package api

import (
	"strconv"
	"strings"
	"time"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/task"
)

// Tasks on the wire, as convert.go has commands.

func taskStateToProto(s task.State) telexecv1.TaskState {
	return telexecv1.TaskState(telexecv1.TaskState_value["TASK_STATE_"+string(s)])
}

func taskStateFromProto(s telexecv1.TaskState) task.State {
	return task.State(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

func stepStateToProto(s task.StepState) telexecv1.StepState {
	return telexecv1.StepState(telexecv1.StepState_value["STEP_STATE_"+string(s)])
}

func undoStateToProto(s task.UndoState) telexecv1.UndoState {
	return telexecv1.UndoState(telexecv1.UndoState_value["UNDO_STATE_"+string(s)])
}

// taskPlanFromProto gives a plan as it was submitted.
func taskPlanFromProto(r *telexecv1.SubmitTaskRequest) TaskPlan {
	p := TaskPlan{Spec: task.Spec{
		RequestID: r.GetRequestId(), Text: r.GetTask(), Priority: int(r.GetPriority()), ConversationID: r.GetConversationId(),
		Context: r.GetContext(), Labels: r.GetLabels(),
	}}
	for _, s := range r.GetSteps() {
		p.Spec.Steps = append(p.Spec.Steps, task.StepSpec{
			Name: s.GetName(), Line: s.GetCommand(), Argv: s.GetArgv(), WorkingDirectory: s.GetWorkingDirectory(), SudoUser: s.GetSudoUser(), ActionType: s.GetActionType(),
			Undo: s.GetUndo(), NeedsApproval: s.GetNeedsApproval(), OnFailure: task.OnFailure(s.GetOnFailure()), Timeout: s.GetTimeout().AsDuration(),
			Retry:   task.Retry{Times: int(s.GetRetry().GetTimes()), Backoff: s.GetRetry().GetBackoff().AsDuration()},
			Rollout: task.Rollout{Parallel: int(s.GetRollout().GetParallel()), Canary: int(s.GetRollout().GetCanary()), GoOn: s.GetRollout().GetGoOn()},
		})
		at := TaskPlace{Hosts: s.GetHosts(), Labels: s.GetHostLabels(), Session: s.GetSession()}
		if s.GetHost() != "" {
			at.Hosts, at.Single = []string{s.GetHost()}, true
		}
		p.Places = append(p.Places, at)
	}
	return p
}

func taskFilterFromProto(r *telexecv1.ListTasksRequest) task.Filter {
	f := task.Filter{
		Principal: r.GetPrincipal(), ConversationID: r.GetConversationId(), Labels: r.GetLabels(),
		From: timeFromProto(r.GetDateFrom()), To: timeFromProto(r.GetDateTo()), Offset: int(r.GetOffset()),
	}
	for _, s := range r.GetStates() {
		f.States = append(f.States, taskStateFromProto(s))
	}
	for word := range strings.SplitSeq(r.GetStatus(), ",") {
		if word != "" {
			f.States = append(f.States, task.State(strings.ToUpper(word)))
		}
	}
	return f
}

// stepName names the task and the step that a command is of.
func stepName(t *command.TaskRef) string {
	if t == nil {
		return ""
	}
	return taskName(t.ID) + "/steps/" + t.Name
}

func taskName(id string) string {
	if id == "" {
		return ""
	}
	return "tasks/" + id
}

func taskToProto(v TaskView) *telexecv1.Task {
	p := &telexecv1.Task{
		Name:           taskName(v.ID),
		Id:             v.ID,
		Version:        v.Version,
		State:          taskStateToProto(v.State),
		Task:           text(v.Spec.Text),
		Priority:       int32(v.Spec.Priority),
		ConversationId: v.Spec.ConversationID,
		Context:        v.Spec.Context,
		Labels:         v.Spec.Labels,
		CreatedBy:      actorToProto(v.CreatedBy),
		CreateTime:     timeToProto(v.CreateTime),
		StartTime:      timeToProto(v.StartTime),
		EndTime:        timeToProto(v.EndTime),
		Failure:        failureToProto(v.Failure),
		Queue:          placeToProto(v.Place),
		Percent:        v.Percent(),
		CurrentStep:    int32(v.Current()),
		Sequence:       v.Sequence,
		Cancellation:   wishToProto(v.Cancellation),
		Outcome:        taskStateToProto(v.Outcome),
		RequestId:      v.Spec.RequestID,
	}
	if u := v.Undo; u != nil {
		p.Undo = &telexecv1.TaskUndo{
			State: undoStateToProto(u.State), By: actorToProto(u.By), Time: timeToProto(u.Time), Reason: text(u.Reason), Automatic: u.Automatic,
			Cancellation: wishToProto(u.Cancellation),
		}
	}
	for i := range v.Steps {
		p.Steps = append(p.Steps, stepToProto(&v.Spec.Steps[i], &v.Steps[i]))
	}
	return p
}

func stepToProto(spec *task.StepSpec, s *task.Step) *telexecv1.Step {
	line, argv, timeout := spec.Line, spec.Argv, spec.Timeout
	if s.Line != "" || len(s.Argv) > 0 {
		line, argv, timeout = s.Line, s.Argv, s.Timeout
	}
	p := &telexecv1.Step{
		Name:             spec.Name,
		Command:          text((&command.Spec{Line: line, Argv: argv}).CommandLine()),
		Argv:             argv,
		Session:          spec.Session,
		Undo:             text(spec.Undo),
		NeedsApproval:    spec.NeedsApproval,
		OnFailure:        string(spec.OnFailure),
		Timeout:          durationToProto(timeout),
		Rollout:          &telexecv1.Rollout{Parallel: int32(spec.Rollout.Parallel), Canary: int32(spec.Rollout.Canary), GoOn: spec.Rollout.GoOn},
		State:            stepStateToProto(s.State()),
		UndoState:        undoStateToProto(s.UndoState()),
		Percent:          s.Percent(),
		WorkingDirectory: spec.WorkingDirectory,
		SudoUser:         spec.SudoUser,
		ActionType:       spec.ActionType,
	}
	if spec.Retry.Times > 0 {
		p.Retry = &telexecv1.Retry{Times: int32(spec.Retry.Times), Backoff: durationToProto(spec.Retry.Backoff)}
	}
	var begun, over time.Time
	for i := range s.Runs {
		r := &s.Runs[i]
		if !r.StartTime.IsZero() && (begun.IsZero() || r.StartTime.Before(begun)) {
			begun = r.StartTime
		}
		if r.EndTime.After(over) {
			over = r.EndTime
		}
		one := &telexecv1.StepRun{
			Host: r.Host, State: stepStateToProto(r.State), CommandId: r.Command, EarlierCommandIds: r.Earlier, ExitCode: exitToProto(r.Exit),
			Failure: failureToProto(r.Failure), StartTime: timeToProto(r.StartTime), EndTime: timeToProto(r.EndTime), Percent: r.Percent, RetryTime: timeToProto(r.RetryTime),
			UndoState: undoStateToProto(r.Undo.State), UndoCommandId: r.Undo.Command, UndoFailure: failureToProto(r.Undo.Failure),
		}
		if r.State == task.StepCompleted {
			one.Percent = 100
		}
		p.Runs = append(p.Runs, one)
	}
	p.StartTime = timeToProto(begun)
	if s.State().Ended() {
		p.EndTime = timeToProto(over)
	}
	return p
}

func exitToProto(code *int) *int32 {
	if code == nil {
		return nil
	}
	n := int32(*code)
	return &n
}

func placeToProto(p *task.Place) *telexecv1.Queue {
	if p == nil {
		return nil
	}
	return &telexecv1.Queue{Position: int32(p.Position), EstimatedWait: durationToProto(p.EstimatedWait), WaitsFor: "tasks"}
}

func wishToProto(n *task.Cancellation) *telexecv1.Cancellation {
	if n == nil {
		return nil
	}
	return &telexecv1.Cancellation{By: actorToProto(n.By), Time: timeToProto(n.Time), Reason: text(n.Reason)}
}

func taskEventToProto(e task.Event, t *task.Task) *telexecv1.TaskEvent {
	p := &telexecv1.TaskEvent{
		Version: 1, Id: e.Task + "-" + strconv.FormatInt(e.Sequence, 10), TaskId: e.Task, Sequence: e.Sequence, Time: timeToProto(e.Time), Type: string(e.Type),
		State: taskStateToProto(e.State), TaskPercent: e.TaskPercent, Message: text(e.Message), Host: e.Host, CommandId: e.Command,
		StepState: stepStateToProto(e.StepState), UndoState: undoStateToProto(e.UndoState), ExitCode: exitToProto(e.Exit), Failure: failureToProto(e.Failure),
		Percent: e.Percent, Queue: placeToProto(e.Place),
	}
	if e.Step >= 0 {
		step := int32(e.Step)
		p.StepIndex, p.Step = &step, t.Spec.Steps[e.Step].Name
	}
	if e.Type == task.ApprovalRequest {
		p.ApprovalId = e.Command
	}
	return p
}
