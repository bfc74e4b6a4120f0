package api

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	telexecv1 "github.com/telexec/telexec/gen/telexec/v1"
	"github.com/telexec/telexec/internal/access"
	"github.com/telexec/telexec/internal/approval"
	"github.com/telexec/telexec/internal/command"
	"github.com/telexec/telexec/internal/fault"
	"github.com/telexec/telexec/internal/task"
)

// flow is a Workflow that does what the test says.
type flow struct {
	Workflow
	views  map[string]TaskView
	before []TaskNews // of WatchAll, before all that was there has been told
	fail   error      // of WatchAll
	asked  TasksOptions
	closed bool
}

func (f *flow) Plan(_ context.Context, id string) (TaskView, error) {
	v, ok := f.views[id]
	if !ok {
		return v, fault.New(fault.NotFound, fault.ReasonUnknownTask, "there is no task %q", id)
	}
	return v, nil
}

func (f *flow) Get(context.Context, access.Caller, string) (TaskView, error) {
	return TaskView{}, fault.New(fault.PermissionDenied, fault.ReasonAccessDenied, "it is not yours")
}

func (f *flow) WatchAll(_ context.Context, _ access.Caller, o TasksOptions) (TasksWatcher, error) {
	f.asked = o
	return &flowWatch{flow: f, news: append(slices.Clone(f.before), TaskNews{Known: true})}, f.fail
}

type flowWatch struct {
	flow *flow
	news []TaskNews // behind them it waits
}

func (w *flowWatch) Close() { w.flow.closed = true }

func (w *flowWatch) Next(ctx context.Context) (TaskNews, error) {
	if len(w.news) == 0 {
		<-ctx.Done()
		return TaskNews{}, context.Cause(ctx)
	}
	n := w.news[0]
	w.news = w.news[1:]
	return n, nil
}

func TestEveryFieldOfATaskIsTold(t *testing.T) {
	v := full[TaskView]()
	v.State, v.Outcome, v.Undo.State = task.Undoing, task.Failed, task.UndoRunning
	r := &v.Steps[0].Runs[0]
	r.State, r.Undo.State, v.Undo.Time = task.StepFailed, task.UndoFailing, r.Undo.EndTime
	// It is at its first step, whose index is 0; of commands alone a cancel has a report.
	if missing := unset("", taskToProto(v).ProtoReflect()); !slices.Equal(missing, []string{"current_step", "cancellation.report", "undo.cancellation.report"}) {
		t.Errorf("never set: %v", missing)
	}
	before := taskToProto(v)
	tells := func(what string, whole reflect.Value, hidden map[string]string) {
		leaves("", whole, func(path string, f reflect.Value) {
			old := reflect.ValueOf(f.Interface())
			f.SetZero()
			changed := !proto.Equal(before, taskToProto(v))
			f.Set(old)
			if _, no := hidden[path]; changed == no {
				t.Errorf("%s%s: changes the wire: %v", what, path, changed)
			}
		})
	}
	steps, specs := v.Steps, v.Spec.Steps
	tells("spec of a step: ", reflect.ValueOf(&specs[0]).Elem(), map[string]string{
		"Line": "shown only without argv, and as approved", "Argv": "as approved", "Timeout": "as approved",
	})
	tells("run: ", reflect.ValueOf(r).Elem(), map[string]string{
		"Admitted": "its state tells", "Session": "its step names it", "Undo.StartTime": "its command tells",
	})
	v.Steps, v.Spec.Steps = nil, nil
	before = taskToProto(v)
	tells("", reflect.ValueOf(&v).Elem(), map[string]string{
		"Task.Roles": "for the rules", "Task.Undo.Roles": "for the rules", "Task.Steps": "above", "Task.Spec.Steps": "above",
	})
	v.Steps, v.Spec.Steps = steps, specs
}

func TestEveryFieldOfATasksEventIsTold(t *testing.T) {
	e := full[task.Event]()
	e.Type, e.State, e.StepState, e.UndoState, e.Step = task.ApprovalRequest, task.Running, task.StepAwaiting, task.UndoRunning, 0
	v := full[TaskView]()
	p := taskEventToProto(e, &v.Task)
	if missing := unset("", p.ProtoReflect()); len(missing) > 0 {
		t.Errorf("never set: %v", missing)
	}
	if p.GetVersion() != 1 || p.GetId() != e.Task+"-"+strconv.FormatInt(e.Sequence, 10) || p.GetApprovalId() != e.Command || p.GetStep() != v.Spec.Steps[0].Name {
		t.Errorf("%v", p)
	}
	e.Step, e.Type = -1, task.StatusChange
	if p := taskEventToProto(e, &v.Task); p.StepIndex != nil || p.GetStep() != "" || p.GetApprovalId() != "" {
		t.Errorf("of no step: %v", p)
	}
}

func TestEveryFieldOfAPlanCounts(t *testing.T) {
	r, n := &telexecv1.SubmitTaskRequest{}, 0
	fullMessage(r.ProtoReflect(), &n)
	r.Steps[0].Host = ""
	before := taskPlanFromProto(r)
	if len(before.Places) != 1 || len(before.Spec.Steps) != 1 {
		t.Fatalf("%+v", before)
	}
	count := func(what string, of func(*telexecv1.SubmitTaskRequest) protoreflect.Message, inside ...string) {
		fields := of(r).Descriptor().Fields()
		for i := range fields.Len() {
			less := proto.CloneOf(r)
			of(less).Clear(fields.Get(i))
			if name := string(fields.Get(i).Name()); !slices.Contains(inside, name) && reflect.DeepEqual(before, taskPlanFromProto(less)) {
				t.Errorf("%s%s does not count", what, name)
			}
		}
	}
	count("", func(r *telexecv1.SubmitTaskRequest) protoreflect.Message { return r.ProtoReflect() }, "validate_only")
	count("step: ", func(r *telexecv1.SubmitTaskRequest) protoreflect.Message { return r.Steps[0].ProtoReflect() }, "host")
	r.Steps[0].Host, r.Steps[0].Hosts = "h", nil
	if p := taskPlanFromProto(r); !slices.Equal(p.Places[0].Hosts, []string{"h"}) {
		t.Errorf("%+v", p.Places[0])
	}
}

func TestWhatOneWaitsForInATask(t *testing.T) {
	view := func(version int64, state task.State, steps ...task.StepState) TaskView {
		v := TaskView{Task: task.Task{Version: version, State: state}}
		for _, s := range steps {
			r := task.Run{State: s, Command: anID}
			if s == task.StepRunning || s == task.StepCompleted {
				r.StartTime = time.Unix(1, 0)
			}
			v.Steps = append(v.Steps, task.Step{Runs: []task.Run{r}})
		}
		return v
	}
	first := view(4, task.Running, task.StepRunning, task.StepPending)
	for name, c := range map[string]struct {
		r    *telexecv1.GetTaskRequest
		now  TaskView
		want bool
	}{
		"nothing has changed":     {&telexecv1.GetTaskRequest{}, first, false},
		"something has":           {&telexecv1.GetTaskRequest{}, view(5, task.Running, task.StepRunning, task.StepPending), true},
		"it is above":             {&telexecv1.GetTaskRequest{IfVersionGreaterThan: 3}, first, true},
		"it is not above":         {&telexecv1.GetTaskRequest{IfVersionGreaterThan: 4}, first, false},
		"it runs":                 {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_ENDED}, view(9, task.Running, task.StepCompleted, task.StepRunning), false},
		"it has ended":            {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_ENDED}, view(9, task.Failed, task.StepFailed, task.StepSkipped), true},
		"nobody is asked":         {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_APPROVAL}, view(9, task.Running, task.StepRunning, task.StepPending), false},
		"somebody is asked":       {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_APPROVAL}, view(9, task.Running, task.StepAwaiting, task.StepPending), true},
		"the same step":           {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_STEP}, view(9, task.Running, task.StepCompleted, task.StepPending), false},
		"the next one waits":      {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_STEP}, view(9, task.Running, task.StepCompleted, task.StepAwaiting), false},
		"the next step":           {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_STEP}, view(9, task.Running, task.StepCompleted, task.StepRunning), true},
		"the next, and not above": {&telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_STEP, IfVersionGreaterThan: 9}, view(9, task.Running, task.StepCompleted, task.StepRunning), false},
	} {
		if got := taskIs(c.r, first, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	r := &telexecv1.GetTaskRequest{Until: telexecv1.TaskWait_TASK_WAIT_STEP}
	if !taskIs(r, view(1, task.Queued, task.StepPending, task.StepPending), first) {
		t.Error("the first step is none")
	}
}

// A decision about a step is taken under its own task alone, and with what was shown.
func TestDecideTask(t *testing.T) {
	d := &desk{}
	d.fill(1, func(_ int, a *Approval) {
		a.Hash = bytes.Repeat([]byte{7}, 32)
		a.Snapshot.Spec.Task = &command.TaskRef{ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Name: "a"}
	})
	id := d.list[0].CommandID
	svc, ctx := NewTasks(&flow{}, d), asAnn(t)
	for _, other := range []string{"01ARZ3NDEKTSV4RRFFQ69G5FAW", ""} {
		if _, err := svc.DecideTask(ctx, &telexecv1.DecideTaskRequest{TaskId: other, ApprovalId: id, Approved: new(true)}); fault.ReasonOf(err) != fault.ReasonUnknownApproval || len(d.ballots) > 0 {
			t.Errorf("of another task: %v", err)
		}
	}
	shown := bytes.Repeat([]byte{1}, 32)
	for name, c := range map[string]struct {
		r    *telexecv1.DecideTaskRequest
		want approval.Ballot
	}{
		"yes":             {&telexecv1.DecideTaskRequest{Approved: new(true), Message: "go"}, approval.Ballot{Verdict: approval.Approve, Shown: d.list[0].Hash, Reason: "go"}},
		"to what I saw":   {&telexecv1.DecideTaskRequest{Approved: new(true), RequestHash: shown}, approval.Ballot{Verdict: approval.Approve, Shown: shown}},
		"no":              {&telexecv1.DecideTaskRequest{Message: "no"}, approval.Ballot{Verdict: approval.Reject, Reason: "no"}},
		"something else":  {&telexecv1.DecideTaskRequest{Approved: new(true), ModifiedParameters: &telexecv1.ModifiedRequest{Command: "ls"}}, approval.Ballot{Verdict: approval.Modify, Shown: d.list[0].Hash, Modified: &approval.Modification{Line: "ls"}}},
		"no, and changed": {&telexecv1.DecideTaskRequest{ModifiedParameters: &telexecv1.ModifiedRequest{Command: "ls"}}, approval.Ballot{Verdict: approval.Reject}},
	} {
		c.r.TaskId, c.r.ApprovalId, c.want.CommandID = "01ARZ3NDEKTSV4RRFFQ69G5FAV", id, id
		if _, err := svc.DecideTask(ctx, c.r); err != nil || len(d.ballots) != 1 || !reflect.DeepEqual(d.ballots[0], c.want) {
			t.Errorf("%s: %v, %+v", name, err, d.ballots)
		}
	}
}

// What is told of tasks comes before all is told that was there, and in between what
// becomes of commands; where a host is asked for, not at all.
func TestWatchEventsTellsOfTasks(t *testing.T) {
	over := errors.New("over")
	v := TaskView{Task: task.Task{ID: anID, Spec: task.Spec{Steps: []task.StepSpec{{Name: "a"}}}}}
	for host, want := range map[string][]string{
		"":  {"4 task", "4 event 1", "4 event 2", "4 v3", "4 synced", "9 v3"},
		"h": {"4 v3", "4 synced", "9 v3"},
	} {
		b := &bulletin{number: 4, news: []any{News{4, new(running())}, News{4, nil}, News{9, new(running())}, over}}
		f := &flow{before: []TaskNews{{View: &v}, {View: &v, Event: &task.Event{Sequence: 1, Step: -1}}, {View: &v, Event: &task.Event{Sequence: 2}}}}
		out := &eventSink{ctx: asAnn(t)}
		r := &telexecv1.WatchEventsRequest{Host: host, TaskSequences: map[string]int64{anID: 7}, Principal: "p", Labels: map[string]string{"a": "b"}}
		if err := NewEvents(b, &stage{}, f).WatchEvents(r, out); err != over || !slices.Equal(out.sent, want) {
			t.Errorf("%v: %q", err, out.sent)
		}
		if host == "" && (f.asked.After[anID] != 7 || f.asked.Principal != "p" || f.asked.Labels["a"] != "b" || !f.closed) {
			t.Errorf("%+v, closed %v", f.asked, f.closed)
		}
	}
	refused := errors.New("refused")
	b := &bulletin{number: 4, news: []any{time.Hour}}
	if err := NewEvents(b, &stage{}, &flow{fail: refused}).WatchEvents(&telexecv1.WatchEventsRequest{}, &eventSink{ctx: asAnn(t)}); err != refused || !b.closed {
		t.Errorf("%v", err)
	}
}
